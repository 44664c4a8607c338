"""MOReL: where the networks contradict each other rollouts end, at a price, and SAC learns from just that."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from probes.agents import SETTINGS as SAC
from probes.agents import make_batch, make_sac, normal, tensors
from probes.linear import linear_ensemble
from probes.models import (
    ACT,
    LOOP,
    MEMBERS,
    OBS,
    Array,
    make_ensemble,
    make_world,
    numbers,
    predictions,
    train,
)

from mopo_cli.agents.algorithm import Batch
from mopo_cli.agents.algorithms import morel as module
from mopo_cli.agents.algorithms.morel import (
    ALGORITHM,
    Halt,
    Morel,
    MorelSettings,
    greatest_discrepancy,
    halting_options,
    start,
    update,
)
from mopo_cli.agents.algorithms.sac import Sac, gradient_step
from mopo_cli.agents.loop import loop_state
from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutOptions, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import PenaltyForm
from mopo_cli.engine.streams import draws, stream
from mopo_cli.errors import SettingsError
from mopo_cli.stages.common.same_settings import changed_settings
from mopo_cli.tasks.termination import never

SETTINGS = MorelSettings(**vars(SAC), pessimism=1.6, halt_penalty=7.0)
HOW = RolloutOptions(uncertainties=(*RELEASED.uncertainties, "discrepancy"))


def disagreement(
    ensemble: Ensemble, observation: Array, action: Array, networks: tuple[int, ...], units: Array | float = 1.0
) -> Array:
    """The largest distance between two networks' expected next states, row by row, in these units."""
    means = [(observation + predictions(ensemble, k, observation, action)[0][:, :OBS]) / units for k in networks]
    return np.max([np.sqrt(((a - b) ** 2).sum(axis=1)) for a, b in combinations(means, 2)], axis=0)


@pytest.mark.parametrize("form", ["all", "elites", "scaled"])
@pytest.mark.parametrize("rows", [1, 64, 300])
def test_the_threshold_is_of_the_largest_discrepancy_on_the_data(
    monkeypatch: pytest.MonkeyPatch, rows: int, form: str
) -> None:
    """Measured as in the rollouts, whatever the blocks; each member's by its own model."""
    monkeypatch.setattr(module, "_CPU_ROWS", rows)
    scale = torch.linspace(0.5, 2.0, OBS + 1)
    forms = {"all": PenaltyForm(), "elites": PenaltyForm(elites_only=True), "scaled": PenaltyForm(scale=scale)}
    world = make_world(ALGORITHM)
    models = tuple(replace(ensemble, elites=(1, 2)) for ensemble in world.ensembles)
    result = start(
        replace(world, ensembles=models, options=replace(HOW, form=forms[form])), MEMBERS, SETTINGS
    ).halt.threshold
    real = world.row_layout.split(world.real)
    observation, action = numbers(real.observation, real.action)
    units = scale[:OBS].numpy() if form == "scaled" else np.ones(OBS)
    for m, member in enumerate(MEMBERS):
        asked = models[member.model], observation, action
        most = {who: disagreement(*asked, who, units) for who in ((1, 2), (0, 1, 2, 3))}
        chosen = most[(1, 2) if form == "elites" else (0, 1, 2, 3)]
        assert result[m].item() == pytest.approx(chosen.max() / 1.6, rel=1e-5) and chosen.argmax() not in (0, 299)
        assert most[1, 2].max() < 0.95 * most[0, 1, 2, 3].max()
    assert result[0] == result[2] != result[1]


@pytest.mark.parametrize("where", [0, 70, 199])
def test_one_row_of_the_data_can_set_the_threshold(monkeypatch: pytest.MonkeyPatch, where: int) -> None:
    """Two linear models that differ by 3 times the first dimension: the largest of that counts, in whatever block."""
    monkeypatch.setattr(module, "_CPU_ROWS", 64)
    maps = torch.zeros(2, OBS + ACT, OBS + 1)
    maps[1, 0, 1] = 3.0
    maps[1, 0, OBS] = 100.0  # of the reward, which does not count
    ensemble = linear_ensemble(maps, torch.zeros(2, OBS + 1), torch.full((2, OBS + 1), 0.1), (0, 1))
    observation = normal(200, OBS).clamp(-2, 2)
    observation[where, 0] = -5.0
    most = greatest_discrepancy(ensemble, observation, torch.zeros(200, ACT), HOW)
    assert most.item() == pytest.approx(15.0, rel=1e-4)


