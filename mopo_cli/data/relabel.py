"""Rewards of tasks other than the one that was logged, computed from the stored transitions."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.config.presets import suggestion
from mopo_cli.data.offsets import without_offset
from mopo_cli.data.source_generated import RELABELLED, TASKS
from mopo_cli.data.transitions import DatasetInfo, Floats, Transitions, episode_lengths, episode_starts
from mopo_cli.errors import InputError
from mopo_cli.tasks.rewards import HALFCHEETAH_CONTROL, ant_heading, halfcheetah_run, height_bonus, squared_norm
from mopo_cli.tasks.termination import is_expression, termination_for_env

Rewards = Callable[[Transitions, DatasetInfo, dict[str, Any]], tuple[NDArray[np.float64], str]]
"""From a log and the task's keyword arguments: the reward of every row `[N]`, and what is to be said of it (or "")."""


@dataclass(frozen=True)
class RewardRule:
    """How the rewards of a task are told from a log.

    The log must be of one of the environments ``logged_in``, made with no other arguments than ``harmless``. Of
    its observations, the first ``obs_dim`` are the task's.
    """

    logged_in: tuple[str, ...]
    harmless: frozenset[str]
    obs_dim: int
    rewards: Rewards


def _jump_rewards(t: Transitions, _info: DatasetInfo, _task: dict[str, Any]) -> tuple[NDArray[np.float64], str]:
    """min(v, 3) - 0.1 ‖a‖² + 15 (z' - z₀), exact but for the rounding to float32.

    HalfCheetah's own reward v - 0.1 ‖a‖² tells v, the behaviour's tells min(v, 3), which is as good.
    """
    velocity = t.rewards.astype(np.float64) + HALFCHEETAH_CONTROL * squared_norm(t.actions)
    height = t.next_observations[:, 0].astype(np.float64)
    at_start = np.repeat(t.observations[episode_starts(t), 0].astype(np.float64), episode_lengths(t))
    return halfcheetah_run(velocity, t.actions) + height_bonus(height - at_start), ""


def _heading_rewards(t: Transitions, info: DatasetInfo, task: dict[str, Any]) -> tuple[NDArray[np.float64], str]:
    """v_x cos + v_y sin - 0.5 ‖a‖², exact where the log holds the velocities over each step.

    Else the velocities are those at the step's end, entries 13 and 14 of the next observation. Against the mean
    over the step they are some 0.2 m/s off in a row, of either sign (20,000 steps of two kinds of policies).
    """
    degrees = task["angle"]
    if {"x_velocity", "y_velocity"} <= t.infos.keys():
        return ant_heading(t.infos["x_velocity"], t.infos["y_velocity"], t.actions, degrees), ""
    if not info.terminal_next_known and t.terminals.any():
        raise InputError(
            f"{info.dataset_id} holds neither velocities nor the states after terminals, so the rewards cannot be "
            "computed.",
            hint="a set with next states, such as ant-medium-v2",
        )
    note = "approximate, from the velocities at the end of each step, as the log has no x_velocity and y_velocity"
    return ant_heading(t.next_observations[:, 13], t.next_observations[:, 14], t.actions, degrees), note


_JUMP = RewardRule(
    logged_in=("HalfCheetah", "mopo/HalfCheetahJump"),
    harmless=frozenset({"reward", "max_episode_steps"}),
    obs_dim=17,
    rewards=_jump_rewards,
)


_FORCES = {"include_cfrc_ext_in_observation", "use_contact_forces"}  # after the 27
_REWARDED = {"reward", "angle", "survive", "contact_cost"}  # computed again whatever it was
_ANT = RewardRule(
    logged_in=("Ant", "mopo/AntAngle"),
    harmless=frozenset({*_FORCES, *_REWARDED, "max_episode_steps"}),
    obs_dim=27,
    rewards=_heading_rewards,
)
RULES = {name: _JUMP if name == "halfcheetah-jump" else _ANT for name in RELABELLED}
"""What ``mopo fetch-data --relabel`` knows."""


def reward_rule(name: str) -> RewardRule:
    """The rule of that name; InputError with all names where there is none."""
    if name not in RULES:
        did_you_mean = suggestion(name, list(RULES))
        raise InputError(
            f"The reward rule {name!r} is not known{did_you_mean}; the rules are {', '.join(RULES)}.",
            hint=f"--reward {shlex.quote(name)}" if is_expression(name) else "",
        )
    return RULES[name]


def relabel(transitions: Transitions, info: DatasetInfo, rule: str) -> tuple[Transitions, DatasetInfo]:
    """The transitions with the rewards and observations of the task ``rule``, and their description.

    Raises InputError where there is no such rule, or the log is not of a body and reward it can be told from.
    """
    task = reward_rule(rule)
    transitions, info = without_offset(transitions, info)
    _check(transitions, info, rule, task)
    env_id, env_kwargs = TASKS[rule]
    rewards, note = task.rewards(transitions, info, env_kwargs)

    def of_task(observations: Floats) -> Floats:
        return np.ascontiguousarray(observations[:, : task.obs_dim])

    relabelled = replace(
        transitions,
        observations=of_task(transitions.observations),
        next_observations=of_task(transitions.next_observations),
        rewards=rewards.astype(np.float32),
    )
    limit = {name: value for name, value in info.env_kwargs.items() if name == "max_episode_steps"}
    return relabelled, replace(
        info,
        dataset_id=rule if info.dataset_id == rule else f"{info.dataset_id}+{rule}",
        env_id=env_id,
        env_kwargs=env_kwargs | limit,
        source=f"{info.source}; rewards computed again by the rule {rule}{f' ({note})' if note else ''}",
        termination=termination_for_env(env_id),
        reference_min=None,
        reference_max=None,
    )


def _check(transitions: Transitions, info: DatasetInfo, rule: str, task: RewardRule) -> None:
    body = (info.env_id or "").partition("-v")[0]
    if body not in task.logged_in:
        where = f"in {info.env_id}" if info.env_id else "without an environment"
        raise InputError(
            f"The reward rule {rule!r} is for logs of {' or '.join(task.logged_in)}; {info.dataset_id} was logged "
            f"{where}.",
            hint="give the environment in which a file was logged: --env ENV-ID",
        )
    if body == "mopo/HalfCheetahJump" and info.env_kwargs.get("reward") != "behaviour":
        raise InputError(f"{info.dataset_id} has the rewards of {rule!r} already.", hint="leave --relabel out")
    others = {name: value for name, value in info.env_kwargs.items() if name not in task.harmless}
    if others:
        raise InputError(
            f"The reward rule {rule!r} is for logs of {body} with its default arguments; {info.dataset_id} was logged "
            f"with {others}."
        )
    if transitions.obs_dim < task.obs_dim:
        raise InputError(
            f"The reward rule {rule!r} needs {task.obs_dim} observation columns; {info.dataset_id} has "
            f"{transitions.obs_dim}."
        )
