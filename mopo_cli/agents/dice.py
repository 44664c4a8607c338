"""GradientDICE: how dense a policy's visits are in a model, relative to the data's (Zhang, Liu & Whiteson 2020).

The ratio tau(s, a) of both densities is the solution of

    min over tau, max over f and nu of   (1 - gamma) E[f(s0, a0)] + gamma E[tau(s, a) f(s', a')]
        - E[tau(s, a) f(s, a) + f(s, a)^2 / 2] + norm (E[nu tau(s, a) - nu] - nu^2 / 2)

where (s, a) are rows of the data, s' is where the model leads from there, s0 are the states that rollouts start
from, and a', a0 are the policy's actions. The term of nu, weighted by `norm`, asks that tau be 1 on average.
A network for tau has a linear output, so it may also be below 0, which no ratio is. And as tau moves against f and nu
at once, with Adam's momentum, it circles around the solution rather than reaching it: the average over many steps is
much closer than the value at any of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.agents.algorithm import Learned
from mopo_cli.engine.streams import stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.init import truncated_normal, zeros
from mopo_cli.nets.network import Network, descend_side_by_side, start_network
from mopo_cli.nets.perceptron import evaluate, predict
from mopo_cli.nets.stacked import Layout, Parameters, mlp_layout

_HIDDEN = (64, 64)  # as in DROP's code


@dataclass
class Dice(Learned):
    """M pairs of networks, tau and f, and multipliers nu `[M, 1]`, changed in place."""

    tau: Network
    f: Network
    nu: Tensor
    nu_adam: Adam


@dataclass(frozen=True)
class Objective:
    """The objectives of M pairs, `[M]`, and their gradients by tau `[M, B]`, f `[M, 3, B]` and nu `[M, 1]`."""

    value: Tensor
    by_tau: Tensor
    by_f: Tensor
    by_nu: Tensor


def ratio_sizes(inputs: int) -> tuple[int, ...]:
    """The widths of the layers of a network for tau or f."""
    return (inputs, *_HIDDEN, 1)


def ratio_layout(inputs: int) -> Layout:
    """The matrices of such a network."""
    return mlp_layout(ratio_sizes(inputs))


def start_dice(inputs: int, networks: int, seeds: list[int], device: torch.device | str) -> Dice:
    """Build fresh pairs, one per seed and network of the dynamics, from the streams of the seed; nu is 0."""
    tau, f = (
        start_network(
            ratio_sizes(inputs),
            [stream(seed, f"{name}/weights", k) for seed in seeds for k in range(networks)],
            device,
            weight=truncated_normal,
            bias=zeros,
        )
        for name in ("tau", "f")
    )
    nu = torch.zeros(len(tau.flat), 1, device=device)
    return Dice(tau, f, nu, Adam.like(nu))


def saddle(tau: Tensor, f: Tensor, nu: Tensor, gamma: float, norm: float) -> Objective:
    """The objective and its gradients: tau(s, a) `[M, B]`, f at (s, a), (s0, a0), (s', a') `[M, 3, B]`, nu `[M, 1]`."""
    f_sa, f_start, f_next = f.unbind(dim=1)
    rows = tau.shape[1]
    by_tau = gamma * f_next - f_sa + norm * nu
    value = ((1 - gamma) * f_start + tau * by_tau - 0.5 * f_sa * f_sa).mean(dim=1) - (norm * (nu + 0.5 * nu * nu))[:, 0]
    by_f = torch.stack([-(tau + f_sa), torch.full_like(f_sa, 1 - gamma), gamma * tau], dim=1)
    by_nu = norm * (tau.mean(dim=1, keepdim=True) - 1 - nu)
    return Objective(value, by_tau / rows, by_f / rows, by_nu)


def step_dice(
    dice: Dice,
    inputs_sa: Tensor,
    inputs_start: Tensor,
    inputs_next: Tensor,
    gamma: float,
    norm: float,
    learning_rate: float,
) -> Tensor:
    """One gradient step of every tau down, and of every f and nu up, at once and in place; the objectives `[M]`.

    Scaled inputs at (s, a) and (s0, a0), `[S, B, in]`, which M / S consecutive pairs have in common, and at (s', a'),
    `[M, B, in]`.
    """
    alike = len(inputs_next) // len(inputs_sa)
    shared = (inputs.repeat_interleave(alike, dim=0) for inputs in (inputs_sa, inputs_start))
    inputs = torch.cat([*shared, inputs_next], dim=1)
    tau, f = evaluate((dice.tau, (inputs_sa,)), (dice.f, (inputs,)))
    objective = saddle(tau.out[..., 0], f.out.view(len(inputs_next), 3, -1), dice.nu, gamma, norm)
    # min over tau, max over f and nu of the objective above  (GradientDICE)
    down, up = objective.by_tau[..., None], -objective.by_f.view(f.out.shape)
    descend_side_by_side((dice.tau, tau, down, learning_rate), (dice.f, f, up, learning_rate))
    torch.neg(objective.by_nu, out=dice.nu_adam.grad)
    dice.nu_adam.update(dice.nu, learning_rate)
    return objective.value


@dataclass(frozen=True)
class Ratio:
    """The density ratios of one policy: networks for tau `[K, size]`, each for one network of the dynamics.

    `elite_index` `[K]` are the positions of these; `input_mean`, `input_std` `[obs_dim + act_dim]` scale the inputs.
    """

    flat: Tensor
    layout: Layout
    input_mean: Tensor
    input_std: Tensor
    elite_index: Tensor

    def __call__(self, observation: Tensor, action: Tensor, network: Tensor) -> Tensor:
        """The ratios `[B]` at observations and actions `[B, ·]`, each by the network that `network` `[B]` names."""
        x = (torch.cat([observation, action], dim=-1) - self.input_mean) / self.input_std
        ratios = x.new_empty(len(x))
        for k, elite in enumerate(self.elite_index):
            rows = (network == elite).nonzero()[:, 0]
            ratios[rows] = predict(Parameters(self.layout, self.flat[k : k + 1]), x[rows])[:, 0]
        return ratios
