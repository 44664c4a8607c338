"""What a policy returns in the model: whole episodes are rolled out in the ensemble and summed up as they go."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import RELEASED, Policy, RolloutOptions, TerminationRule, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.rows import RowLayout


@dataclass(frozen=True)
class Sums:
    """Sums over each of N rollouts, f8: of the rewards r `[N]` and of every uncertainty u `[N, U]`."""

    reward: Tensor
    uncertainty: Tensor

    def penalised(self, weights: Sequence[float]) -> Tensor:
        """The sums of r - lambda u `[N]`, the returns in the penalised model (MOPO section 4.2).

        `weights` `[U]` are those of `penalties.penalty_weights`, for the uncertainties in their order.
        """
        return self.reward - self.uncertainty @ self.uncertainty.new_tensor(list(weights))


@dataclass(frozen=True)
class ModelReturns:
    """The returns of N rollouts: sums as they are and with step t weighted by gamma^t, lengths `[N]` i8, and ends.

    Of the rollouts, `terminated` is the share that the task's rule ended, `guarded` that the guard ended as the
    state left every plausible range, `dropped` that broke off at a number that is not finite (its step is not
    counted); all others reached the horizon. `unknown` is the share of the steps for which the oracle has no answer.
    """

    total: Sums
    discounted: Sums
    length: Tensor
    terminated: float
    guarded: float
    dropped: float
    unknown: float


def model_returns(
    ensemble: Ensemble,
    rule: TerminationRule,
    start: Tensor,
    policy: Policy,
    horizon: int,
    gamma: float,
    generator: torch.Generator,
    options: RolloutOptions = RELEASED,
    least: float = 0.0,
) -> ModelReturns:
    """Roll out one episode of at most `horizon` steps from each of `start` `[N, obs_dim]`, as `branch` does.

    What left every plausible range, or is not finite, is no end of the task: as if in an absorbing state, every step
    that is left up to the horizon pays min(0, `least`), `least` being the data's least reward (see `agents.guard`).
    The sums of uncertainties are in the order of `options.uncertainties`. A deterministic policy leaves `generator` to
    the model's noise.
    """
    count, act_dim = len(start), ensemble.input_mean.shape[0] - ensemble.obs_dim
    rows = RowLayout(ensemble.obs_dim, act_dim, len(options.uncertainties))
    total = torch.zeros(count, 1 + rows.uncertainties, dtype=torch.float64, device=start.device)
    discounted = torch.zeros_like(total)
    length = torch.zeros(count, dtype=torch.int64, device=start.device)
    over = torch.zeros(count, dtype=torch.bool, device=start.device)
    terminated = guarded = dropped = unknown = 0
    for imagined in branch(ensemble, rule, start, policy, horizon, generator, options):
        step, place = rows.split(imagined.rows), imagined.start
        values = torch.cat([step.reward[:, None], step.uncertainty], dim=1).double()
        total[place] += values
        discounted[place] += gamma**imagined.step * values
        length[place] += 1
        over[place] = (step.terminal > 0) & ~imagined.guarded_rows
        terminated += imagined.terminated
        guarded += imagined.guarded
        dropped += imagined.dropped
        unknown += imagined.unknown
    if least < 0:
        left = torch.where(over, 0, horizon - length)
        total[:, 0] += least * left
        # gamma^length + ... + gamma^(horizon - 1), also for gamma = 1.
        sums = torch.cat([total.new_zeros(1), (gamma ** torch.arange(horizon).double()).cumsum(dim=0).to(total)])
        discounted[:, 0] += least * torch.where(over, 0.0, sums[horizon] - sums[length])
    return ModelReturns(
        Sums(total[:, 0], total[:, 1:]),
        Sums(discounted[:, 0], discounted[:, 1:]),
        length,
        terminated / count,
        guarded / count,
        dropped / count,
        unknown / max(int(length.sum()), 1),
    )
