"""What learners learn from: the data, and models or model rows."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutOptions, TerminationRule
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.engine.rows import RowLayout
from mopo_cli.nets.scales import Standard


@dataclass(frozen=True)
class World:
    """Real rows `[N, width]` in the order they were logged, and ensembles to branch in or a fixed buffer of model rows.

    `start` `[N, obs_dim]` are the states that rollouts branch from, `start_step` `[N]` the steps that their episodes
    had taken, where the rule or the reward counts them. `last` `[N]`, bool, are the last rows of their episodes: the
    task or the record ended there. `options` say how rollouts are made. All observations, and what the ensembles
    predict, are standardised by `standard`, where there is one (see `agents.units`).
    """

    row_layout: RowLayout
    real: Tensor
    start: Tensor
    last: Tensor
    rule: TerminationRule
    ensembles: tuple[Ensemble, ...] = ()
    buffer: Tensor | None = None
    options: RolloutOptions = RELEASED
    start_step: Tensor | None = None
    standard: Standard | None = None

    @cached_property
    def least_reward(self) -> float:
        """The least reward of the data."""
        return float(self.row_layout.split(self.real).reward.amin())
