"""Spectral normalisation: weights divided by their largest singular value (Miyato et al. 2018; MOPO v1, appendix D.2).

A normalised matrix is one network's `[in, out]`, or those of several networks one below the other, `[K * in, out]`.
The number of vectors given with a stack of M networks decides which: with G of them, every M / G consecutive
networks make one matrix and share its sigma.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.nets.stacked import matmul


def unit_vectors(widths: dict[str, int], generators: list[torch.Generator]) -> dict[str, Tensor]:
    """Draw where the power iterations start: a unit vector `[G, 1, width]` per name, vector g from `generators[g]`."""
    vectors = {}
    for name, width in widths.items():
        drawn = torch.stack([torch.randn(1, width, generator=generator) for generator in generators])
        vectors[name] = drawn / _norm(drawn)
    return vectors


def power_iteration(weight: Tensor, vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take one step from `vector` `[G, 1, out]` towards the largest singular value of weight `[M, in, out]`.

    Returns the left `[M, 1, in]` and the right `[G, 1, out]` singular vectors' estimates and sigma `[G, 1, 1]`, which
    is left · weight · right and never above the true one (Miyato et al. 2018, algorithm 1). The products are exact
    as those of `matmul`: on CPU whatever else is in the stack.
    """
    networks = len(weight) // len(vector)
    left = matmul(_spread(vector, networks), weight.transpose(1, 2))
    left = left / _spread(_total(_square(left), networks).sqrt(), networks)
    right = _total(matmul(left, weight), networks)
    sigma = _norm(right)
    return left, right / sigma, sigma


def largest_singular_values(weight: Tensor, matrices: int) -> Tensor:
    """The exact sigma of every matrix: weight `[M, in, out]` -> `[matrices, 1, 1]`; NaN where the matrix is not finite.

    One by one on the CPU in float64, as a batched decomposition may round by the place in the batch.
    """
    sigmas = []
    for matrix in weight.detach().unflatten(0, (matrices, -1)):
        rows = matrix.flatten(0, 1).double().cpu()
        sigmas.append(torch.linalg.svdvals(rows)[0] if bool(rows.isfinite().all()) else rows.new_tensor(torch.nan))
    return torch.stack(sigmas).to(weight)[:, None, None]


@dataclass(frozen=True)
class Divided:
    """Parameters of which the weights that have vectors are divided by sigma, and what their gradient needs.

    `vectors` are the right singular vectors, one power iteration on; `lefts` and `sigmas` belong to them by name.
    """

    params: dict[str, Tensor]
    vectors: dict[str, Tensor]
    lefts: dict[str, Tensor]
    sigmas: dict[str, Tensor]


def normalise(params: dict[str, Tensor], vectors: dict[str, Tensor]) -> Divided:
    """Divide the weights that have vectors by sigma's estimate, one power iteration on."""
    divided = Divided(dict(params), {}, {}, {})
    for name, vector in vectors.items():
        weight = params[name]
        left, divided.vectors[name], sigma = power_iteration(weight, vector)
        divided.lefts[name], divided.sigmas[name] = left, _spread(sigma, len(weight) // len(sigma))
        divided.params[name] = weight / divided.sigmas[name]
    return divided


def normalised_gradient(divided: Divided, grads: dict[str, Tensor]) -> None:
    """Turn gradients by divided weights into those by the weights, in place.

    The gradient flows through sigma = left · W · right with the two vectors held fixed (Miyato et al. 2018, §2.3):
    d(W / sigma) = (dW - W / sigma * left·dW·right) / sigma, so the share of a gradient along W goes to left and right.
    """
    for name, right in divided.vectors.items():
        grad, networks = grads[name], len(grads[name]) // len(right)
        along = _spread(_total(_sum(grad * divided.params[name]), networks), networks)
        outer = (divided.lefts[name] * along).transpose(1, 2) * _spread(right, networks)
        grad.sub_(outer).div_(divided.sigmas[name])


def normalise_exactly(params: dict[str, Tensor], vectors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Divide the weights that have vectors by their exact sigma; of the vectors only the number matters."""
    divided = dict(params)
    for name, vector in vectors.items():
        sigma = largest_singular_values(params[name], len(vector))
        divided[name] = params[name] / _spread(sigma, len(params[name]) // len(vector))
    return divided


# Sums over a member are products, not `sum`: the order of a reduction may change with the size of the stack.


def _sum(x: Tensor) -> Tensor:
    rows, columns = (x.new_ones(1, size, 1).expand(len(x), -1, -1) for size in x.shape[1:])
    return matmul(matmul(rows.transpose(1, 2), x), columns)


def _square(x: Tensor) -> Tensor:
    return matmul(x, x.transpose(1, 2))


def _norm(x: Tensor) -> Tensor:
    return _square(x).sqrt()


def _spread(x: Tensor, networks: int) -> Tensor:
    return x if networks == 1 else x.repeat_interleave(networks, dim=0)


def _total(x: Tensor, networks: int) -> Tensor:
    # One by one, in an order that does not depend on the rest of the stack.
    parts = x.unflatten(0, (-1, networks))
    total: Tensor = parts[:, 0]
    for k in range(1, networks):
        total = total + parts[:, k]
    return total
