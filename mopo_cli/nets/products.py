"""Products of two matrices on a CPU, by the faster of the two libraries that torch brings for them.

`torch.mm` multiplies float32 by MKL, which leaves half of the 512 bit units of an AMD processor idle: 97 billion
operations a second where oneDNN, which torch multiplies bfloat16 with, reaches 202 (one core of Zen 5, 256 x 256 x
256). Torch hands float32 to oneDNN in compiled code only, by the operation that is called here.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mopo_cli.nets.precision import Precision

# MKL is several times slower for fewer columns than a vector has, unless transposed.
_NARROW = 16


def _fastest() -> Callable[..., Any] | None:
    """OneDNN's product, where the processor is AMD's with 512 bit units and torch has it and detects them."""
    about: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if "AMD" not in about.get("cpu_name", "") or not about["avx512_f"] or not torch.backends.mkldnn.is_available():
        return None
    packet = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return None if packet is None else packet.default


_onednn = _fastest()


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
    if _onednn is not None and _wide(left, right):
        result: Tensor = _onednn(left, right.t(), None if bias is None else bias[0], "none", [], "")
        return result
    if 1 < right.shape[1] < _NARROW:
        return torch.nn.functional.linear(left, right.t().contiguous(), None if bias is None else bias[0])
    return torch.mm(left, right) if bias is None else torch.addmm(bias, left, right)


def product_silu(left: Tensor, right: Tensor, bias: Tensor) -> Tensor:
    """The SiLU of `product`. In bfloat16 oneDNN takes it of the sums themselves: less is rounded, in less time."""
    if _onednn is not None and left.dtype == torch.bfloat16:
        result: Tensor = _onednn(left, right.t(), bias[0], "swish", [], "")
        return result
    return torch.nn.functional.silu(product(left, right, bias), inplace=True)


def product_into(out: Tensor, left: Tensor, right: Tensor) -> None:
    """Multiply `[B, I] @ [I, O]` into `out` `[B, O]`, which may be of another type."""
    if 1 < right.shape[1] < _NARROW:
        out.copy_(torch.mm(right.t(), left.t()).t())
    elif out.dtype != left.dtype or (_onednn is not None and _wide(left, right)):
        out.copy_(product(left, right))
    else:
        torch.mm(left, right, out=out)


def _wide(left: Tensor, right: Tensor) -> bool:
    """Whether a product of float32 takes long enough for what calling oneDNN takes, ten microseconds."""
    return left.dtype == torch.float32 and min(left.shape[0], *right.shape) >= _NARROW
