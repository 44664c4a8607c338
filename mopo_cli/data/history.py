"""Observations of several steps: for tasks whose state no single observation shows.

A row of a dataset with a history of H steps has as its observation the last H ones and the actions between them,

    [o(t), o(t-1), ..., o(t-H+1), a(t-1), ..., a(t-H+1)]

each o being a frame of F numbers, each a one of A numbers in [-1, 1]. The newest frame comes first, so that its numbers
have the places that they have in the log. Before an episode's start, frames repeat the first one and actions are 0.
"""

from dataclasses import replace

import numpy as np

from mopo_cli.data.transitions import DatasetInfo, Transitions, normalise_actions, steps_before


def stacked_width(frame: int, act_dim: int, history: int) -> int:
    """How wide an observation of so many steps is."""
    return history * frame + (history - 1) * act_dim


def frame_width(obs_dim: int, act_dim: int, history: int) -> int:
    """How wide a frame is in observations of so many steps, which have `obs_dim` numbers."""
    return (obs_dim - (history - 1) * act_dim) // history


def steps_text(history: int) -> str:
    """A number of steps for people."""
    return f"{history} step{'s' * (history > 1)}"


def stack_history(transitions: Transitions, info: DatasetInfo, history: int) -> tuple[Transitions, DatasetInfo]:
    """The same rows, observations being of the last `history` steps; what is known of the dataset says so.

    A next observation is the same one step later, its newest frame being the logged one, also where an episode ends.
    """
    if history == 1:
        return transitions, info
    row, before = np.arange(len(transitions)), steps_before(transitions)
    action = normalise_actions(transitions.actions, info)
    frames, actions = [transitions.observations], []
    for k in range(1, history):
        frames.append(transitions.observations[row - np.minimum(k, before)])
        actions.append(np.where((before >= k)[:, None], action[row - np.minimum(k, before)], np.float32(0)))
    following = [transitions.next_observations, *frames[:-1], action, *actions[:-1]]
    stacked = replace(
        transitions,
        observations=np.concatenate([*frames, *actions], axis=1),
        next_observations=np.concatenate(following, axis=1),
    )
    offset, names = info.observation_offset, info.names
    if offset is not None:
        offset = np.concatenate([np.tile(offset, history), np.zeros((history - 1) * transitions.act_dim)])
    if "obs" in names:
        names = names | {"obs": _names(names, transitions.act_dim, history)}
    return stacked, replace(info, history=history, observation_offset=offset, names=names)


def newest_frames(transitions: Transitions, info: DatasetInfo) -> tuple[Transitions, DatasetInfo]:
    """What `stack_history` made these of."""
    if info.history == 1:
        return transitions, info
    frame = frame_width(transitions.obs_dim, transitions.act_dim, info.history)
    plain = replace(
        transitions,
        observations=np.ascontiguousarray(transitions.observations[:, :frame]),
        next_observations=np.ascontiguousarray(transitions.next_observations[:, :frame]),
    )
    offset = info.observation_offset
    names = {name: entries[:frame] if name == "obs" else entries for name, entries in info.names.items()}
    return plain, replace(info, history=1, observation_offset=None if offset is None else offset[:frame], names=names)


def _names(names: dict[str, list[str]], act_dim: int, history: int) -> list[str]:
    actions = names.get("action") or [f"action[{d}]" for d in range(act_dim)]
    past = [f"{steps_text(k)} ago" for k in range(1, history)]
    return [*names["obs"], *(f"{name} {ago}" for part in (names["obs"], actions) for ago in past for name in part)]
