"""Functions of small operations, each of which a GPU can launch as one kernel.

Such a function is marked `@fused`. It takes tensors and numbers, and its operations are element-wise but for sums over
one dimension. It may change tensors in place. On a CPU it is called as any function. Within `fusing` it is compiled to
one kernel; otherwise each of its operations is a kernel.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from types import FunctionType
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from mopo_cli.engine.capture import Recorder

Function = TypeVar("Function", bound=Callable[..., Any])

Call = Callable[..., Any]
"""`call(function, *arguments)` calls a fused function some way."""

# One kernel for all: sums of any size, together with what is summed up; what is stacked; and what shares no inputs.
_OPTIONS: dict[str, Any] = {
    "split_reductions": False,
    "unroll_reductions_threshold": 1,
    "loop_ordering_after_fusion": True,
    "force_pointwise_cat": True,
    "aggressive_fusion": True,
}

# Triton's own products, as nothing can be added to those of the library.
_PRODUCT: dict[str, Any] = {"max_autotune_gemm": True, "max_autotune_gemm_backends": "TRITON"}

_call: Call | None = None
_with_product: set[Callable[..., Any]] = set()
_compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}


def fused(function: Function) -> Function:
    """Mark a function that can be one kernel; it is called with positional arguments alone."""

    @wraps(function)
    def fused_function(*arguments: Any) -> Any:
        if _call is None or torch.compiler.is_compiling():
            return function(*arguments)
        return _call(function, *arguments)

    return cast(Function, fused_function)


def fused_product(function: Function) -> Function:
    """Mark a product of two matrices and the operations after it, which the product's kernel does."""
    _with_product.add(function)
    return fused(function)


def is_fusing() -> bool:
    """Whether fused functions are compiled now."""
    return _call is not None


@contextmanager
def fusing(call: Call | None = None) -> Iterator[None]:
    """Meanwhile every fused function is compiled, once for each shape of its arguments, or called by `call`."""
    global _call
    before, _call = _call, call or compiled
    try:
        yield
    finally:
        _call = before


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a fused function as compiled by Triton, or on a CPU by a C++ compiler, when such arguments came first."""
    key = function, tuple(_kind(argument) for argument in arguments)
    if key not in _compiled:
        # Each from code of its own, as torch compiles the same code a few times and then no more.
        code = function.__code__.replace(co_name=f"{function.__name__}_{len(_compiled)}")
        again = FunctionType(code, function.__globals__, None, function.__defaults__, function.__closure__)
        options = _OPTIONS | (_PRODUCT if function in _with_product else {})
        _compiled[key] = torch.compile(again, fullgraph=True, options=options)
    return _compiled[key](*arguments)


def _kind(argument: Any) -> Any:
    """What kernels depend on; they take floats, such as a learning rate, as they come."""
    if isinstance(argument, Tensor):
        return argument.shape, argument.stride(), argument.dtype, argument.device
    return float if isinstance(argument, float) else argument


def fused_recorder(record: Recorder) -> Recorder:
    """A recorder of steps with fused functions. It takes a step first, as nothing is compiled while recording."""

    def record_fused(work: Callable[[], None]) -> Callable[[], object]:
        with fusing():
            work()
            return record(work)

    return record_fused