def test_a_rollout_ends_where_the_discrepancy_is_above_the_threshold() -> None:
    """Followed row by row: who halted is terminal and seen no more, all others go on from where they came to."""
    ensemble, count = make_ensemble(), 400
    start = normal(count, OBS, name="start")
    morel = Morel(**vars(make_sac(2, SETTINGS)), halt=Halt(torch.tensor([9.0, 0.8]), 3, torch.tensor(0.0)))
    how = halting_options(morel, 1, morel.actor.flat, replace(HOW, needs_uncertainties=False))
    expected, state, halted = torch.arange(count), start, 0
    for imagined in branch(ensemble, never, start, morel.policy(1).sample, 4, stream(0, "test/branch"), how):
        rows = make_world(ALGORITHM).row_layout.split(imagined.rows)
        assert torch.equal(imagined.start, expected) and torch.equal(rows.observation, state)
        observation, action = numbers(rows.observation, rows.action)
        far = disagreement(ensemble, observation, action, (0, 1, 2, 3))
        np.testing.assert_allclose(rows.uncertainty[:, 3], far, rtol=1e-4)
        sure = np.abs(far - 0.8) > 1e-4
        assert (rows.terminal.numpy() == (far > 0.8))[sure].all()
        on = rows.terminal == 0
        expected, state, halted = expected[on], rows.next_observation[on], halted + int((~on).sum())
        assert imagined.halted == int((~on).sum()) and imagined.terminated == imagined.guarded == 0
    assert imagined.step == 3 and 50 < halted < 300, "some halt, some do not"


def make_rows(members: int, real: int = 9) -> Batch:
    """A batch of rows far below, just at, just above and far above the thresholds; the data's have no discrepancy."""
    batch, reward, _ = make_batch(members)
    uncertainty = 100 * torch.ones(members, 37, 4)
    uncertainty[..., 3] = torch.tensor([0.0, 2.0, float(np.nextafter(np.float32(2), np.float32(3))), 50.0]).repeat(10)[
        :37
    ]
    uncertainty[:, :real] = 0
    return Batch(
        **vars(batch) | {"reward": reward, "uncertainty": uncertainty}, real_rows=real, index=torch.zeros(members, 0)
    )


def test_sac_learns_from_the_halting_reward_and_from_nothing_else() -> None:
    """The step is bit for bit soft actor-critic's with rewards altered by hand, members having their own threshold."""
    batch, lowest = make_rows(2), -3.5
    morel = Morel(**vars(make_sac(2, SETTINGS)), halt=Halt(torch.tensor([2.0, 49.0]), 3, torch.tensor(lowest - 7)))
    other = make_sac(2, SETTINGS)
    metrics = update(morel, batch, draws((0, 1), "test/noise", 0, "cpu"), 0.5)
    reward = batch.reward.clone()
    for i in range(9, 37):
        for m, kinds in ((0, (2, 3)), (1, (3,))):
            if i % 4 in kinds:
                reward[m, i] = -10.5
    plain = gradient_step(other, batch, reward, draws((0, 1), "test/noise", 0, "cpu").normal(2, 37, ACT), 0.5)
    for name in ("actor", "critic", "target", "log_alpha"):
        assert torch.equal(tensors(morel)[name], tensors(other)[name]), name
    assert all(torch.equal(metrics[name], value) for name, value in plain.items())
    assert metrics["halted"].tolist() == pytest.approx([14 / 28, 7 / 28])
    assert metrics["threshold"].tolist() == [2.0, 49.0]
    assert set(metrics) == set(ALGORITHM.metrics)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("shift", [-100.0, 0.0, 100.0])
def test_a_row_that_halts_pays_what_halt_would_pay_for_ever(gamma: float, shift: float) -> None:
    """HALT is never left and pays r_min - kappa at each step; the sum is made step by step here."""
    world = make_world(ALGORITHM)
    world.real[:, OBS + ACT] += shift
    lowest = world.real[:, OBS + ACT].min().item() - 7
    absorbing = start(world, MEMBERS, replace(SETTINGS, gamma=gamma))
    assert absorbing.halt.reward.item() == pytest.approx(sum(gamma**t * lowest for t in range(1000)), rel=1e-5)
    once = start(world, MEMBERS, replace(SETTINGS, gamma=gamma, halt_value="once"))
    assert once.halt.reward.item() == pytest.approx(lowest, rel=1e-6)
    assert start(world, MEMBERS, replace(SETTINGS, halt_penalty=0.0, halt_value="once")).halt.reward == lowest + 7


