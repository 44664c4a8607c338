"""What is done otherwise on a GPU, on the CPU: all members computed at once, and steps recorded and replayed."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from mopo_cli.engine.fused import fusing

# What asks the device for a number, or brings one there.
_REFUSED: tuple[str, ...] = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "lift_fresh",
    "where.Scalar",
    "is_same_size",
)
_REFUSED += ("aten.equal.", "aten.allclose.", "repeat_interleave.Tensor", "bincount", "svd")
_INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put.default, torch.ops.aten.index_put_.default)

_SHAPES = ("aten::unsqueeze_", "aten::squeeze_", "aten::transpose_", "aten::t_", "aten::as_strided_")


def _asks_on_a_cpu_alone(func: Any, args: Any) -> bool:
    """Whether all quantiles are between 0 and 1: torch 2.6 asks that of two booleans, and not on a GPU."""
    return func is torch.ops.aten.equal.default and all(arg.dtype == torch.bool and arg.dim() == 0 for arg in args)


def _as_now(values: Any) -> Any:
    """The same memory, in the shape that it has now."""
    return tree_map(lambda value: value.detach() if isinstance(value, Tensor) else value, values)


@contextmanager
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors say that they are on CUDA; nothing else of them changes."""
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "is_cuda", property(lambda _: True))
        yield


class _Notes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.changed: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        if _asks_on_a_cpu_alone(func, args):
            return func(*args, **kwargs)
        if any(name in str(func) for name in _REFUSED) or any(isinstance(leaf, torch.Generator) for leaf in leaves):
            raise RuntimeError(f"{func} is not permitted while recording")
        if func in _INDEXED and any(leaf.dtype == torch.bool for leaf in tree_leaves(args[1])):
            raise RuntimeError("how many rows a mask chooses is asked of the device")
        if func._schema.name in _SHAPES:
            return func(*args, **kwargs)
        given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            self._keep(argument, given.get(argument.name))
        asked = _as_now((args, kwargs))
        out = func(*args, **kwargs)
        elsewhere = any(value.alias_info is not None for value in func._schema.returns)
        self.operations.append((func, *asked, None if elsewhere else _as_now(out)))
        return out

    def _keep(self, argument: Any, value: Any) -> None:
        if argument.alias_info is not None and argument.alias_info.is_write:
            self.changed += [(leaf.detach(), leaf.clone()) for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def _refuse(name: str, *_: Any) -> None:
    raise RuntimeError(f"{name} asks the device")


@contextmanager
def recording() -> Iterator[list[Callable[[], object]]]:
    """Around what is to be recorded, as a graph's capture is: its end puts what launches it all again into the list.

    Noted are the operations and the memory they work on, nothing of the Python around them. As in a capture, recording
    changes no state, and to draw numbers or to ask the device for one is refused.
    """
    replays: list[Callable[[], object]] = []
    with _Notes() as notes, pytest.MonkeyPatch.context() as patched:
        for name in ("tolist", "cpu", "numpy"):
            patched.setattr(torch.Tensor, name, partial(_refuse, name))
        yield replays
    for tensor, value in reversed(notes.changed):
        tensor.copy_(value)

    def replay() -> None:
        for func, args, kwargs, out in notes.operations:
            again = func(*args, **kwargs)
            for room, value in zip(tree_leaves(out), tree_leaves(again), strict=False):
                if isinstance(room, Tensor):
                    room.copy_(value)

    replays.append(replay)


def record(work: Callable[[], None]) -> Callable[[], object]:
    """A recorder as CUDA graphs are (see `mopo_cli.engine.capture`), see `recording`."""
    with recording() as replays:
        work()
    return replays[0]


class _Launches(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = any(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        self.count += not (views or "empty" in func._schema.name or "view" in func._schema.name)
        # The product is added to a copy of the bias.
        self.count += func in (torch.ops.aten.baddbmm.default, torch.ops.aten.baddbmm.out)
        return func(*args, **(kwargs or {}))


def launches(work: Callable[[], object], fuse: bool = False) -> int:
    """How many operations there are that do more than look at memory in another way: on a GPU each is launched.

    With `fuse` a chain is one.
    """
    chains = 0

    def call(function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal chains
        chains += 1
        inside = counted.count
        with not_fusing():
            result = function(*arguments)
        counted.count = inside
        return result

    with _Launches() as counted, fusing(call) if fuse else nullcontext():
        work()
    return counted.count + chains


@contextmanager
def not_fusing() -> Iterator[None]:
    """Within `fusing`: chains are plain functions."""
    with fusing(lambda function, *arguments: function(*arguments)):
        yield


def off_device(value: Any, path: str = "") -> list[str]:
    """The tensors in a value of dataclasses and containers that are not on the device, by their path."""
    if isinstance(value, Tensor):
        return [] if value.is_cuda else [path]
    parts: Any = {}
    if isinstance(value, dict):
        parts = value
    elif isinstance(value, list | tuple | deque):
        parts = dict(enumerate(value))
    elif hasattr(value, "__dict__") and type(value).__module__.startswith("mopo_cli."):
        parts = vars(value)
    return [off for name, part in parts.items() for off in off_device(part, f"{path}.{name}")]
