"""What an ensemble is fitted to: inputs and targets, the rows held out, and the scale of the inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.streams import stream


@dataclass(frozen=True)
class Examples:
    """Inputs `[N, obs_dim + act_dim]`, actions in [-1, 1]; targets `[N, obs_dim + 1]`: state difference, reward."""

    inputs: Tensor
    targets: Tensor

    @classmethod
    def of(cls, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor) -> "Examples":
        """Form inputs and targets from columns of N transitions; reward is `[N]`."""
        inputs = torch.cat([observation, action], dim=-1)
        targets = torch.cat([next_observation - observation, reward[:, None]], dim=-1)
        return cls(inputs, targets)

    @property
    def obs_dim(self) -> int:
        """How wide an observation is."""
        return self.targets.shape[1] - 1


@dataclass(frozen=True)
class Split:
    """One seed's division of the data: rows to train on and to hold out, and the scale of the training inputs."""

    train: Tensor
    holdout: Tensor
    input_mean: Tensor
    input_std: Tensor


def split_data(data: Examples, fraction: float, most: int, seed: int) -> Split:
    """Hold out min(fraction N, most) random rows, the same for all networks, and scale by the rest (MOPO's code)."""
    count = len(data.inputs)
    order = torch.randperm(count, generator=stream(seed, "holdout")).to(data.inputs.device)
    held = max(1, min(int(fraction * count), most))
    train = order[held:]
    inputs = data.inputs[train].double()
    mean, std = inputs.mean(dim=0), inputs.std(dim=0, correction=0)
    std = torch.where(std < 1e-12, torch.ones_like(std), std)
    return Split(train, order[:held], mean.float(), std.float())
