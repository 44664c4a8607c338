"""The one primitive: linear layers over a stack of independent members, their parameters in one flat tensor.

Members share nothing, so a member's numbers must not depend on its neighbours. On CUDA one batched product serves
all members. On CPU each network is computed by itself: a batched product picks its kernel by the size of the stack
and the alignment of each member, and with that its rounding. A *unit* is what is computed at once: there one network,
its matrices `[rows, cols]`; on CUDA the whole stack, `[M, rows, cols]`. The functions here take either.

Gradients are written out: the networks are chains of a few layers, for which autograd costs more than it saves.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from math import prod

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused, fused_product, is_fusing
from mopo_cli.engine.parallel import spread
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import product, product_into, product_silu

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


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One layer of a unit, in x's type: x `[…, B, I]`, weight `[…, I, O]`, bias `[…, 1, O]` -> `[…, B, O]`."""
    if x.dim() == 3:
        return _add(whole_product(x, weight), bias)
    return product(x, cast(weight, x.dtype), cast(bias, x.dtype))


def affine_relu(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    """The ReLU of `affine` as this type."""
    if x.dim() == 3:
        return _add_relu(whole_product(x, weight), bias, dtype)
    return cast(torch.relu_(affine(x, weight, bias)), dtype)


def affine_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The SiLU of `affine` where no gradient is needed; all three are of one type."""
    if x.dim() == 3:
        return _whole_affine_silu(x, cast(weight, x.dtype), bias)
    return product_silu(x, weight, bias)


def affine_and_silu(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """`affine`, and the SiLU of it as this type."""
    if x.dim() == 3:
        return _add_and_silu(whole_product(x, weight), bias, dtype)
    before = affine(x, weight, bias)
    return before, cast(torch.nn.functional.silu(before), dtype)


def whole_product(x: Tensor, weight: Tensor) -> Tensor:
    """`affine` of a whole stack without the bias."""
    # `baddbmm` would copy the bias to every row and then add the product: as many kernels as a sum afterwards.
    return torch.bmm(x, cast(weight, x.dtype))


@fused
def _add(x: Tensor, bias: Tensor) -> Tensor:
    return x.add_(bias)


@fused
def _add_relu(x: Tensor, bias: Tensor, dtype: torch.dtype) -> Tensor:
    return cast(x.add_(bias).relu_(), dtype)


@fused_product
def _whole_affine_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.silu(torch.bmm(x, weight).add_(bias), inplace=True)


@fused
def _add_and_silu(x: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return x.add_(bias), cast(torch.nn.functional.silu(x), dtype)


def parameter_gradient(x: Tensor, grad: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Of a layer with inputs x `[…, B, I]` and gradient `[…, B, O]` of its output: into `weight` and `bias`."""
    add_rows(grad, bias)
    weight_gradient(x, grad, weight)


@fused
def add_rows(grad: Tensor, total: Tensor) -> None:
    """Put the sum over the rows of grad `[…, B, O]` into `total` `[…, 1, O]`."""
    if torch.compiler.is_compiling():  # its compiler takes no `out` with gaps between the members
        total.copy_(grad.sum(dim=-2, keepdim=True, dtype=total.dtype))
    else:
        torch.sum(grad, dim=-2, keepdim=True, dtype=total.dtype, out=total)


def weight_gradient(x: Tensor, grad: Tensor, weight: Tensor) -> None:
    """The part of `parameter_gradient` that is a product."""
    if x.dim() == 2:
        product_into(weight, x.t(), grad)
    elif x.dtype == weight.dtype:
        torch.bmm(x.mT, grad, out=weight)
    else:
        weight.copy_(torch.bmm(x.mT, grad))


def input_gradient(grad: Tensor, weight: Tensor) -> Tensor:
    """Of a layer with weight `[…, I, O]` and gradient `[…, B, O]` of its output, in its type: `[…, B, I]`."""
    weight = cast(weight, grad.dtype)
    if weight.shape[-1] == 1:
        return grad * weight.mT
    return torch.bmm(grad, weight.mT) if grad.dim() == 3 else product(grad, weight.t())


@dataclass(frozen=True)
class Activation:
    """How gradients go back through an activation; both functions may reuse the memory of the gradient.

    `back(grad, kept)` is that by what went in, where `kept` is what the activation depends on or gave. `back_adding` is
    a chain for whole stacks, `(grad, weight, kept, total, by_weight)`: it also puts the sum over the rows into `total`.
    With a `weight` `[M, I, 1]`, grad is that of a single output, `[M, B, 1]`, whose product with the weight is yet to
    be made; and with `by_weight` of that shape, that gets the gradient by the weight, `kept` being its inputs.
    """

    back: Callable[[Tensor, Tensor], Tensor]
    back_adding: Callable[[Tensor, Tensor | None, Tensor, Tensor | None, Tensor | None], Tensor]

    def through(
        self,
        grad: Tensor,
        weight: Tensor,
        kept: Tensor,
        total: Tensor | None = None,
        by_weight: Tensor | None = None,
    ) -> Tensor:
        """Take a gradient `[…, B, O]` back through a layer with this weight, and the activation before it."""
        if grad.dim() == 2:
            return self.back(input_gradient(grad, weight), kept)
        if weight.shape[-1] == 1:
            return self.back_adding(grad, weight, kept, total, by_weight)
        return self.back_adding(input_gradient(grad, weight), None, kept, total, None)


def chain_gradient(
    inputs: list[Tensor],
    layers: Layers,
    upstream: Tensor,
    activation: Activation,
    kept: list[Tensor],
    grads: Layers,
) -> Tensor:
    """Differentiate a unit's chain of layers by their parameters, into `grads`.

    `inputs` are those of every layer, `upstream` is the gradient of the last one's output, and `kept[layer]` is what
    the activation before a layer needs. A layer's parameters and its inputs are differentiated by side by side. Returns
    the gradient of the first layer's output.
    """
    if upstream.dim() == 3:
        add_rows(upstream, grads[-1][1])
        return whole_chain_gradient(inputs, layers, upstream, activation, kept, grads)

    def step(layer: int, upstream: Tensor, job: int) -> Tensor:
        upstream = cast(upstream, inputs[layer].dtype)
        if job:
            return activation.through(upstream, layers[layer][0], kept[layer])
        parameter_gradient(inputs[layer], upstream, *grads[layer])
        return upstream

    for layer in reversed(range(len(layers))):
        upstream = spread(partial(step, layer, upstream), 2 if layer else 1)[-1]
    return upstream


def whole_chain_gradient(
    inputs: list[Tensor],
    layers: Layers,
    upstream: Tensor,
    activation: Activation,
    kept: list[Tensor],
    grads: Layers,
) -> Tensor:
    """As `chain_gradient` of a whole stack, whose last bias is differentiated by already."""
    for layer in reversed(range(len(layers))):
        upstream = cast(upstream, inputs[layer].dtype)
        weight, by_weight = layers[layer][0], grads[layer][0]
        in_chain = layer and weight.shape[-1] == 1 and kept[layer] is inputs[layer] and is_fusing()
        if not in_chain:
            weight_gradient(inputs[layer], upstream, by_weight)
        if layer:
            total = grads[layer - 1][1]
            upstream = activation.through(upstream, weight, kept[layer], total, by_weight if in_chain else None)
    return upstream


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
        count = sum(name[0] == "w" and name[1:].isdigit() for name, _ in self.layout.shapes)
        return [[(views[f"w{i}"], views[f"b{i}"]) for i in range(count)] for views in self.parts]

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
