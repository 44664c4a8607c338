"""Chains of small operations, each of which a GPU can launch as one kernel.

Such a chain is a function marked `@fused`: of tensors and numbers, whose operations are element-wise but for sums over
one dimension. It may change tensors in place. It is called as any function, and on a CPU is nothing else. Within
`fusing` it is compiled: to one kernel, where its operations, launched one by one, are as many kernels as they are.
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
"""`call(function, *arguments)` calls a chain some way."""

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
    """Mark a chain; it is called with positional arguments alone."""

    @wraps(function)
    def chain(*arguments: Any) -> Any:
        if _call is None or torch.compiler.is_compiling():
            return function(*arguments)
        return _call(function, *arguments)

    return cast(Function, chain)


def fused_product(function: Function) -> Function:
    """Mark a product of two matrices with the chain after it, whose operations the product's kernel does."""
    _with_product.add(function)
    return fused(function)


def is_fusing() -> bool:
    """Whether chains are compiled now."""
    return _call is not None


@contextmanager
def fusing(call: Call | None = None) -> Iterator[None]:
    """Meanwhile every chain is compiled, once for each shape of its arguments, or called by `call`."""
    global _call
    before, _call = _call, call or compiled
    try:
        yield
    finally:
        _call = before


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a chain compiled by Triton, or on a CPU by a C++ compiler. It is compiled when such arguments come first."""
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
    """A recorder of steps whose chains are fused. It takes a step first, as nothing is compiled while recording."""

    def record_fused(work: Callable[[], None]) -> Callable[[], object]:
        with fusing():
            work()
            return record(work)

    return record_fused
