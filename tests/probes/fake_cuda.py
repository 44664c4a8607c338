"""A GPU where there is none: tensors on the device "cuda" that say so everywhere, and compute on the CPU.

Real numbers are behind them, so that whole commands run, and the Python and C++ around the operations take the way they
take on a GPU. As there, operations on tensors of two devices fail. What the host fetches from the device, and what it
sends there, is counted by the function that does it. In what is recorded, both are refused, and so is whatever else the
capture of a CUDA graph refuses. Operations that torch has no CUDA kernel for are refused everywhere.
"""

import ctypes
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from probes.cuda_kernels import has_kernel
from probes.gpu import recording
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_ON = ("cuda", "meta")  # C++ takes the guard that it is lent for the device itself
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
_COPIES = ("aten::copy_", "aten::_to_copy")
_HOST_MATHS = ("svd", "linalg", "cholesky", "_eig")  # what these libraries do cannot be captured
_CUDA, _META = 1, 14  # positions of devices in torch's registry
_CPU = torch.device("cpu")
_BYTES = 80 * 10**9


class OnCuda(Tensor):
    """A tensor that is on the device; its numbers are those of `numbers`."""

    numbers: Tensor
    __torch_function__: Any = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnCuda":
        about: dict[str, Any] = {"dtype": inner.dtype, "device": torch.device("cuda:0"), "strides": inner.stride()}
        about["storage_offset"] = inner.storage_offset()
        made: OnCuda = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **about)
        made.numbers = inner
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        raise RuntimeError(f"{func} is computed where there is no GPU: on another thread, or after the test")

    def tolist(self) -> Any:
        """The numbers; torch itself refuses for tensors that Python computes."""
        return self.cpu().tolist()

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnCuda({self.numbers!r})"


_generators: dict[int, torch.device] = {}
"""Where generators draw, by the address of what C++ hands around."""
_Generator: Any = torch.Generator


class Generator(_Generator):  # type: ignore[misc]
    """A generator of either device; on a GPU it draws what one with its seed draws on the CPU."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        made: Generator = super().__new__(cls, "cpu")
        _generators[made._cdata] = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        """Where it draws."""
        return _generators[self._cdata]


class FakeCuda(TorchDispatchMode):
    """Computes. `fetched` and `sent` count, by the function that does it, how often host and device had to meet.

    `recorded` is how many recordings have ended.
    """

    # The place of torch's own mode without a device: below all others, and CUDA is not initialised.
    _mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __init__(self) -> None:
        super().__init__()
        self.fetched: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.recorded = 0
        self._recording = False

    def forget(self) -> None:
        """Count anew."""
        self.fetched.clear()
        self.sent.clear()

    @contextmanager
    def recording(self) -> Iterator[list[Callable[[], object]]]:
        """As `gpu.recording`, and what host and device would have to meet for is refused."""
        with recording() as replays:
            self._recording = True
            try:
                yield replays
            finally:
                self._recording = False
        self.recorded += 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, traits = dict(kwargs or {}), _traits(func)
        leaves = list(_leaves((*args, *kwargs.values())))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        on = any(map(_on, tensors))
        if kwargs.get("device") is not None:
            on = torch.device(kwargs["device"]).type in _ON
            kwargs["device"] = _CPU
        if self._recording and not (on and all(map(_on, tensors))):
            raise RuntimeError(f"{func} works on the host in a recorded step")
        if on or any(map(_on, tensors)):
            self._check(func, traits, args, tensors, on)
        if traits.draws:
            _check_generators(func, leaves, on)
        out = func(*_map(_inner, args), **_map(_inner, kwargs))
        if on and traits.reshapes:
            with torch._C._DisableTorchDispatch():
                return func(*args, **kwargs)
        given = {id(_inner(tensor)): tensor for tensor in tensors}
        return _map(lambda x: _of(x, given, on) if isinstance(x, Tensor) else x, out)

    def _check(self, func: Any, traits: "Traits", args: Any, tensors: list[Tensor], on: bool) -> None:
        if not traits.kernel:
            raise RuntimeError(f"torch has no CUDA kernel for {func}")
        if self._recording and (traits.draws or traits.waits):
            raise RuntimeError(f"{func} cannot be recorded")
        if traits.copies:
            source, target = _on(tensors[-1]), on if len(tensors) == 1 else _on(tensors[0])
            if source != target:
                self._meet(self.sent if target else self.fetched, func)
        elif off := [tensor for tensor in tensors if not _on(tensor)]:
            if traits.indexes and _on(args[0]) and all(map(_on, args[2:3])):
                self._meet(self.sent, func)
            elif not (traits.pointwise and _on(tensors[0])) or any(tensor.dim() for tensor in off):
                raise RuntimeError(f"{func} takes tensors of two devices, {[str(each.device) for each in tensors]}")
        masks = traits.indexes and any(index is not None and index.dtype == torch.bool for index in args[1])
        if masks or traits.fetches:
            self._meet(self.fetched, func)

    def _meet(self, counts: Counter[str], func: Any) -> None:
        if self._recording:
            raise RuntimeError(f"{func} waits for host or device in a recorded step")
        counts[_site()] += 1


@dataclass(frozen=True)
class Traits:
    """Of one of torch's operations: whether there is a CUDA kernel for it, and what it does."""

    kernel: bool
    copies: bool
    indexes: bool
    pointwise: bool
    """A number of the host may go with it: it becomes an argument of the kernel."""
    fetches: bool
    """The host has to know numbers: the value itself, or how large the result is."""
    draws: bool
    reshapes: bool
    waits: bool
    """The library that does it waits for the device."""