def test_without_a_discount_halt_has_no_value() -> None:
    with pytest.raises(SettingsError, match=r"gamma 1 gives no finite value"):
        start(make_world(ALGORITHM), MEMBERS, replace(SETTINGS, gamma=1.0))
    start(make_world(ALGORITHM), MEMBERS, replace(SETTINGS, gamma=1.0, halt_value="once"))


def test_halting_is_no_way_out_of_negative_returns() -> None:
    """All rewards are -1, so that going on for ever is worth -1 / (1 - gamma): paid once, halting would be better."""
    world = make_world(ALGORITHM)
    world.real[:, OBS + ACT] = -1.0
    settings = replace(SETTINGS, gamma=0.99, halt_penalty=50.0)
    absorbing, once = (start(world, MEMBERS, replace(settings, halt_value=value)) for value in ("absorbing", "once"))
    assert absorbing.halt.reward.item() < -1 / (1 - 0.99) < once.halt.reward.item()


def test_a_policy_from_before_halting_had_two_values_is_one_that_paid_once() -> None:
    """What a record lacks counts as what was done then, so that such a policy is not taken for up to date."""
    now = {"algorithm": "morel", "halt_value": "absorbing"}
    assert changed_settings("train-policy", {"algorithm": "morel"}, now)
    assert not changed_settings("train-policy", {"algorithm": "morel"}, now | {"halt_value": "once"})


def test_in_training_what_halted_is_terminal_and_counted() -> None:
    """The pools hold branches cut short, and the metric is the share of their rows in the batches."""
    world = make_world(ALGORITHM)
    loop = train(world, SETTINGS, ALGORITHM, 1)
    assert isinstance(loop.agent, Morel)
    halted = 0.0
    for m, size in enumerate(loop.pool.sizes):
        rows = world.row_layout.split(loop.pool.rows[m, :size])
        above = rows.uncertainty[:, 3] > loop.agent.halt.threshold[m]
        assert torch.equal(rows.terminal > 0, above) and above.any() and not above.all()
        assert size < LOOP.rollout_batch * MEMBERS[m].h
        shares = loop.sums[m, loop.metrics.index("halted")] / loop.step
        assert shares.item() == pytest.approx(above.float().mean().item(), abs=0.15)
        halted += shares.item()
    assert halted > 0


def test_the_threshold_is_computed_again_and_not_saved() -> None:
    loop = train(make_world(ALGORITHM), SETTINGS, ALGORITHM, 1)
    assert not any("threshold" in name for name in loop_state(loop)[0])
    again = start(make_world(ALGORITHM), MEMBERS, SETTINGS)
    assert isinstance(loop.agent, Morel) and torch.equal(again.halt.threshold, loop.agent.halt.threshold)


def greedy_after(morel: Morel | None, sac: Sac, steps: int = 300) -> float:
    """The action learned where reward is the action, and all above 0.2 is unknown to the model."""
    draw, stays = stream(0, "test/toy"), torch.zeros(1, 64, OBS)
    for i in range(steps):
        action = 2 * torch.rand(1, 64, ACT, generator=draw) - 1
        uncertainty = torch.zeros(1, 64, 4)
        uncertainty[..., 3] = (action[..., 0] > 0.2).float()
        columns = (stays, action, action[..., 0], torch.ones(1, 64), stays, uncertainty)
        batch = Batch(*columns, real_rows=0, index=torch.zeros(1, 0))
        noise = draws((0,), "test/toy", i, "cpu")
        if morel is None:
            gradient_step(sac, batch, batch.reward, noise.normal(2, 64, ACT))
        else:
            update(morel, batch, noise, 1.0)
    return float(sac.policy(0).greedy(torch.zeros(1, OBS))[0, 0])


def test_the_policy_stays_where_the_model_knows_what_happens() -> None:
    quick = replace(SETTINGS, actor_lr=1e-2, critic_lr=1e-2, target_entropy=-4.0)
    wary, bold = make_sac(1, quick), make_sac(1, quick)
    morel = Morel(**vars(wary), halt=Halt(torch.tensor([0.5]), 3, torch.tensor(-8.0)))
    assert greedy_after(None, bold) > 0.6
    assert -0.7 < greedy_after(morel, wary) < 0.15
