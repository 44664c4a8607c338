"""The dynamics network: SiLU hidden layers and two heads, a mean and a bounded log-variance (MOPO appendix G.2).

The log-variance is bounded from above and then from below by a softplus (Chua et al. 2018, appendix A.1). Written
for the variance itself that is e^min + e^max sigmoid(raw - max), which needs one exponential.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused
from mopo_cli.engine.parallel import spread, spread_evenly
from mopo_cli.engine.traced import traced
from mopo_cli.nets import libraries
from mopo_cli.nets.layers import (
    Activation,
    add_rows,
    affine,
    affine_silu,
    affine_with_silu,
    chain_gradient,
    input_gradient,
    weight_gradient,
    whole_chain_gradient,
)
from mopo_cli.nets.libraries import Kind
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import DTYPES, Layout, Parameters, aligned, cast, chain, join, unit

MAX_LOG_VARIANCE = 0.5
MIN_LOG_VARIANCE = -10.0
_HEADS = ("_mean", "_logvar")


def gaussian_layout(inputs: int, outputs: int, hidden: int, layers: int) -> Layout:
    """Name the matrices of a network: w0 b0 …, the heads w_mean b_mean w_logvar b_logvar, and the learned bounds."""
    shapes: list[tuple[str, tuple[int, int]]] = []
    for i in range(layers):
        shapes += [(f"w{i}", (inputs if i == 0 else hidden, hidden)), (f"b{i}", (1, hidden))]
    for head in ("mean", "logvar"):
        shapes += [(f"w_{head}", (hidden, outputs)), (f"b_{head}", (1, outputs))]
    return Layout((*shapes, ("max_logvar", (1, outputs)), ("min_logvar", (1, outputs))))


def gaussians(networks: Parameters, x: Tensor, reduced: Parameters | None = None) -> tuple[Tensor, Tensor]:
    """Evaluate M networks at the same scaled inputs `[B, in]`: mean and variance, each `[M, B, out]`.

    With the parameters `reduced` to fewer bits, the products from one hidden layer to the next are made with these.
    """
    if x.is_cuda:
        return gaussian(networks, 0, x.expand(len(networks.flat), -1, -1), reduced)
    x = aligned(x)
    evaluated = spread(lambda k: gaussian(networks, k, x, reduced), len(networks.parts))
    means, variances = zip(*evaluated, strict=True)
    return torch.stack(means), torch.stack(variances)


def gaussian(networks: Parameters, u: int, x: Tensor, reduced: Parameters | None = None) -> tuple[Tensor, Tensor]:
    """Evaluate a unit of the stack: scaled inputs `[…, B, in]` -> mean and variance, each `[…, B, out]`."""
    params, hidden = networks.parts[u], (networks if reduced is None else reduced).layers[u]
    # Inputs and heads keep all their bits: a state is worth more of them than bfloat16 has.
    x = cast(affine_silu(x, *networks.layers[u][0]), hidden[0][0].dtype)
    for weight, bias in hidden[1:]:
        x = affine_silu(x, weight, bias)
    x = cast(x, params["w_mean"].dtype)
    high, low = params["max_logvar"], params["min_logvar"]
    if x.dim() == 3:
        mean, raw = (torch.bmm(x, params[f"w{head}"]) for head in _HEADS)
        return _moments(mean, raw, params["b_mean"], params["b_logvar"], high, low)
    both = (torch.cat(matrices, dim=-1) for matrices in zip(*(_head(params, head) for head in _HEADS), strict=True))
    mean, raw = affine(x, *both).chunk(2, dim=-1)
    return mean, torch.sigmoid(raw - high).mul_(high.exp()).add_(low.exp())


@fused
def _moments(
    mean: Tensor, raw: Tensor, mean_bias: Tensor, raw_bias: Tensor, high: Tensor, low: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean and variance of the heads' products, whose biases are not added yet."""
    high, low = high.expand_as(raw), low.expand_as(raw)
    return mean + mean_bias, torch.sigmoid(raw + raw_bias - high).mul_(high.exp()).add_(low.exp())


