"""When an episode ends, as a function of the (predicted) next state.

The bounds are those of the Gymnasium MuJoCo environments, v4 and v5 alike, for observations without the
root's horizontal position. Where the simulator would never leave a plausible range but a learned model may,
there is a guard besides, which is no part of the task: see `guard_rule`.
"""

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from mopo_cli.errors import InputError
from mopo_cli.tasks.expression import UNIT, Bounds, expression_rule, parse_condition

if TYPE_CHECKING:
    from torch import Tensor

    from mopo_cli.dynamics.branched_rollouts import TerminationRule

# No body of these tasks reaches such a position (m, rad) or velocity (per s) unless the model diverges.
_PLAUSIBLE = 100.0


def never(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """No state ends an episode; it only runs into its time limit."""
    import torch

    return torch.zeros(next_observation.shape[:-1], dtype=torch.bool, device=next_observation.device)


def hopper(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """Height <= 0.7, |pitch| >= 0.2, any other entry's magnitude >= 100, or a number that is not finite.

    MOPO's released code tests ``abs(obs < 100)``, so that -500 passes for healthy; here, as in the
    simulator, it is ``abs(obs) < 100``.
    """
    z, pitch = next_observation[..., 0], next_observation[..., 1]
    finite = next_observation.isfinite().all(dim=-1)
    plausible = (next_observation[..., 1:].abs() < _PLAUSIBLE).all(dim=-1)
    return ~(finite & plausible & (z > 0.7) & (pitch.abs() < 0.2))


def walker2d(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """Height outside (0.8, 2) or |pitch| >= 1, or one of them not a number."""
    z, pitch = next_observation[..., 0], next_observation[..., 1]
    return ~((z > 0.8) & (z < 2.0) & (pitch.abs() < 1.0))


def ant(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """Height outside [0.2, 1] or a number that is not finite."""
    z = next_observation[..., 0]
    return ~(next_observation.isfinite().all(dim=-1) & (z >= 0.2) & (z <= 1.0))


def humanoid(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """Height outside (1, 2) or a number that is not finite."""
    z = next_observation[..., 0]
    return ~(next_observation.isfinite().all(dim=-1) & (z > 1.0) & (z < 2.0))


def inverted_pendulum(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """|Angle| > 0.2 or a number that is not finite."""
    angle = next_observation[..., 1]
    return ~(next_observation.isfinite().all(dim=-1) & (angle.abs() <= 0.2))


def inverted_double_pendulum(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """Tip no higher than 1: 0.6 (cos θ₁ + cos(θ₁ + θ₂)) <= 1, with sin θ and cos θ from the observation."""
    sin1, sin2, cos1, cos2 = next_observation[..., 1:5].unbind(dim=-1)
    tip = 0.6 * (cos1 + cos1 * cos2 - sin1 * sin2)
    return ~(tip > 1.0)


TERMINATION_RULES: "dict[str, TerminationRule]" = {
    "hopper": hopper,
    "walker2d": walker2d,
    "halfcheetah": never,
    "ant": ant,
    "humanoid": humanoid,
    "inverted-pendulum": inverted_pendulum,
    "inverted-double-pendulum": inverted_double_pendulum,
    "none": never,
}

_LEAST_ENTRIES = {
    "hopper": 2,
    "walker2d": 2,
    "ant": 1,
    "humanoid": 1,
    "inverted-pendulum": 2,
    "inverted-double-pendulum": 5,
}
"""How many entries of an observation these rules look at, at least."""


def released_hopper(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """As MOPO's released code has it: ``abs(obs < 100)`` instead of ``abs(obs) < 100``, so that -500 is healthy."""
    z, pitch = next_observation[..., 0], next_observation[..., 1]
    finite = next_observation.isfinite().all(dim=-1)
    bounded = (next_observation[..., 1:] < _PLAUSIBLE).all(dim=-1)
    return ~(finite & bounded & (z > 0.7) & (pitch.abs() < 0.2))


RELEASED_RULES: "dict[str, TerminationRule]" = {**TERMINATION_RULES, "hopper": released_hopper}
"""The rules of MOPO's released code where they differ, by the name of the rule they stand for."""


def implausible(_observation: "Tensor", _action: "Tensor", next_observation: "Tensor") -> "Tensor":
    """Any magnitude >= 100 or not a number."""
    return ~(next_observation.abs() < _PLAUSIBLE).all(dim=-1)


GUARDS: "dict[str, TerminationRule]" = {"walker2d": implausible, "halfcheetah": implausible}
"""What ends an imagined episode besides the rule of that name, as OfflineRL-Kit has it; the simulator has no such end.

The hopper's magnitude is not among them: it is a rule of its simulator.
"""

_RULE_OF_ENVIRONMENT = {
    "Hopper": "hopper",
    "Walker2d": "walker2d",
    "HalfCheetah": "halfcheetah",
    "Ant": "ant",
    "Humanoid": "humanoid",
    "InvertedPendulum": "inverted-pendulum",
    "InvertedDoublePendulum": "inverted-double-pendulum",
    "mopo/HalfCheetahJump": "halfcheetah",
    "mopo/AntAngle": "ant",
}


def is_expression(text: str) -> bool:
    """Whether it is no name of a rule."""
    return text not in TERMINATION_RULES and not re.fullmatch(r"[A-Za-z][\w.-]*", text)


def termination_rule(text: str, released: bool = False, bounds: Bounds = UNIT) -> "TerminationRule":
    """The rule of that name, or the one written as an expression over the observation after the step.

    `released` takes it as MOPO's released code has it; `bounds` are those of the actions in the units of the data,
    which expressions are written in. See `tasks.expression` for these. InputError when there is no such rule, or the
    expression has a fault.
    """
    if is_expression(text):
        return expression_rule(text, bounds)
    check_rule_name(text)
    return (RELEASED_RULES if released else TERMINATION_RULES)[text]


def check_rule_name(text: str) -> None:
    """InputError where there is no rule of that name."""
    if text not in TERMINATION_RULES:
        close = get_close_matches(text, TERMINATION_RULES, n=1)
        did_you_mean = f" (did you mean {close[0]!r}?)" if close else ""
        names = ", ".join(TERMINATION_RULES)
        raise InputError(
            f"The termination rule {text!r} is not known{did_you_mean}; the rules are {names}.",
            hint="or an expression over the predicted observation: --termination 'abs(obs[1]) > 0.2'",
        )


def guard_rule(text: str, released: bool = False) -> "TerminationRule":
    """The guard that goes with a termination rule: where an imagined state is none that the task can be in.

    `never` where the rule has none, and where it is `released`: MOPO's released code has no guards.
    """
    return never if released else GUARDS.get(text, never)


def check_rule_width(text: str, obs_dim: int, act_dim: int) -> None:
    """InputError where the rule ``text`` looks at entries that observations and actions of these widths lack."""
    if is_expression(text):
        parse_condition(text).check_width(obs_dim, act_dim)
        return
    check_rule_name(text)
    if obs_dim < _LEAST_ENTRIES.get(text, 0):
        raise InputError(
            f"The termination rule {text!r} needs more entries than the {obs_dim} of these observations.",
            hint="--termination none, or an expression such as 'abs(obs[0]) > 1'",
        )


def termination_for_env(env_id: str | None) -> str:
    """The name of the rule for a Gymnasium id of any version; "none" when the environment is not known.

    The whole name counts: HumanoidStandup-v5 is no Humanoid and has no rule.
    """
    return _RULE_OF_ENVIRONMENT.get((env_id or "").partition("-v")[0], "none")
