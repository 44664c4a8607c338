"""COMBO over a stack of members: conservative critics on data and model rollouts, no penalty (Yu et al. 2021).

Each critic's loss is, with L(s) the log-sum-exp over sampled actions (see agents/conservative.py), rho a mixture of
states from rollouts and from the data, and D the data (COMBO, eq. 2),

    beta (E_s~rho[L(s)] - E_s,a~D[Q(s, a)]) + E_s,a,s'~d_f[(Q(s, a) - target_q)^2].

d_f is a batch: a share f of it, the setting real-ratio, is the data's, the model's rollouts are the rest. So the update
is CQL's with data in the second expectation alone. The paper halves the square; see algorithms/cql.py why that is not
done here. "regulariser" is E_rho,pi[Q] - E_D[Q], by which section 3 chooses among settings: the lowest is the best.
"""

from dataclasses import dataclass
from typing import Literal, cast

from torch import Tensor

from mopo_cli.agents.algorithm import Algorithm, Batch, Work, setting
from mopo_cli.agents.algorithms import cql, sac
from mopo_cli.agents.algorithms.sac import Sac
from mopo_cli.engine.streams import Draws


@dataclass(frozen=True)
class ComboSettings(cql.CqlSettings):
    """CQL's, and at which states critics are kept low."""

    beta: float = setting(
        0.5,
        "weight of the conservative term beside the critics' squared error",
        "OfflineRL-Kit: 0.5 or 5 by the data",
        ge=0,
    )
    rho: Literal["mix", "model"] = setting(
        "mix", "states where critics are kept low: the whole batch's, or the model rows' alone", "COMBO §3"
    )


def first_rho_row(settings: ComboSettings, real_rows: int) -> int:
    """The first row of a batch at whose state critics are kept low: the first of all, or of the model's."""
    return real_rows if settings.rho == "model" else 0


def update(combo: Sac, batch: Batch, draws: Draws, actor_scale: float) -> dict[str, Tensor]:
    """One gradient step of every critic, actor and temperature: that of CQL, at the states of rho."""
    first = first_rho_row(cast(ComboSettings, combo.settings), batch.real_rows)
    return cql.update(combo, batch, draws, actor_scale, first)


def sampled_numbers(settings: ComboSettings, work: Work) -> int:
    """What CQL samples and keeps, at the states of rho."""
    return cql.sampled_numbers(settings, work, first_rho_row(settings, work.real_rows))


ALGORITHM = Algorithm(
    settings=ComboSettings,
    metrics=cql.METRICS,
    start=sac.start,
    update=update,
    networks=sac.networks,
    sampled_numbers=sampled_numbers,
    learns_from="both",
)
