"""The dynamics network: SiLU hidden layers and two heads, a mean and a bounded log-variance (MOPO appendix G.2)."""

import torch
from torch import Tensor

from mopo_cli.nets.stacked import Layout, linear, silu_, softplus

MAX_LOG_VARIANCE = 0.5
MIN_LOG_VARIANCE = -10.0


def gaussian_layout(inputs: int, outputs: int, hidden: int, layers: int) -> Layout:
    """Name the matrices of a network: w0 b0 …, the heads w_mean b_mean w_logvar b_logvar, and the learned bounds."""
    shapes: list[tuple[str, tuple[int, int]]] = []
    for i in range(layers):
        shapes += [(f"w{i}", (inputs if i == 0 else hidden, hidden)), (f"b{i}", (1, hidden))]
    for head in ("mean", "logvar"):
        shapes += [(f"w_{head}", (hidden, outputs)), (f"b_{head}", (1, outputs))]
    return Layout((*shapes, ("max_logvar", (1, outputs)), ("min_logvar", (1, outputs))))


def gaussian(params: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate the stack: scaled inputs `[M, B, in]` -> mean and log-variance, each `[M, B, out]`.

    The log-variance is bounded from above and then from below by a softplus (Chua et al. 2018, appendix A.1).
    """
    layer = 0
    while f"w{layer}" in params:
        x = silu_(linear(x, params[f"w{layer}"], params[f"b{layer}"]))
        layer += 1
    mean = linear(x, params["w_mean"], params["b_mean"])
    raw = linear(x, params["w_logvar"], params["b_logvar"])
    upper = _rows(params["max_logvar"], raw)
    lower = _rows(params["min_logvar"], raw)
    logvar = upper - softplus(upper - raw)
    return mean, lower + softplus(logvar - lower)


def _rows(bound: Tensor, like: Tensor) -> Tensor:
    # A product with ones, so that the bound's gradient is summed over the batch in an order that knows no neighbours.
    ones = like.new_ones(like.shape[0], like.shape[1], 1)
    return linear(ones, bound, torch.zeros_like(bound))


def nll(mean: Tensor, logvar: Tensor, target: Tensor) -> Tensor:
    """Gaussian negative log-likelihood of each network, without the half and the constant: `[M]`.

    mean, logvar, target `[M, B, D]`; averaged over batch and dimensions (MBPO's and MOPO's training loss).
    """
    return ((mean - target).square() * torch.exp(-logvar) + logvar).mean(dim=(1, 2))
