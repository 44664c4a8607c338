"""Linear layers of a unit with what comes after them, and the gradients back through a chain of them, written out.

The networks are chains of a few layers, for which autograd costs more than it saves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused, fused_product, is_fusing
from mopo_cli.engine.parallel import spread
from mopo_cli.nets.products import product, product_into, product_silu
from mopo_cli.nets.stacked import Layers, cast


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


def affine_with_silu(x: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(`affine`, the SiLU of it as this type), both `[…, B, O]`."""
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

    `back(grad, kept)`: the gradient by the activation's input. `grad` is that by its output, and `kept` its input or
    output, whichever the derivative is made of.

    `back_adding(grad, weight, kept, total, by_weight)`: the same for a whole stack, as one fused function. It also
    writes, where they are given,

    - into `total` `[M, 1, O]` the sum of the result over the rows: the gradient by the bias of the layer before;
    - with a `weight` `[M, I, 1]`, of a next layer with a single output: `grad` `[M, B, 1]` is the gradient by that
      output, and is multiplied by the weight first;
    - into `by_weight` `[M, I, 1]` the gradient by this weight, whose inputs are `kept`.
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
        # The product of a layer with a single output is part of the fused function.
        fuses_weight = layer and weight.shape[-1] == 1 and kept[layer] is inputs[layer] and is_fusing()
        if not fuses_weight:
            weight_gradient(inputs[layer], upstream, by_weight)
        if layer:
            total = grads[layer - 1][1]
            upstream = activation.through(upstream, weight, kept[layer], total, by_weight if fuses_weight else None)
    return upstream
