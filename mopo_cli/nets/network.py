"""Stacks of perceptrons in training: parameters, gradient, Adam and a target in one, and the step along a loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from mopo_cli.engine.parallel import spread_evenly
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.init import Draw, initial, uniform
from mopo_cli.nets.perceptron import Evaluated, Inputs, collect, differentiate, forward, unit_gradient_by_inputs
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.stacked import Layers, Parameters, join, mlp_layout, units

Result = TypeVar("Result")


@dataclass(frozen=True)
class Network(Parameters):
    """M networks in training `[M, size]`, changed in place: `adam` also holds their gradient.

    `target_or_none` are their target networks, where they have some, which follow them by Polyak averaging.
    """

    adam: Adam = field(kw_only=True)
    target_or_none: Parameters | None = field(default=None, kw_only=True)

    @cached_property
    def gradient(self) -> Parameters:
        """The gradient of the latest loss by the parameters."""
        return Parameters(self.layout, self.adam.grad)

    @property
    def target(self) -> Parameters:
        """The target of networks that have one."""
        assert self.target_or_none is not None
        return self.target_or_none

    def finite(self, members: int) -> Tensor:
        """Whether all parameters of a member, the target's aside, are finite, bool `[members]`."""
        return torch.isfinite(self.flat).view(members, -1).all(dim=1)


def start_network(
    sizes: Sequence[int],
    generators: list[torch.Generator],
    device: torch.device | str,
    products: Precision = "fp32",
    *,
    target: bool = False,
    weight: Draw = uniform,
    bias: Draw = uniform,
) -> Network:
    """Draw fresh networks with layers this wide, the k-th from `generators[k]`; a target begins as their copy."""
    layout = mlp_layout(tuple(sizes))
    flat = initial(layout, generators, weight, bias).to(device)
    target_or_none = Parameters(layout, flat.clone(), products) if target else None
    return Network(layout, flat, products, adam=Adam.like(flat), target_or_none=target_or_none)


def descend(
    network: Network,
    evaluated: Evaluated,
    by_output: Tensor,
    learning_rate: float,
    tau: float | None = None,
    adjust: Callable[[Layers], object] = lambda gradient: None,
) -> None:
    """Take one step of Adam, in place, down a loss whose gradient by `evaluated.out` `[M, B, out]` is `by_output`.

    With `tau` the target follows, target += tau (network - target). `adjust` may change the gradient's layers of each
    unit before the step.
    """

    def gradient(u: int) -> None:
        differentiate(evaluated, u, by_output, into=network.gradient)
        adjust(network.gradient.layers[u])

    _step(network, learning_rate, tau, gradient, lambda u: None)


def descend_and_evaluate(
    network: Network,
    evaluated: Evaluated,
    by_output: Tensor,
    learning_rate: float,
    inputs: Inputs,
    tau: float | None = None,
) -> Evaluated:
    """As `descend`; returns the improved networks evaluated at other inputs, `[M, B, ·]`."""

    def gradient(u: int) -> None:
        differentiate(evaluated, u, by_output, into=network.gradient)

    return collect(network, _step(network, learning_rate, tau, gradient, lambda u: forward(network, u, inputs)))


def step_and_evaluate(network: Network, learning_rate: float, inputs: Inputs, tau: float | None = None) -> Evaluated:
    """As `descend_and_evaluate`, along `network.gradient` as it is."""
    return collect(network, _step(network, learning_rate, tau, lambda u: None, lambda u: forward(network, u, inputs)))


def _step(
    network: Network,
    learning_rate: float,
    tau: float | None,
    gradient: Callable[[int], object],
    after: Callable[[int], Result],
) -> list[Result]:
    """All work on a unit in one piece: what is computed of a network is then still in the cache."""

    def work(u: int) -> Result:
        gradient(u)
        target = None if tau is None else network.target.flat
        network.adam.step(u, network.flat, learning_rate, target=target, tau=tau or 0.0)
        return after(u)

    network.adam.steps += 1
    return spread_evenly(work, units(network.flat))


def descend_with_input_gradient(
    network: Network, evaluated: Evaluated, by_output: Tensor, learning_rate: float, columns: slice
) -> Tensor:
    """As `descend`; returns the loss's gradient by these columns of the inputs, before the step."""

    def work(u: int) -> Tensor:
        by_first = differentiate(evaluated, u, by_output, into=network.gradient)
        by_inputs = unit_gradient_by_inputs(evaluated, u, by_first, columns)
        network.adam.step(u, network.flat, learning_rate)
        return by_inputs

    network.adam.steps += 1
    return join(spread_evenly(work, units(network.flat)))


def descend_side_by_side(*steps: tuple[Network, Evaluated, Tensor, float]) -> None:
    """As `descend` with each of these arguments; the networks differ."""
    jobs = [(u, *arguments) for arguments in steps for u in range(units(arguments[0].flat))]

    def work(job: int) -> None:
        u, network, evaluated, by_output, learning_rate = jobs[job]
        differentiate(evaluated, u, by_output, into=network.gradient)
        network.adam.step(u, network.flat, learning_rate)

    for network, *_ in steps:
        network.adam.steps += 1
    spread_evenly(work, len(jobs))
