"""Rules, guards, rewards and oracles are written in the user's units; the data and the model have stored ones."""

from collections.abc import Callable

import torch
from torch import Tensor

from mopo_cli.data.history import frame_width
from mopo_cli.data.transitions import DatasetInfo
from mopo_cli.dynamics.branched_rollouts import Restated


def in_user_units(judge: Callable[..., Tensor], info: DatasetInfo) -> Callable[..., Tensor]:
    """A rule, a guard, a reward or an oracle that is given stored observations: it sees the user's.

    Those with an offset are in float64, and of those of several steps it sees the newest frame.
    """
    if info.observation_offset is None and info.history == 1:
        return judge
    offset = None if info.observation_offset is None else torch.from_numpy(info.observation_offset)

    def undo(observation: Tensor) -> Tensor:
        whole = observation if offset is None else observation.double() + offset.to(observation.device)
        return whole[..., : frame_width(whole.shape[-1], len(info.action_low), info.history)]

    return Restated(judge, undo)