def _head(params: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return params[f"w{name}"], params[f"b{name}"]


def nll(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Gaussian negative log-likelihood of each network, without the half and the constant: `[…]`.

    mean, variance, target `[…, B, D]`; averaged over batch and dimensions (MBPO's and MOPO's training loss).
    """
    return ((mean - target).square() / variance + variance.log()).mean(dim=(-2, -1))


@dataclass(frozen=True)
class Likelihood:
    """The losses `nll` `[M]` of M networks, and their gradients by the bounds of the log-variance, `[M, 1, D]`."""

    loss: Tensor
    by_max: Tensor
    by_min: Tensor


def likelihood_gradient(networks: Parameters, x: Tensor, target: Tensor, into: Parameters) -> Likelihood:
    """The losses of M networks; the gradient of their sum goes into `into`.

    Scaled inputs x `[M, B, in]`, target `[M, B, D]`.
    """

    to_onednn = libraries.to_onednn

    def work(u: int) -> tuple[Tensor, Tensor, Tensor]:
        grads = into.parts[u]
        loss = _loss(networks.parts[u], networks.products, to_onednn, unit(x, u), unit(target, u), grads)
        return loss, grads["max_logvar"], grads["min_logvar"]

    results = spread_evenly(work, len(networks.parts))
    return Likelihood(*(join(list(column)) for column in zip(*results, strict=True)))


@traced
def _loss(
    params: dict[str, Tensor],
    products: Precision,
    _to_onednn: frozenset[Kind] | None,  # for it a trace is of the products that are in use
    x: Tensor,
    target: Tensor,
    grads: dict[str, Tensor],
) -> Tensor:
    """The loss `[…]` of a unit; its gradient by all parameters goes into `grads`."""
    inputs: list[Tensor] = [x]
    before: list[Tensor] = []
    layers, by_layers = chain(params), chain(grads)
    for layer, (weight, bias) in enumerate(layers, 1):
        dtype = DTYPES[products] if layer < len(layers) else x.dtype
        affine_out, silu_out = affine_with_silu(inputs[-1], weight, bias, dtype)
        before.append(affine_out)
        inputs.append(silu_out)
    loss, *by_heads = _heads_gradient(inputs[-1], params, target, grads)
    weights = [params[f"w{head}"] for head in _HEADS]
    for head, by_head in zip(_HEADS, by_heads, strict=True):
        weight_gradient(inputs[-1], by_head, grads[f"w{head}"])
    by_last = input_gradient(by_heads[0], weights[0])
    if x.dim() == 3:
        by_last.baddbmm_(by_heads[1], weights[1].mT)
        upstream = _silu_gradient_adding(by_last, None, before[-1], by_layers[-1][1], None)
        whole_chain_gradient(inputs[:-1], layers, upstream, _SILU, [x, *before], by_layers)
    else:
        upstream = _silu_gradient(by_last.add_(input_gradient(by_heads[1], weights[1])), before[-1])
        chain_gradient(inputs[:-1], layers, upstream, _SILU, [x, *before], by_layers)
    return loss


def _heads_gradient(
    x: Tensor, params: dict[str, Tensor], target: Tensor, grads: dict[str, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss `[…]` of heads with inputs x, and its gradients by both; those by biases and bounds go into `grads`."""
    names = *(f"b{head}" for head in _HEADS), "max_logvar", "min_logvar"
    biases, totals = [params[name] for name in names], [grads[name] for name in names]
    if x.dim() == 3:
        products = (torch.bmm(x, params[f"w{head}"]) for head in _HEADS)
        losses, by_mean, by_raw = _whole_heads(*products, target, *biases, *totals)
        return losses.mean(dim=-1), by_mean, by_raw
    mean, raw = (affine(x, *_head(params, head)) for head in _HEADS)
    losses, by_mean, by_raw = _likelihood(mean, raw, target, *biases[2:], *totals[2:])
    for by_head, by_bias in zip((by_mean, by_raw), totals[:2], strict=True):
        add_rows(by_head, by_bias)
    return losses.mean(dim=(-2, -1)), by_mean, by_raw


@fused
def _whole_heads(mean: Tensor, raw: Tensor, target: Tensor, *biases_and_totals: Tensor) -> tuple[Tensor, ...]:
    """The mean of the losses over the rows `[M, D]`, and the gradients by the heads, whose biases are not added yet."""
    by_mean_bias, by_raw_bias = biases_and_totals[4:6]
    mean, raw = mean + biases_and_totals[0], raw + biases_and_totals[1]
    # For every row: what is computed for all of them together would be a kernel of its own.
    bounds = (bound.expand_as(raw) for bound in biases_and_totals[2:4])
    losses, by_mean, by_raw = _likelihood(mean, raw, target, *bounds, *biases_and_totals[6:])
    add_rows(by_mean, by_mean_bias)
    add_rows(by_raw, by_raw_bias)
    return losses.mean(dim=-2), by_mean, by_raw


def _likelihood(
    mean: Tensor, raw: Tensor, target: Tensor, high: Tensor, low: Tensor, by_high: Tensor, by_low: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The losses `[…, B, D]`, and the gradients of their mean by mean and raw log-variance."""
    # loss = mean of (mean - target)^2 / v + log v, with v = e^high gate + e^low and gate = sigmoid(raw - high):
    # dloss/dv = (1 - (mean - target)^2 / v) / (n v), dv/draw = e^high gate (1 - gate), dv/dhigh = e^high gate^2
    gate = torch.sigmoid(raw - high)
    above = gate * high.exp()
    variance = above + low.exp()
    error, inverse_variance = mean - target, variance.reciprocal()
    scaled = error.square().mul_(inverse_variance)
    losses = scaled + variance.log()
    numbers = target.shape[-2] * target.shape[-1]
    by_variance = (1 - scaled).mul_(inverse_variance).div_(numbers)
    add_rows(by_variance, by_low)
    by_low.mul_(low[..., :1, :].exp())
    above.mul_(by_variance)
    add_rows(above * gate, by_high)
    return losses, error.mul_(inverse_variance).mul_(2 / numbers), above.mul_(1 - gate)


def _silu_gradient(grad: Tensor, before: Tensor) -> Tensor:
    grad = cast(grad, before.dtype)
    result: Tensor = torch.ops.aten.silu_backward.grad_input(grad, before, grad_input=grad)
    return result


@fused
def _silu_gradient_adding(
    grad: Tensor, weight: Tensor | None, before: Tensor, total: Tensor | None, _by_weight: Tensor | None
) -> Tensor:
    grad = cast(grad if weight is None else grad * weight.mT, before.dtype)
    by_before: Tensor = torch.ops.aten.silu_backward(grad, before)
    if total is not None:
        add_rows(by_before, total)
    return by_before


_SILU = Activation(_silu_gradient, _silu_gradient_adding)
