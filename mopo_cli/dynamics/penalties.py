"""What the ensemble is unsure of: a function per uncertainty u(s, a). The reward learned from is r - lambda u.

A new penalty is one function here, marked with `@penalty`: the command line, the rollout files and the training follow.
The settings read the names from here, so that this module must not import torch when it is loaded.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Uncertainty = Callable[["Tensor", "Tensor"], "Tensor"]
"""Means and standard deviations that the networks predict, `[K, B, frame + 1]` -> `[B]`."""

UNCERTAINTIES: dict[str, Uncertainty] = {}
"""All that a rollout file holds, by name, in the order of its columns."""
PENALTIES: list[str] = []
"""The names of those that a reward can be lowered by."""
ORACLE = "oracle"
"""The uncertainty that is none: the model's error, from a simulator (see `tasks.oracle`)."""
RATIO = "ratio"
"""The density ratio of the model's rows to the data's, which DROP learns (see `agents.algorithms.drop`)."""


@dataclass(frozen=True)
class PenaltyForm:
    """In what form uncertainties are measured; the default is that of MOPO's released code.

    `elites_only`: over the elites instead of all networks. `scale` `[frame + 1]`: what each predicted
    dimension is divided by, None for raw units. `reward`: whether max-var and avg-var count its dimension.
    """

    elites_only: bool = False
    scale: "Tensor | None" = None
    reward: bool = True


RELEASED_FORM = PenaltyForm()


def uncertainty(function: Uncertainty) -> Uncertainty:
    """Enter a function into `UNCERTAINTIES`, max_var by the name "max-var"."""
    UNCERTAINTIES[_name(function)] = function
    return function


def penalty(function: Uncertainty) -> Uncertainty:
    """Enter a function into `UNCERTAINTIES` and `PENALTIES`."""
    PENALTIES.append(_name(function))
    return uncertainty(function)


def _name(function: Uncertainty) -> str:
    return function.__name__.replace("_", "-")


def _norm(x: "Tensor") -> "Tensor":
    """||x||_2 over the last dimension."""
    norm: Tensor = x.norm(dim=-1)
    return norm


@penalty
def max_var(mean: "Tensor", std: "Tensor") -> "Tensor":
    """max_i ||sigma_i||_2 over the networks (MOPO section 4.3, as released).

    mean, std `[K, B, frame + 1]` -> `[B]`. The paper writes the Frobenius norm of the covariance; its
    code, with which lambda was tuned, takes the norm of the standard deviations.
    """
    return _norm(std).amax(dim=0)


@penalty
def avg_var(mean: "Tensor", std: "Tensor") -> "Tensor":
    """mean_i ||sigma_i||_2 (MOPO appendix D, "avg. var"): `[K, B, frame + 1]` -> `[B]`."""
    return _norm(std).mean(dim=0)


@penalty
def ens(mean: "Tensor", std: "Tensor") -> "Tensor":
    """max_i ||mu_i - mean_j mu_j||_2 over the next-state dimensions (MOPO appendix D, "ens. pen."): -> `[B]`."""
    state = mean[..., :-1]
    return _norm(state - state.mean(dim=0, keepdim=True)).amax(dim=0)


@uncertainty
def discrepancy(mean: "Tensor", std: "Tensor") -> "Tensor":
    """max_ij ||mu_i - mu_j||_2 over the next-state dimensions (MOReL equation 2): -> `[B]`."""
    state = mean[..., :-1]
    widest = state.new_zeros(state.shape[1])
    for i in range(1, len(state)):
        widest = widest.maximum(_norm(state[:i] - state[i]).amax(dim=0))
    return widest


def uncertainties(
    mean: "Tensor",
    std: "Tensor",
    form: PenaltyForm = RELEASED_FORM,
    elites: Sequence[int] | None = None,
    names: Sequence[str] = ("max-var",),
) -> "Tensor":
    """The uncertainties of these names, `[B, len(names)]`.

    mean, std `[K, B, frame + 1]` are the predictions of all networks, `elites` the chosen ones among them,
    looked at where the form says so.
    """
    if form.elites_only and elites is not None:
        mean, std = mean[list(elites)], std[list(elites)]
    if form.scale is not None:
        mean, std = mean / form.scale, std / form.scale
    if not form.reward:
        std = std[..., :-1]
    columns = mean.new_empty(mean.shape[1], len(names))
    for u, name in enumerate(names):
        columns[:, u] = UNCERTAINTIES[name](mean, std)
    return columns


def penalty_weights(penalty: str, lam: float, names: Sequence[str]) -> list[float]:
    """The weight of each uncertainty in the penalty: lambda at the one named, zero elsewhere; "none" is all zero."""
    return [lam if name == penalty else 0.0 for name in names]
