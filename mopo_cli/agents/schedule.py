"""When the training loop does what: steps, rollouts, batches, learning rates."""

from dataclasses import dataclass
from math import cos, gcd, pi


@dataclass(frozen=True)
class LoopSettings:
    """The schedule: steps, rollouts, batches. `rollout_every` and `steps_per_epoch` are gradient steps.

    In rollouts acts the policy in training, or, where `rollout_actions` is "uniform", noise over [-1, 1].
    `actor_schedule` "cosine" lets the actor's learning rate fall to 0 over `epochs`, once per epoch.
    """

    steps_per_epoch: int
    rollout_every: int
    rollout_batch: int
    pool_epochs: int
    batch_size: int
    real_ratio: float
    rollout_actions: str = "policy"
    actor_schedule: str = "constant"
    epochs: int = 1

    @property
    def block(self) -> int:
        """Steps in a block, at most 100, such that rollouts and the ends of epochs fall between blocks."""
        common = gcd(self.steps_per_epoch, self.rollout_every)
        return max(size for size in range(1, 101) if common % size == 0)

    @property
    def real_rows(self) -> int:
        """Real rows in a batch, rounded down as in MOPO's code: 12 of 256."""
        return int(self.batch_size * self.real_ratio)

    def actor_scale(self, step: int) -> float:
        """The factor of the actor's learning rate at a gradient step."""
        passed = (step // self.steps_per_epoch) / self.epochs
        return 1.0 if self.actor_schedule == "constant" else (1 + cos(pi * passed)) / 2
