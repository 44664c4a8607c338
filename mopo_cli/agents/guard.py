"""The value of the state after a step where the guard ended a branch: no prediction, and no end of the task.

A model's predictions mean nothing in a state outside every plausible range. A terminal there would be worth 0, which is
a reward wherever returns are negative. So that state counts as MOReL's HALT does (Kidambi et al. 2020): absorbing, with
the data's least reward at every step forever, or 0 where that is lower. The row stays terminal, and its reward is

    r + gamma min(0, r_min) / (1 - gamma)

so that nothing changes where no reward is negative. r_min is the least of the rewards without penalties: where lambda u
exceeds r - min(0, r_min), a guarded state is worth more than one that stays in the model.
"""

import torch
from torch import Tensor

from mopo_cli.engine.rows import RowLayout
from mopo_cli.errors import SettingsError


def absorbing_value(reward: float, gamma: float) -> float:
    """reward + gamma reward + gamma^2 reward + ... = reward / (1 - gamma): the value of a state that is never left.

    SettingsError where that is not finite: a discount of 1, and a reward that is not 0.
    """
    if not reward:
        return 0.0
    if gamma == 1:
        raise SettingsError(
            f"gamma 1 gives no finite value to a state that is never left and pays {reward:g} at every step.",
            hint="a --gamma below 1",
        )
    return reward / (1 - gamma)


def guarded_value(least: float, gamma: float) -> float:
    """What is added to the reward of a guarded row where the data's least reward is `least`; see above."""
    return gamma * absorbing_value(min(0.0, least), gamma)


def add_to_guarded(rows: RowLayout, packed: Tensor, guarded_rows: Tensor, amount: float) -> Tensor:
    """The packed rows `[n, width]`, with `amount` added to the reward of those that are `guarded_rows` `[n]`."""
    if not amount:
        return packed
    charged = packed.clone()
    reward = rows.split(charged).reward
    reward.copy_(torch.where(guarded_rows, reward + amount, reward))
    return charged
