"""Termination rules and rewards by an expression (see `tasks.expression`), as functions of a step."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mopo_cli.tasks.expression import Expression, parse_condition, parse_reward

Bounds = tuple[Any, Any]
"""The least and the greatest actions, arrays `[A]` or numbers."""
UNIT: Bounds = (-1.0, 1.0)


@dataclass(frozen=True)
class _Rule:
    """An expression as a function of a step. Actions in [-1, 1] are scaled to between `low` and `high` `[A]`."""

    expression: Expression
    low: Tensor
    high: Tensor

    @property
    def uses_step(self) -> bool:
        """Whether the number of steps must be given."""
        return self.expression.uses_step

    def _variables(
        self, observation: Tensor, action: Tensor, next_observation: Tensor, step: Tensor | None
    ) -> dict[str, Tensor]:
        low, high = self.low.to(action.device), self.high.to(action.device)
        variables = {"obs": observation, "next_obs": next_observation, "action": low + (action + 1) * (high - low) / 2}
        return variables if step is None else variables | {"step": step.to(observation.dtype)}


@dataclass(frozen=True)
class ExpressionReward(_Rule):
    """A number as the reward of a step."""

    def __call__(
        self, observation: Tensor, action: Tensor, next_observation: Tensor, step: Tensor | None = None
    ) -> Tensor:
        """The reward `[...]`."""
        return self.expression.evaluate(self._variables(observation, action, next_observation, step))


@dataclass(frozen=True)
class ExpressionRule(_Rule):
    """A condition as a termination rule. Its ``obs`` is the observation after the step, as is ``next_obs``."""

    def __call__(
        self, _observation: Tensor, action: Tensor, next_observation: Tensor, step: Tensor | None = None
    ) -> Tensor:
        """Terminal `[...]` of the next observation `[..., O]`: the condition holds, or a named entry is not finite.

        A model that leaves the finite numbers has no state to go on from, and NaN would satisfy any ``not``.
        """
        variables = self._variables(next_observation, action, next_observation, step)
        holds = self.expression.evaluate(variables)
        for vector, index in self.expression.entries:
            holds = holds | ~torch.isfinite(variables[vector][..., index])
        return holds


def expression_rule(text: str, bounds: Bounds = UNIT) -> ExpressionRule:
    """The termination rule of a condition; `bounds` are those of the actions in the units of the data."""
    return ExpressionRule(parse_condition(text), *_tensors(bounds))


def expression_reward(text: str, bounds: Bounds = UNIT) -> ExpressionReward:
    """The reward that an expression gives; `bounds` as of `expression_rule`."""
    return ExpressionReward(parse_reward(text), *_tensors(bounds))


def _tensors(bounds: Bounds) -> tuple[Tensor, Tensor]:
    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in bounds)
    return low, high
