"""What an ensemble is fitted to: inputs and targets, the rows held out, and the scale of the inputs."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.nets.scales import column_scales, divisors


@dataclass(frozen=True)
class Examples:
    """Inputs `[N, obs_dim + act_dim]`, actions in [-1, 1]; targets `[N, frame + 1]`: state difference, reward."""

    inputs: Tensor
    targets: Tensor
    past: int = 0
    """Numbers of an observation that are of earlier steps."""

    @classmethod
    def of(
        cls, observation: Tensor, action: Tensor, reward: Tensor, next_observation: Tensor, *, frame: int | None = None
    ) -> "Examples":
        """Form inputs and targets from columns of N transitions; reward is `[N]`.

        `frame` is the width of the newest frame where observations are of several steps, see `data.history`.
        """
        inputs = torch.cat([observation, action], dim=-1)
        change = (next_observation - observation)[:, :frame]
        targets = torch.cat([change, reward[:, None]], dim=-1)
        return cls(inputs, targets, observation.shape[1] - change.shape[1])

    @property
    def frame(self) -> int:
        """How wide the newest frame of an observation is, whose change is a target."""
        return self.targets.shape[1] - 1

    @property
    def obs_dim(self) -> int:
        """How wide an observation is."""
        return self.frame + self.past


@dataclass(frozen=True)
class TargetScale:
    """The mean and standard deviation of targets, `[frame + 1]` both; the deviation is 0 where nothing varies."""

    mean: Tensor
    std: Tensor

    @cached_property
    def divisor(self) -> Tensor:
        """What targets are divided by: the deviation, or 1 where nothing varies."""
        return torch.where(self.std > 0, self.std, 1.0)

    def standardise(self, targets: Tensor) -> Tensor:
        """Targets `[…, frame + 1]` in standard deviations from the mean, in place."""
        return targets.sub_(self.mean).div_(self.divisor)


@dataclass(frozen=True)
class Split:
    """One seed's division of the data: rows to train on and to hold out, and the scales of the training rows.

    `targets` is None where targets are learned in raw units.
    """

    train: Tensor
    holdout: Tensor
    input_mean: Tensor
    input_std: Tensor
    targets: TargetScale | None = None


def split_data(data: Examples, fraction: float, most: int, seed: int, standardised: bool = False) -> Split:
    """Hold out min(fraction N, most) random rows, the same for all networks, and scale by the rest (MOPO's code).

    Where targets are `standardised`, columns may be of any size: see `column_scales`.
    """
    count = len(data.inputs)
    order = torch.randperm(count, generator=stream(seed, "holdout")).to(data.inputs.device)
    held = max(1, min(int(fraction * count), most))
    train = order[held:]
    if standardised:
        mean, std = column_scales(data.inputs[train])
        target_mean, target_std = column_scales(data.targets[train])
        scale = TargetScale(target_mean.float(), target_std.float())
        return Split(train, order[:held], mean.float(), divisors(mean, std).float(), scale)
    inputs = data.inputs[train].double()
    mean, std = inputs.mean(dim=0), inputs.std(dim=0, correction=0)
    std = torch.where(std < 1e-12, torch.ones_like(std), std)
    return Split(train, order[:held], mean.float(), std.float())