@cache
def _traits(func: Any) -> Traits:
    name, tags, indexes = func._schema.name, set(func.tags), func._schema.name in _INDEXING
    return Traits(
        kernel=has_kernel(func),
        copies=name in _COPIES,
        indexes=indexes,
        pointwise=torch.Tag.pointwise in tags or name == "aten::fill_",
        fetches=not indexes and bool(tags & {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}),
        draws=torch.Tag.nondeterministic_seeded in tags,
        reshapes=torch.Tag.inplace_view in tags,
        waits=any(word in name for word in _HOST_MATHS),
    )


def _check_generators(func: Any, leaves: list[Any], on: bool) -> None:
    generators = [leaf for leaf in leaves if isinstance(leaf, _Generator)]
    if any(_generators.get(each._cdata, _CPU).type != ("cpu", "cuda")[on] for each in generators):
        raise RuntimeError(f"{func} draws from a generator of another device")


def _on(tensor: Tensor) -> bool:
    return isinstance(tensor, OnCuda)


def _leaves(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _leaves(value)
        else:
            yield value


def _map(change: Callable[[Any], Any], values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _map(change, value) for name, value in values.items()}
    return type(values)(_map(change, v) for v in values) if isinstance(values, list | tuple) else change(values)


def _inner(value: Any) -> Any:
    return value.numbers if isinstance(value, OnCuda) else value


def _of(result: Tensor, given: dict[int, Tensor], on: bool) -> Tensor:
    """What stands for a result: what was given, where that was changed in place, or else something new."""
    return given[id(result)] if id(result) in given else OnCuda(result) if on else result


def _site() -> str:
    """The function of the package that is being computed."""
    frame: Any = sys._getframe(2)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("mopo_cli."):
        frame = frame.f_back
    if frame is None:
        return "elsewhere"
    function = frame.f_code.co_qualname.split(".<locals>")[0]
    return f"{frame.f_globals['__name__'].removeprefix('mopo_cli.')}.{function}"


class Graph:
    """Stands for `torch.cuda.CUDAGraph`."""

    replay: Callable[[], object]


@contextmanager
def _guarded() -> Iterator[None]:
    """C++ has a guard for CUDA, which does nothing: a build without it has none, and not even slices can be taken."""
    libraries = [
        path for path in (Path(torch.__file__).parent / "lib").glob("*c10.*") if path.suffix in (".so", ".dylib")
    ]
    guards = (ctypes.c_void_p * (_META + 1)).in_dll(
        ctypes.CDLL(str(libraries[0])), "_ZN3c104impl26device_guard_impl_registryE"
    )
    torch._C._ensureCUDADeviceGuardSet()  # where there is one that finds no GPU
    before, only_lift = guards[_CUDA], torch._C._only_lift_cpu_tensors()
    guards[_CUDA] = before or guards[_META]
    torch._C._set_only_lift_cpu_tensors(True)
    try:
        yield
    finally:
        torch._C._set_only_lift_cpu_tensors(only_lift)
        guards[_CUDA] = before


@contextmanager
def fake_cuda() -> Iterator[FakeCuda]:
    """Meanwhile "cuda" is a device, and the only one of its kind."""
    mode = FakeCuda()
    _generators.clear()

    @contextmanager
    def capture(graph: Graph) -> Iterator[None]:
        with mode.recording() as replays:
            yield
        graph.replay = replays[0]

    # Of torch.cuda what asks the driver; its functions themselves stay, as they also look at what they are given.
    asked: dict[Any, dict[str, Any]] = {
        torch._C: {
            "_cuda_setDevice": lambda _: None,
            "_cuda_synchronize": lambda: None,
        },
        torch.cuda: {
            "_lazy_init": lambda: None,
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "_exchange_device": lambda _: 0,
            "_maybe_exchange_device": lambda _: 0,
            "cudart": lambda: SimpleNamespace(cudaMemGetInfo=lambda _: (_BYTES, _BYTES)),
            "_get_device_properties": lambda _: SimpleNamespace(major=9, minor=0),
            "current_stream": lambda: None,
            "CUDAGraph": Graph,
            "graph": capture,
        },
    }
    with pytest.MonkeyPatch.context() as patch, _guarded(), mode:
        for module, functions in asked.items():
            for name, stand_in in functions.items():
                patch.setattr(module, name, stand_in, raising=False)
        patch.setattr(torch, "Generator", Generator)
        yield mode
