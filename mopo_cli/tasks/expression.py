"""Rules and rewards written as an expression, such as ``abs(obs[1]) > 0.2`` or ``-abs(temp - 70) - 0.1*valve**2``.

An expression is a part of Python's: numbers, ``+ - * / **``, comparisons, ``and or not``, ``A if CONDITION else B``,
the functions of `expression_parser.FUNCTIONS`, and these variables:

- ``obs[i]``, ``action[i]``, ``next_obs[i]``: an entry by its number or, where the columns of the data have names, by
  that, as in ``obs["Temp (C)"]``. A name alone is that entry of the observation, or of the action: ``temp``;
- ``step``: how many steps the episode has taken, 1 after the first.

Actions are in the units of the data.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mopo_cli.errors import InputError
from mopo_cli.tasks.expression_parser import Evaluate, Names, Parser, refuse

if TYPE_CHECKING:
    from torch import Tensor

Bounds = tuple[Any, Any]
"""The least and the greatest actions, arrays `[A]` or numbers."""
UNIT: Bounds = (-1.0, 1.0)


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its text with numbers for the names, the entries that it looks at, and its value.

    `entries` are (vector, index) as written: -1 is the last entry. `evaluate` gives float32 or bool `[...]`.
    """

    text: str
    what: str
    is_condition: bool
    entries: frozenset[tuple[str, int]]
    uses_step: bool
    evaluate: Evaluate

    def check_width(self, obs_dim: int, act_dim: int) -> None:
        """InputError unless every entry exists in observations and actions of these widths."""
        for vector, index in sorted(self.entries):
            width = act_dim if vector == "action" else obs_dim
            if not -width <= index < width:
                raise InputError(
                    f"The {self.what} {self.text!r} names {vector}[{index}], but {vector} here has {width} entries, "
                    f"{vector}[0] to {vector}[{width - 1}]."
                )


def check_syntax(text: str, what: str) -> None:
    """InputError where a text is no expression at all, whatever the names in it mean."""
    Parser(text, what, {}).tree()


def parse_condition(text: str, names: Names | None = None) -> Expression:
    """The condition that a termination rule's text stands for; InputError pointing at what is not allowed in it."""
    expression = _expression(text, "termination rule", names)
    if not expression.is_condition:
        refuse(text, expression.what, text.strip(), 1, "is a number; compare it with another")
    return expression


def parse_reward(text: str, names: Names | None = None) -> Expression:
    """The number that a reward's text stands for; InputError pointing at what is not allowed in it."""
    expression = _expression(text, "reward", names)
    if expression.is_condition:
        refuse(text, expression.what, text.strip(), 1, "is a condition; write 1.0 * (...) for 1 and 0")
    return expression


def _expression(text: str, what: str, names: Names | None) -> Expression:
    parser = Parser(text, what, names or {})
    value = parser.read()
    entries = frozenset(parser.entries)
    return Expression(parser.numbered, what, value.is_condition, entries, parser.uses_step, value.evaluate)


@dataclass(frozen=True)
class _Rule:
    """An expression as a function of a step. Actions in [-1, 1] are scaled to between `low` and `high` `[A]`."""

    expression: Expression
    low: "Tensor"
    high: "Tensor"

    @property
    def uses_step(self) -> bool:
        """Whether the number of steps must be given."""
        return self.expression.uses_step

    def _variables(
        self, observation: "Tensor", action: "Tensor", next_observation: "Tensor", step: "Tensor | None"
    ) -> "dict[str, Tensor]":
        low, high = self.low.to(action.device), self.high.to(action.device)
        variables = {"obs": observation, "next_obs": next_observation, "action": low + (action + 1) * (high - low) / 2}
        return variables if step is None else variables | {"step": step.to(observation.dtype)}


@dataclass(frozen=True)
class ExpressionReward(_Rule):
    """A number as the reward of a step."""

    def __call__(
        self, observation: "Tensor", action: "Tensor", next_observation: "Tensor", step: "Tensor | None" = None
    ) -> "Tensor":
        """The reward `[...]`."""
        return self.expression.evaluate(self._variables(observation, action, next_observation, step))


@dataclass(frozen=True)
class ExpressionRule(_Rule):
    """A condition as a termination rule. Its ``obs`` is the observation after the step, as is ``next_obs``."""

    def __call__(
        self, _observation: "Tensor", action: "Tensor", next_observation: "Tensor", step: "Tensor | None" = None
    ) -> "Tensor":
        """Terminal `[...]` of the next observation `[..., O]`: the condition holds, or a named entry is not finite.

        A model that leaves the finite numbers has no state to go on from, and NaN would satisfy any ``not``.
        """
        variables = self._variables(next_observation, action, next_observation, step)
        holds = self.expression.evaluate(variables)
        for vector, index in self.expression.entries:
            holds = holds | ~variables[vector][..., index].isfinite()
        return holds


def expression_rule(text: str, bounds: Bounds = UNIT) -> ExpressionRule:
    """The termination rule of a condition; `bounds` are those of the actions in the units of the data."""
    return ExpressionRule(parse_condition(text), *_tensors(bounds))


def expression_reward(text: str, bounds: Bounds = UNIT) -> ExpressionReward:
    """The reward that an expression gives; `bounds` as of `expression_rule`."""
    return ExpressionReward(parse_reward(text), *_tensors(bounds))


def _tensors(bounds: Bounds) -> "tuple[Tensor, Tensor]":
    import torch

    low, high = (torch.as_tensor(bound, dtype=torch.float32) for bound in bounds)
    return low, high
