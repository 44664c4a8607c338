"""The one primitive: a stack of independent members, their parameters in one flat tensor.

Members share nothing, so a member's numbers must not depend on its neighbours. On CUDA one batched product serves
all members. On CPU each network is computed by itself: a batched product picks its kernel by the size of the stack
and the alignment of each member, and with that its rounding. A *unit* is what is computed at once: there one network,
its matrices `[rows, cols]`; on CUDA the whole stack, `[M, rows, cols]`. `nets.layers` computes either.

Gradients are written out. In all code on top of this, `by_x` is the gradient of the loss by x, in the shape of x.
"""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import product

_ALIGNMENT = 64  # bytes; matrix kernels round differently where a matrix starts off this boundary
_FLOATS = _ALIGNMENT // 4

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}

Layers = list[tuple[Tensor, Tensor]]
"""The weight and bias of each layer of a unit."""


def units(stack: Tensor) -> int:
    """In how many parts a stack `[M, …]` is computed."""
    return 1 if stack.is_cuda else stack.shape[0]


def part(stack: Tensor, u: int) -> Tensor:
    """One unit of a stack `[M, …]`: a member, or on CUDA all of them."""
    return stack if stack.is_cuda else stack[u]


def unit(stack: Tensor, u: int) -> Tensor:
    """One unit of a stack, aligned for matrix products, and a copy if need be."""
    return stack if stack.is_cuda else aligned(stack[u])


def join(parts: list[Tensor]) -> Tensor:
    """Put the parts of a stack together: results `[…]` of each unit -> `[M, …]`."""
    return parts[0] if parts[0].is_cuda else torch.stack(parts)


def aligned(matrix: Tensor) -> Tensor:
    """The matrix, dense and where its products round as they do elsewhere; copied if it must be."""
    dense = matrix.contiguous()
    return dense if dense.data_ptr() % _ALIGNMENT == 0 else dense.clone()


def cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    """X as this type; x itself where it has it, as even torch's test of that takes a microsecond."""
    return x if x.dtype is dtype else x.to(dtype)


def matmul(left: Tensor, right: Tensor) -> Tensor:
    """Multiply member by member: `[M, B, I] @ [M, I, O]` -> `[M, B, O]`; on CPU each as if it were alone."""
    if left.is_cuda:
        return torch.bmm(left, right)
    return torch.stack([product(aligned(a), aligned(b)) for a, b in zip(left, right, strict=True)])


@dataclass(frozen=True)
class Layout:
    """Where each named matrix of one member lies in its flat row of parameters."""

    shapes: tuple[tuple[str, tuple[int, int]], ...]

    @property
    def size(self) -> int:
        """Floats a member takes, every matrix starting on an aligned address."""
        return sum(_padded(prod(shape)) for _, shape in self.shapes)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Name the matrices in flat parameters `[…, size]`: views `[…, rows, cols]`, no copy."""
        views, offset, lead = {}, flat.storage_offset(), flat.shape[:-1]
        for name, (rows, cols) in self.shapes:
            views[name] = flat.as_strided((*lead, rows, cols), (*flat.stride()[:-1], cols, 1), offset)
            offset += _padded(rows * cols)
        return views

    def pack(self, matrices: dict[str, Tensor]) -> Tensor:
        """Put named matrices `[M, rows, cols]` into a new flat tensor `[M, size]`."""
        first = matrices[self.shapes[0][0]]
        flat = first.new_zeros(first.shape[0], self.size)
        for name, view in self.views(flat).items():
            view.copy_(matrices[name])
        return flat


def _padded(floats: int) -> int:
    return -(-floats // _FLOATS) * _FLOATS


def chain(matrices: dict[str, Tensor]) -> Layers:
    """The layers w0 b0 w1 b1 … among named matrices."""
    count = sum(name[0] == "w" and name[1:].isdigit() for name in matrices)
    return [(matrices[f"w{i}"], matrices[f"b{i}"]) for i in range(count)]


@dataclass(frozen=True)
class Parameters:
    """The parameters `flat` `[M, size]` of M networks, or a gradient by them.

    Views of it are made once, as making them takes as long as a small product. So `flat` may change in place, if it
    starts on an aligned address as what torch allocates does; of others the views are copies. Products of two hidden
    layers are made in the precision `products`.
    """

    layout: Layout
    flat: Tensor
    products: Precision = "fp32"
    _divided: "dict[int, list[Parameters]]" = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def parts(self) -> list[dict[str, Tensor]]:
        """The named matrices of every unit."""
        return [self.layout.views(unit(self.flat, u)) for u in range(units(self.flat))]

    @cached_property
    def layers(self) -> list[Layers]:
        """The chain of layers w0 b0 w1 b1 … of every unit."""
        return [chain(views) for views in self.parts]

    def divided(self, count: int) -> "list[Parameters]":
        """The stack in so many equal parts, each a stack of its own; made once."""
        if count not in self._divided:
            parts = self.flat.chunk(count)
            self._divided[count] = [Parameters(self.layout, flat, self.products) for flat in parts]
        return self._divided[count]


def mlp_layout(sizes: tuple[int, ...]) -> Layout:
    """Name the weights and biases of a multilayer perceptron: w0 `[in, out]`, b0 `[1, out]`, w1, …"""
    shapes: list[tuple[str, tuple[int, int]]] = []
    for i, (rows, cols) in enumerate(pairwise(sizes)):
        shapes += [(f"w{i}", (rows, cols)), (f"b{i}", (1, cols))]
    return Layout(tuple(shapes))
