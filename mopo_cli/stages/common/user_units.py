"""Between observations as they are stored and as the user has them: stored ones are less `observation_offset`."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.data.history import frame_width
from mopo_cli.data.transition_files import OFFSET
from mopo_cli.data.transitions import DatasetInfo, denormalise_actions
from mopo_cli.nets.scales import Standard


def offset_of(info: DatasetInfo) -> tuple[float, ...]:
    """What is taken off observations before they are stored, `[obs_dim]`; empty where nothing is."""
    return () if info.observation_offset is None else tuple(info.observation_offset.tolist())


def data_header(info: DatasetInfo, judge_share: float = 0.0) -> dict[str, Any]:
    """What a file says of its data where they are unusual: their history and offset, and the share for the judge."""
    header: dict[str, Any] = {}
    if info.history > 1:
        header["history"] = info.history
    if offset := offset_of(info):
        header[OFFSET] = list(offset)
    if judge_share:
        header["judge_share"] = judge_share
    return header


def newest_inputs(inputs: Tensor, info: DatasetInfo) -> tuple[list[str], NDArray[np.float64]]:
    """What the newest observation and the action are in a model's inputs `[N, obs_dim + act_dim]`, and their names.

    They are in the user's units, `[N, frame + act_dim]`.
    """
    act_dim = len(info.action_low)
    frame = frame_width(inputs.shape[1] - act_dim, act_dim, info.history)
    values = inputs.double().cpu().numpy()
    observation, action = values[:, :frame], denormalise_actions(values[:, -act_dim:], info)
    if info.observation_offset is not None:
        observation = observation + info.observation_offset[:frame]
    names = [*names_of("obs", frame, info), *names_of("action", act_dim, info)]
    return names, np.concatenate([observation, action], axis=1)


def names_of(part: str, width: int, info: DatasetInfo) -> list[str]:
    """What the first numbers of an observation ("obs") or an action ("action") are called."""
    names = info.names.get(part, [])[:width]
    return names if len(names) == width else [f"{part}[{d}]" for d in range(width)]


def for_stored(actor: Actor, info: DatasetInfo) -> Actor:
    """A policy from a file, for observations as this dataset stores them: it may be of data with another offset."""
    size = actor.layout.shapes[0][1][0]
    here, none = offset_of(info), (0.0,) * size
    shift = [theirs - ours for theirs, ours in zip(actor.offset or none, here or none, strict=True)]
    if not any(shift):
        return actor
    mean = torch.tensor(shift, dtype=torch.float64, device=actor.flat.device)
    flat = Standard(mean, torch.ones_like(mean)).folded(actor.layout, actor.flat)
    return replace(actor, flat=flat, offset=here)
