"""What the ensemble is unsure of: a function per uncertainty u(s, a). The reward learned from is r - lambda u."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ORACLE = "oracle"
"""The uncertainty that is none: the model's error, from a simulator (see `tasks.oracle`)."""
RATIO = "ratio"
"""The density ratio of the model's rows to the data's, which DROP learns (see `agents.algorithms.drop`)."""


@dataclass(frozen=True)
class PenaltyForm:
    """In what form uncertainties are measured; the default is that of MOPO's released code.

    `elites_only`: over the elites instead of all networks. `scale` `[obs_dim + 1]`: what each predicted
    dimension is divided by, None for raw units. `reward`: whether max-var and avg-var count its dimension.
    """

    elites_only: bool = False
    scale: Tensor | None = None
    reward: bool = True


RELEASED_FORM = PenaltyForm()


def max_var(mean: Tensor, std: Tensor) -> Tensor:
    """max_i ||sigma_i||_2 over the networks (MOPO section 4.3, as released).

    mean, std `[K, B, obs_dim + 1]` -> `[B]`. The paper writes the Frobenius norm of the covariance; its
    code, with which lambda was tuned, takes the norm of the standard deviations.
    """
    norms: Tensor = torch.linalg.vector_norm(std, dim=-1)
    return norms.amax(dim=0)


def avg_var(mean: Tensor, std: Tensor) -> Tensor:
    """mean_i ||sigma_i||_2 (MOPO appendix D, "avg. var"): `[K, B, obs_dim + 1]` -> `[B]`."""
    norms: Tensor = torch.linalg.vector_norm(std, dim=-1)
    return norms.mean(dim=0)


def ens(mean: Tensor, std: Tensor) -> Tensor:
    """max_i ||mu_i - mean_j mu_j||_2 over the next-state dimensions (MOPO appendix D, "ens. pen."): -> `[B]`."""
    state = mean[..., :-1]
    distances: Tensor = torch.linalg.vector_norm(state - state.mean(dim=0, keepdim=True), dim=-1)
    return distances.amax(dim=0)


def discrepancy(mean: Tensor, std: Tensor) -> Tensor:
    """max_ij ||mu_i - mu_j||_2 over the next-state dimensions (MOReL equation 2): -> `[B]`."""
    state = mean[..., :-1]
    widest = state.new_zeros(state.shape[1])
    for i in range(1, len(state)):
        distances: Tensor = torch.linalg.vector_norm(state[:i] - state[i], dim=-1)
        widest = torch.maximum(widest, distances.amax(dim=0))
    return widest


UNCERTAINTIES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "max-var": max_var,
    "avg-var": avg_var,
    "ens": ens,
    "discrepancy": discrepancy,
}
PENALTIES = ("max-var", "avg-var", "ens")
"""Those that a reward can be lowered by."""


def uncertainties(
    mean: Tensor,
    std: Tensor,
    form: PenaltyForm = RELEASED_FORM,
    elites: Sequence[int] | None = None,
    names: Sequence[str] = PENALTIES,
) -> Tensor:
    """The uncertainties of these names, `[B, len(names)]`.

    mean, std `[K, B, obs_dim + 1]` are the predictions of all networks, `elites` the chosen ones among them,
    looked at where the form says so.
    """
    if form.elites_only and elites is not None:
        mean, std = mean[list(elites)], std[list(elites)]
    if form.scale is not None:
        mean, std = mean / form.scale, std / form.scale
    if not form.reward:
        std = std[..., :-1]
    return torch.stack([UNCERTAINTIES[name](mean, std) for name in names], dim=-1)


def penalty_weights(penalty: str, lam: float, names: Sequence[str] = PENALTIES) -> list[float]:
    """The weight of each uncertainty in the penalty: lambda at the one named, zero elsewhere; "none" is all zero."""
    return [lam if name == penalty else 0.0 for name in names]
