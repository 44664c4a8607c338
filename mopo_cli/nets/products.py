"""Products of two matrices on a CPU, by one of the two libraries that torch brings for them, see `nets.libraries`.

Which is faster depends on the processor, and on one processor on the kind of product: on one core of AMD's fifth
generation (Zen 5) oneDNN makes 202 billion operations a second of 256 x 256 x 256 in float32 and MKL 97, on the fourth
both about 95, and there MKL makes gradients by weights faster. Torch hands float32 to oneDNN in compiled code only, by
the operation that is called here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mopo_cli.nets import libraries
from mopo_cli.nets.libraries import Choice, Kind, all_by
from mopo_cli.nets.precision import Precision

# MKL is several times slower for fewer columns than a vector has, unless transposed.
_NARROW = 16
# Multiply-adds from which on what a call takes no longer decides; an update's hidden layer has 2^24.
_SMALL = 1 << 22

_packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
_onednn: Callable[..., Any] | None = None if _packet is None else _packet.default


@cache
def can_use_onednn(dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN's product here, and it multiplies numbers of this type on this processor."""
    if _onednn is None or not torch.backends.mkldnn.is_available():
        return False
    square = torch.ones(_NARROW, _NARROW, dtype=dtype)
    try:
        return bool((_by_onednn(square, square, square[:1], "swish") > _NARROW - 1).all())
    except RuntimeError:
        return False


def possible(choice: Choice) -> Choice:
    """The choice, with MKL for the products that oneDNN cannot make here."""
    able = {"float32": can_use_onednn(torch.float32), "bfloat16": can_use_onednn(torch.bfloat16)}
    return {kind: library if able[kind.split()[0]] else "mkl" for kind, library in choice.items()}


def usual() -> Choice:
    """The choice by the processor's name, before any was measured: oneDNN on AMD's with 512-bit units."""
    about: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if "AMD" not in about.get("cpu_name", "") or not about["avx512_f"]:
        return all_by("mkl")
    return possible({**all_by("onednn"), "bfloat16 layer": "mkl", "bfloat16 gradient": "mkl"})


@contextmanager
def rounding(precision: Precision) -> Iterator[None]:
    """Meanwhile a GPU multiplies all float32 in TensorFloat-32 if that is the precision, else in float32 itself."""
    matmul, allow = torch.backends.cuda.matmul, precision == "tf32"
    before = matmul.allow_tf32
    if before == allow:
        yield
        return
    matmul.allow_tf32 = allow
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply `[B, I] @ [I, O]` -> `[B, O]`, and add `bias` `[1, O]` to every row."""
    if _is_for_onednn(left, right, "float32 layer", "bfloat16 layer"):
        return _by_onednn(left, right, bias)
    if 1 < right.shape[1] < _NARROW:
        return torch.nn.functional.linear(left, right.t().contiguous(), None if bias is None else bias[0])
    return torch.mm(left, right) if bias is None else torch.addmm(bias, left, right)


def product_silu(left: Tensor, right: Tensor, bias: Tensor) -> Tensor:
    """The SiLU of `product`. In bfloat16 oneDNN takes it of the sums themselves: less is rounded, in less time."""
    if left.dtype == torch.bfloat16 and "bfloat16 silu" in _to_onednn():
        return _by_onednn(left, right, bias, "swish")
    return torch.nn.functional.silu(product(left, right, bias), inplace=True)


def product_into(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Multiply `[B, I] @ [I, O]` into `out` `[B, O]`, which may be of another type: a gradient by weights."""
    if _is_for_onednn(left, right, "float32 gradient", "bfloat16 gradient"):
        out.copy_(_by_onednn(left, right))
    elif 1 < right.shape[1] < _NARROW:
        out.copy_(torch.mm(right.t(), left.t()).t())
    elif out.dtype != left.dtype:
        out.copy_(torch.mm(left, right))
    else:
        torch.mm(left, right, out=out)


def _by_onednn(left: Tensor, right: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    assert _onednn is not None
    result: Tensor = _onednn(left, right.t(), None if bias is None else bias[0], then, [], "")
    return result


def _to_onednn() -> frozenset[Kind]:
    return _usual() if libraries.to_onednn is None else libraries.to_onednn


@cache
def _usual() -> frozenset[Kind]:
    return frozenset(kind for kind, library in usual().items() if library == "onednn")


def _is_for_onednn(left: Tensor, right: Tensor, single: Kind, half: Kind) -> bool:
    """Whether oneDNN makes a product that is of the one kind or of the other, by its type, or small."""
    if not (chosen := _to_onednn()):
        return False
    rows, inner, columns = *left.shape, right.shape[1]
    if min(rows, inner, columns) < _NARROW:
        return False
    if left.dtype == torch.float32:
        return ("float32 small" if rows * inner * columns < _SMALL else single) in chosen
    return left.dtype == torch.bfloat16 and half in chosen
