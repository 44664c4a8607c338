"""A transition as one row of floats, so that a batch is one gather.

The columns: observation, action, reward, terminal, next observation, uncertainties.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowLayout:
    """The columns of a packed transition. Observations `[…, obs_dim]`, actions `[…, act_dim]` in [-1, 1]."""

    obs_dim: int
    act_dim: int
    uncertainties: int

    @property
    def width(self) -> int:
        """Floats in a row."""
        return 2 * self.obs_dim + self.act_dim + 2 + self.uncertainties

    def pack(
        self,
        observation: Tensor,
        action: Tensor,
        reward: Tensor,
        terminal: Tensor,
        next_observation: Tensor,
        uncertainty: Tensor,
    ) -> Tensor:
        """Pack columns of n transitions into `[n, width]`; reward, terminal `[n]`, uncertainty `[n, uncertainties]`."""
        reward, terminal = reward[:, None], terminal[:, None].to(reward.dtype)
        return torch.cat([observation, action, reward, terminal, next_observation, uncertainty], dim=-1)

    def split(self, rows: Tensor) -> "Transition":
        """Views of the columns of `[…, width]`."""
        sizes = [self.obs_dim, self.act_dim, 1, 1, self.obs_dim, self.uncertainties]
        observation, action, reward, terminal, next_observation, uncertainty = rows.split(sizes, dim=-1)
        return Transition(observation, action, reward.squeeze(-1), terminal.squeeze(-1), next_observation, uncertainty)


@dataclass(frozen=True)
class Transition:
    """The columns of packed rows: `[…, obs_dim]`, `[…, act_dim]`, `[…]`, `[…]` (1: ended), `[…, obs_dim]`, `[…, U]`."""

    observation: Tensor
    action: Tensor
    reward: Tensor
    terminal: Tensor
    next_observation: Tensor
    uncertainty: Tensor
