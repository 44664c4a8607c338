"""Pieces of work that threads of one interpreter do side by side: traced once by torch, then called as one operation.

Such threads take turns wherever they are between two operations of torch. A traced piece has its operations called one
after the other by torch itself, so that threads meet only where pieces begin and end. They are the same operations: the
numbers are those of the function, to the last bit.
"""

import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from mopo_cli.engine.parallel import working_alone

Function = TypeVar("Function", bound=Callable[..., Any])

CALLS = 30
"""Calls of one kind before it is traced, which takes as long as about ten of them."""

_calls: dict[Any, int] = {}
_traces: dict[Any, Callable[..., Any] | None] = {}
_tracing = threading.Lock()


def traced(function: Function) -> Function:
    """Mark a piece: a function of tensors, also in dicts, and constants, called with positional arguments alone.

    It returns tensors. It may change those that it is given, draws nothing, and what it does depends on their shapes
    and the constants only. On a GPU, and where torch cannot trace it, it is nothing else than the function.
    """

    @wraps(function)
    def piece(*arguments: Any) -> Any:
        leaves: list[Tensor] = []
        form = tuple(_form(argument, leaves) for argument in arguments)
        key = function, form
        if key in _traces:
            trace = _traces[key]
            return function(*arguments) if trace is None else _replay(trace, leaves)
        _calls[key] = _calls.get(key, 0) + 1
        # Torch no longer supports traces from Python 3.14 on.
        if (
            leaves[0].is_cuda
            or _calls[key] < CALLS
            or sys.version_info >= (3, 14)
            or not _tracing.acquire(blocking=False)
        ):
            return function(*arguments)
        try:
            _traces[key] = _trace(function, form, leaves)
        finally:
            _tracing.release()
        return piece(*arguments)

    return cast(Function, piece)


def _trace(function: Callable[..., Any], form: tuple[Any, ...], leaves: list[Tensor]) -> Callable[..., Any] | None:
    def of_leaves(*tensors: Tensor) -> Any:
        left = iter(tensors)
        return function(*(_filled(part, left) for part in form))

    copies = tuple(leaf.clone() for leaf in leaves)
    with warnings.catch_warnings(), working_alone(), suppress(RuntimeError):  # a call of oneDNN cannot be traced
        warnings.simplefilter("ignore")  # of sizes that become constants
        trace: Callable[..., Any] = torch.jit.trace(of_leaves, copies, check_trace=False)
        return trace
    return None


def _replay(trace: Callable[..., Any], leaves: list[Tensor]) -> Any:
    # Torch would leave out casts to a type and back, so that less is rounded. The setting is of this thread alone.
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        return trace(*leaves)


def _form(argument: Any, leaves: list[Tensor]) -> Any:
    """What an argument is but for its tensors' values; these are appended to `leaves`."""
    if isinstance(argument, Tensor):
        leaves.append(argument)
        return Tensor, argument.shape, argument.stride(), argument.dtype
    if isinstance(argument, dict):
        return dict, tuple((name, _form(each, leaves)) for name, each in argument.items())
    return None, argument


def _filled(form: Any, leaves: Iterator[Tensor]) -> Any:
    """The argument of a form, with the next of these tensors."""
    kind, *about = form
    if kind is Tensor:
        return next(leaves)
    return about[0] if kind is None else {name: _filled(each, leaves) for name, each in about[0]}
