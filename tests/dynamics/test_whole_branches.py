"""Rollouts with all rows at once, as on a GPU: the transitions of the rollouts that leave ended rows out."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from probes.gpu import as_on_cuda, launches, record
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.dynamics.branched_rollouts import RELEASED, NoisyPolicy, RolloutOptions, RolloutStep, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.whole_branches import take_step
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.stacked import mlp_layout

OBS, ACT, ROWS = 5, 3, 300
ACTOR = mlp_layout((OBS, 16, 16, 2 * ACT))


def model(log_variance: float = -4.0, elites: tuple[int, ...] = (0, 2, 3)) -> Ensemble:
    """Four networks, of which these are elites, that predict with no more than this variance."""
    layout = gaussian_layout(OBS + ACT, OBS + 1, 16, 4)
    flat = initial(layout, [stream(k, "test/model") for k in range(4)], uniform, uniform)
    views = layout.views(flat)
    views["max_logvar"].fill_(log_variance)
    views["min_logvar"].fill_(log_variance - 1)
    return Ensemble(flat, layout, torch.zeros(OBS + ACT), torch.full((OBS + ACT,), 0.5), OBS, elites)


def actor() -> Actor:
    return Actor(initial(ACTOR, [stream(0, "test/actor")], uniform, uniform), ACTOR, -5.0, 2.0)


def far(_observation: Tensor, _action: Tensor, following: Tensor) -> Tensor:
    return following[..., 0] > 0.8


def right(_observation: Tensor, _action: Tensor, following: Tensor) -> Tensor:
    return following[..., 2] > 1.2


def greedy() -> NoisyPolicy:
    """Of any noise the same actions."""
    return replace(actor().sampled, act=lambda observation, noise: actor().greedy(observation))


def rolled(ensemble: Ensemble, policy: NoisyPolicy, horizon: int, how: RolloutOptions) -> list[RolloutStep]:
    start = torch.randn(ROWS, OBS, generator=stream(0, "test/start"))
    start[7] = torch.nan  # dropped at once
    start[8, 1] = 60.0  # guarded
    return list(branch(ensemble, far, start, policy, horizon, stream(0, "test/branch"), how))


FORM = replace(RELEASED.form, elites_only=True, reward=False)
NAMES = RolloutOptions(uncertainties=("ens", "max-var", "discrepancy"))


@pytest.mark.parametrize(
    "how",
    [
        RELEASED,
        replace(NAMES, halt=("discrepancy", 0.7), reward_mean=True),
        replace(NAMES, form=FORM, guard=right),
    ],
)
@pytest.mark.parametrize("horizon", [1, 20])
def test_the_transitions_are_those_of_rows_that_still_go_on(
    how: RolloutOptions, horizon: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All is drawn alike for a single step; of more, draws must not matter.
    ensemble, policy = (model(), actor().sampled) if horizon == 1 else (model(-60.0, (2,)), greedy())
    expected = rolled(ensemble, policy, horizon, how)
    with as_on_cuda(monkeypatch):
        whole = rolled(replace(ensemble), policy, horizon, how)
    assert len(whole) == len(expected) and (horizon == 1 or len(expected[-1].rows) < ROWS - 20)
    for one, other in zip(expected, whole, strict=True):
        torch.testing.assert_close(other.rows, one.rows, rtol=1e-4, atol=1e-5)
        for name in ("network", "start", "wild"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        assert (one.step, one.ends(), one.unknown) == (other.step, other.ends(), other.unknown)
    ends = [sum(step.ends()[name] for step in whole) for name in ("terminated", "guarded", "dropped", "halted")]
    assert ends[0] > 20 and ends[2] == 1 and (ends[3] > 0) == (how.halt is not None)
    assert ends[1] >= 1 or how.halt is not None


def test_a_step_can_be_recorded_and_is_few_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def recorded(*arguments: Any) -> None:
        counts.append(launches(lambda: take_step(*arguments), fuse=True))
        record(lambda: take_step(*arguments))()

    monkeypatch.setattr("mopo_cli.dynamics.branched_rollouts.take_step", recorded)
    with as_on_cuda(monkeypatch):
        rolled(model(), actor().sampled, 2, RELEASED)
    # Nine products, hidden layers with what follows, and three chains, the last of which is several kernels.
    assert counts == [12, 12]
