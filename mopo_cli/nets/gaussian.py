"""The dynamics network: SiLU hidden layers and two heads, a mean and a bounded log-variance (MOPO appendix G.2).

The log-variance is bounded from above and then from below by a softplus (Chua et al. 2018, appendix A.1). Written
for the variance itself that is e^min + e^max sigmoid(raw - max), which needs one exponential.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.parallel import spread, spread_evenly
from mopo_cli.nets.stacked import (
    DTYPES,
    Layout,
    Parameters,
    affine,
    affine_silu,
    aligned,
    cast,
    chain_gradient,
    input_gradient,
    join,
    parameter_gradient,
    unit,
)

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
    both = (torch.cat(matrices, dim=-1) for matrices in zip(*(_head(params, head) for head in _HEADS), strict=True))
    mean, raw = affine(x, *both).chunk(2, dim=-1)
    high, low = params["max_logvar"], params["min_logvar"]
    return mean, torch.sigmoid(raw - high).mul_(high.exp()).add_(low.exp())


def _head(params: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return params[f"w{name}"], params[f"b{name}"]


def nll(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Gaussian negative log-likelihood of each network, without the half and the constant: `[…]`.

    mean, variance, target `[…, B, D]`; averaged over batch and dimensions (MBPO's and MOPO's training loss).
    """
    return ((mean - target).square() / variance + variance.log()).mean(dim=(-2, -1))


@dataclass(frozen=True)
class Likelihood:
    """The losses `nll` `[M]` of M networks, and their slopes by the bounds of the log-variance, `[M, 1, D]`."""

    loss: Tensor
    by_max: Tensor
    by_min: Tensor


def likelihood_gradient(networks: Parameters, x: Tensor, target: Tensor, into: Parameters) -> Likelihood:
    """The losses of M networks; the gradient of their sum goes into `into`.

    Scaled inputs x `[M, B, in]`, target `[M, B, D]`.
    """
    results = spread_evenly(lambda u: _loss(networks, u, unit(x, u), unit(target, u), into), len(networks.parts))
    return Likelihood(*(join(list(column)) for column in zip(*results, strict=True)))


def _loss(networks: Parameters, u: int, x: Tensor, target: Tensor, into: Parameters) -> tuple[Tensor, Tensor, Tensor]:
    """The loss `[…]` of a unit, and its slopes by the bounds; they and all others go into `into`."""
    params, grads = networks.parts[u], into.parts[u]
    inputs: list[Tensor] = [x]
    before: list[Tensor] = []
    layers = networks.layers[u]
    for layer, (weight, bias) in enumerate(layers, 1):
        before.append(affine(inputs[-1], weight, bias))
        dtype = DTYPES[networks.products] if layer < len(layers) else x.dtype
        inputs.append(cast(torch.nn.functional.silu(before[-1]), dtype))
    mean, raw = (affine(inputs[-1], *_head(params, head)) for head in _HEADS)
    high, low = params["max_logvar"], params["min_logvar"]
    gate = torch.sigmoid(raw - high)
    above = gate * high.exp()
    variance = above + low.exp()
    error, precision = mean - target, variance.reciprocal()
    scaled = error.square().mul_(precision)
    loss = (scaled + variance.log()).mean(dim=(-2, -1))
    numbers = target.shape[-2] * target.shape[-1]
    by_variance = (1 - scaled).mul_(precision).div_(numbers)
    torch.sum(by_variance, dim=-2, keepdim=True, out=grads["min_logvar"]).mul_(low.exp())
    above.mul_(by_variance)
    torch.sum(above * gate, dim=-2, keepdim=True, out=grads["max_logvar"])
    by_heads = error.mul_(precision).mul_(2 / numbers), above.mul_(1 - gate)
    slopes = []
    for head, slope in zip(_HEADS, by_heads, strict=True):
        parameter_gradient(inputs[-1], slope, *_head(grads, head))
        slopes.append(input_gradient(slope, params[f"w{head}"]))
    upstream = _silu_gradient(slopes[0].add_(slopes[1]), before[-1])
    chain_gradient(
        inputs[:-1],
        layers,
        upstream,
        lambda layer, slope: _silu_gradient(slope, before[layer - 1]),
        into.layers[u],
    )
    return loss, grads["max_logvar"], grads["min_logvar"]


def _silu_gradient(grad: Tensor, before: Tensor) -> Tensor:
    grad = cast(grad, before.dtype)
    result: Tensor = torch.ops.aten.silu_backward.grad_input(grad, before, grad_input=grad)
    return result
