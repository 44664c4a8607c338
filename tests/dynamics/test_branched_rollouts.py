"""Rollouts in ensembles whose every prediction is known: distribution, elites, ends, guards, horizon."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from probes.linear import linear_ensemble
from torch import Tensor

from mopo_cli.agents.actor import Actor
from mopo_cli.dynamics import branched_rollouts
from mopo_cli.dynamics.branched_rollouts import (
    RELEASED,
    RolloutOptions,
    RolloutStep,
    branch,
    sample_step,
    uniform_policy,
)
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import PenaltyForm, uncertainties
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, uniform, zeros
from mopo_cli.nets.stacked import mlp_layout
from mopo_cli.tasks.termination import never

ROWS = RowLayout(2, 1, 3)
# (s, a) -> (change of s, r), one map for all; networks differ in offset and std. Network 1 is no elite.
MAP = torch.tensor([[-0.1, 0.0, 1.0], [0.2, -0.3, 0.5], [0.5, -0.4, 0.3]])
OFFSET = torch.tensor([[0.3, -0.2, 0.4], [90.0, 90.0, 90.0], [-0.1, 0.5, -0.6]])
STD = torch.tensor([[0.1, 0.2, 0.3], [9.0, 9.0, 9.0], [0.3, 0.1, 0.2]])
SCALE = torch.tensor([1.0, -2.0, 0.1]), torch.tensor([2.0, 0.5, 0.6])


def three_networks(elites: tuple[int, ...] = (0, 2)) -> Ensemble:
    return linear_ensemble(MAP.expand(3, -1, -1), OFFSET, STD, elites, *SCALE)


def states(count: int) -> Tensor:
    return torch.randn(count, 2, generator=stream(0, "test/states"))


def roll(
    ensemble: Ensemble,
    start: Tensor,
    h: int,
    rule: branched_rollouts.TerminationRule = never,
    seed: int = 0,
    how: RolloutOptions = RELEASED,
) -> list[RolloutStep]:
    return list(branch(ensemble, rule, start, uniform_policy(1), h, stream(seed, "test/rollout"), how))


def test_the_helper_predicts_what_it_says() -> None:
    observation, action = states(9), states(9)[:, :1]
    mean, std = three_networks().predict(observation, action)
    torch.testing.assert_close(mean, torch.cat([observation, action], dim=1) @ MAP + OFFSET[:, None])
    torch.testing.assert_close(std, STD[:, None].expand(-1, 9, -1))


def test_the_distribution_of_every_step_in_closed_form() -> None:
    """Mean and covariance of (s', r) after 1, 2, 3 steps, the elite drawn anew for every row and step.

    With x = (s, a), (s', r) = x F + c_k + noise_k, where k is uniform over the elites: the covariance is
    F' Cov(x) F + E_k[Sigma_k] + Cov_k(c_k). The same k for s' and r gives the last term its off-diagonal.
    """
    count, elites = 40_000, [0, 2]
    offset, std = OFFSET[elites].double().numpy(), STD[elites].double().numpy()
    move = MAP.double().numpy().copy()
    move[:2, :2] += np.eye(2)
    mean, covariance = np.array([1.5, -1.0]), np.zeros((2, 2))
    for imagined in roll(three_networks(), torch.tensor([1.5, -1.0]).repeat(count, 1), 3):
        joint = np.zeros((3, 3))
        joint[:2, :2], joint[2, 2] = covariance, 1 / 3  # actions are uniform in [-1, 1]
        expected_mean = np.append(mean, 0.0) @ move + offset.mean(axis=0)
        expected = move.T @ joint @ move + np.diag((std**2).mean(axis=0)) + np.cov(offset.T, bias=True)
        rows = ROWS.split(imagined.rows)
        sample = torch.cat([rows.next_observation, rows.reward[:, None]], dim=1).double().numpy()
        variance = np.diag(expected)
        assert np.abs(sample.mean(axis=0) - expected_mean).max() < 5 * np.sqrt(variance.max() / count)
        bound = 5 * np.sqrt((np.outer(variance, variance) + expected**2) / count)
        assert (np.abs(np.cov(sample.T) - expected) < bound).all()
        mean, covariance = expected_mean[:2], expected[:2, :2]


def test_each_row_s_sample_is_from_the_network_it_names() -> None:
    quiet = linear_ensemble(MAP.expand(3, -1, -1), OFFSET, torch.full((3, 3), 1e-4), (0, 2), *SCALE)
    observation = states(500)
    for imagined in roll(quiet, observation, 3):
        rows = ROWS.split(imagined.rows)
        change = torch.cat([rows.observation, rows.action], dim=1) @ MAP + OFFSET[imagined.network]
        torch.testing.assert_close(rows.next_observation - rows.observation, change[:, :2], atol=2e-3, rtol=0)
        torch.testing.assert_close(rows.reward, change[:, 2], atol=2e-3, rtol=0)


def test_elites_are_drawn_uniformly_for_every_row_and_step_and_no_other_network() -> None:
    counts = torch.bincount(roll(three_networks((2, 0, 1)), torch.zeros(6000, 2), 1)[0].network)
    assert (counts - 2000).abs().max() < 5 * np.sqrt(6000 * 2 / 9)
    steps = torch.stack([i.network for i in roll(three_networks((0, 2)), torch.zeros(6000, 2), 4)])
    assert set(steps.unique().tolist()) == {0, 2}
    for a in range(4):
        for b in range(a):
            assert (steps[a] == steps[b]).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(6000))


def test_the_stored_uncertainty_is_of_all_networks_at_the_stored_state_and_action() -> None:
    ensemble = three_networks()
    for imagined in roll(ensemble, states(50), 2):
        rows = ROWS.split(imagined.rows)
        expected = uncertainties(*ensemble.predict(rows.observation, rows.action), names=RELEASED.uncertainties)
        torch.testing.assert_close(rows.uncertainty, expected)
        assert rows.uncertainty[:, 0].tolist() == pytest.approx([9 * np.sqrt(3)] * 50), "the non-elite counts"


@pytest.mark.parametrize("names", [(), ("ens",), ("avg-var", "max-var")])
def test_which_uncertainties_are_stored_changes_nothing_else(names: tuple[str, ...]) -> None:
    some = roll(three_networks(), states(50), 2, how=RolloutOptions(names))
    for imagined, full in zip(some, roll(three_networks(), states(50), 2), strict=True):
        stored, every = RowLayout(2, 1, len(names)).split(imagined.rows), ROWS.split(full.rows)
        assert torch.equal(imagined.rows[:, : -len(names) or None], full.rows[:, :-3])
        for u, name in enumerate(names):
            assert torch.equal(stored.uncertainty[:, u], every.uncertainty[:, RELEASED.uncertainties.index(name)])


def test_finished_rows_are_stored_as_ended_and_go_no_further() -> None:
    """A peer's fault: it rolls on from states in which the episode has ended."""
    ensemble = three_networks()

    def rule(_: Tensor, __: Tensor, next_observation: Tensor) -> Tensor:
        return next_observation[:, 0] > 0.4

    steps = roll(ensemble, torch.zeros(400, 2), 4, rule)
    alive = torch.zeros(400, 2)
    for imagined in steps:
        rows = ROWS.split(imagined.rows)
        assert torch.equal(rows.observation, alive)
        ended = rows.next_observation[:, 0] > 0.4
        assert torch.equal(rows.terminal, ended.float())
        assert 0 < imagined.terminated == ended.sum() < len(ended)
        assert imagined.guarded == imagined.dropped == 0
        alive = rows.next_observation[~ended]
    assert [imagined.step for imagined in steps] == [0, 1, 2, 3]


def test_the_rule_sees_the_state_the_action_and_the_predicted_next_state() -> None:
    seen: list[tuple[Tensor, ...]] = []

    def rule(*columns: Tensor) -> Tensor:
        seen.append(columns)
        return torch.zeros(len(columns[0]), dtype=torch.bool)

    steps = roll(three_networks(), states(20), 2, rule)
    for imagined, columns in zip(steps, seen, strict=True):
        rows = ROWS.split(imagined.rows)
        for column, stored in zip(columns, (rows.observation, rows.action, rows.next_observation), strict=True):
            assert torch.equal(column, stored)


def test_rows_stop_when_all_have_ended() -> None:
    steps = roll(three_networks(), torch.zeros(30, 2), 5, lambda s, a, n: torch.ones(len(n), dtype=torch.bool))
    assert len(steps) == 1 and steps[0].terminated == 30 and len(steps[0].rows) == 30
    assert roll(three_networks(), torch.zeros(0, 2), 5) == []


@pytest.mark.parametrize("h", [1, 2, 7])
def test_the_horizon_is_kept(h: int) -> None:
    steps = roll(three_networks(), torch.zeros(10, 2), h)
    assert [(imagined.step, len(imagined.rows)) for imagined in steps] == [(t, 10) for t in range(h)]
    for before, after in pairwise(steps):
        assert torch.equal(ROWS.split(before.rows).next_observation, ROWS.split(after.rows).observation)
    assert all((ROWS.split(imagined.rows).terminal == 0).all() for imagined in steps), "the horizon is no end"


def test_a_state_beyond_a_hundred_standard_deviations_ends_the_rollout() -> None:
    """Inside and outside of the bound in the second dimension, whose mean is -2 and std 0.5: -52 and 48."""
    still = linear_ensemble(torch.zeros(1, 3, 3), torch.zeros(1, 3), torch.full((1, 3), 1e-6), (0,), *SCALE)
    start = torch.tensor([[0.0, 47.9], [0.0, 48.1], [0.0, -51.9], [0.0, -52.1], [0.0, 0.0]])
    first, second = roll(still, start, 2)
    assert ROWS.split(first.rows).terminal.tolist() == [0, 1, 0, 1, 0]
    assert (first.guarded, first.terminated, first.dropped) == (2, 0, 0)
    assert len(second.rows) == 3

    def rule(_: Tensor, __: Tensor, next_observation: Tensor) -> Tensor:
        return next_observation[:, 1] > 1

    both = roll(still, start, 1, rule)[0]
    assert (both.terminated, both.guarded) == (2, 1), "a row that both would end is counted once"
    assert first.guarded_rows.tolist() == [False, True, False, True, False]
    assert both.guarded_rows.tolist() == [False, False, False, True, False], (
        "where the rule ends it, it is the task's end"
    )


def test_the_guard_of_a_task_ends_rollouts_as_the_distance_does() -> None:
    """What the task's rule, an uncertainty and both guards would end is counted once each, in that order."""
    still = linear_ensemble(torch.zeros(1, 3, 3), torch.zeros(1, 3), torch.full((1, 3), 1e-6), (0,), *SCALE)
    start = torch.tensor([[0.0, 48.1], [7.0, 0.0], [9.0, 0.0], [3.0, 0.0], [3.5, 0.0], [0.0, 0.0]])

    def beyond(bound: float) -> branched_rollouts.TerminationRule:
        return lambda _, __, next_observation: next_observation[:, 0] > bound

    how = RolloutOptions(guard=beyond(5.0), halt=("ens", -1.0))
    first = roll(still, start, 1, beyond(8.0), how=replace(how, halt=None))[0]
    assert first.ends() == {"terminated": 1, "halted": 0, "guarded": 2, "dropped": 0}
    assert first.guarded_rows.tolist() == [True, True, False, False, False, False]
    assert ROWS.split(first.rows).terminal.tolist() == [1, 1, 1, 0, 0, 0]
    halted = roll(still, start, 2, beyond(8.0), how=how)
    assert [i.ends() for i in halted] == [{"terminated": 1, "halted": 5, "guarded": 0, "dropped": 0}]
    assert not halted[0].guarded_rows.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_dropped_counted_and_not_continued(value: float) -> None:
    def policy(observation: Tensor, generator: torch.Generator) -> Tensor:
        action = torch.zeros(len(observation), 1)
        action[observation[:, 0] > 3.0] = value
        return action

    start = torch.zeros(10, 2)
    start[[2, 5, 6], 0] = 4.0
    still = linear_ensemble(torch.zeros(2, 3, 3), torch.zeros(2, 3), torch.full((2, 3), 1e-3), (0, 1))
    steps = list(branch(still, never, start, policy, 2, stream(0, "test")))
    assert [(len(i.rows), i.dropped, i.guarded, i.terminated) for i in steps] == [(7, 3, 0, 0), (7, 0, 0, 0)]
    assert all(len(i.network) == len(i.rows) for i in steps)
    assert torch.isfinite(torch.cat([i.rows for i in steps])).all()
    assert (ROWS.split(steps[0].rows).observation == 0).all()


def test_an_infinite_prediction_is_dropped_not_guarded() -> None:
    offset = torch.tensor([[0.0, 3e38, 0.0]])
    wild = linear_ensemble(torch.zeros(1, 3, 3), offset, torch.full((1, 3), 1e-3), (0,))
    (only,) = roll(wild, torch.tensor([[0.0, 3e38]]).repeat(4, 1), 3)
    assert (len(only.rows), only.dropped, only.guarded) == (0, 4, 0)


def test_the_same_stream_gives_the_same_bytes_and_another_other_ones() -> None:
    start = states(50)
    first, again, other = (roll(three_networks(), start, 3, seed=seed) for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a.rows, b.rows) and torch.equal(a.network, b.network)
        assert not torch.equal(a.rows, c.rows)


def test_state_and_reward_are_one_sample() -> None:
    """Not the mean reward: across a thousand samples of one state, the reward's std is the network's."""
    came = sample_step(three_networks((0,)), torch.zeros(4000, 2), torch.zeros(4000, 1), stream(0, "test"))
    assert came.reward.std().item() == pytest.approx(0.3, rel=0.06)
    assert came.next_observation.std(dim=0).tolist() == pytest.approx([0.1, 0.2], rel=0.06)


def test_uniform_actions() -> None:
    action = uniform_policy(2)(torch.zeros(4000, 3), stream(0, "test"))
    assert action.shape == (4000, 2)
    assert -1 <= action.min() < -0.99 and 0.99 < action.max() <= 1
    assert torch.quantile(action, torch.tensor([0.25, 0.5, 0.75])).tolist() == pytest.approx([-0.5, 0, 0.5], abs=0.04)
    assert abs(torch.corrcoef(action.T)[0, 1].item()) < 0.06


def test_the_mean_reward_is_the_drawn_network_s_while_states_vary() -> None:
    """Everything else of the rollout stays as it was, bit for bit: no draw is saved."""
    ensemble, start = three_networks(), states(300)
    sampled, expected = roll(ensemble, start, 3), roll(ensemble, start, 3, how=RolloutOptions(reward_mean=True))
    for before, after in zip(sampled, expected, strict=True):
        old, new = ROWS.split(before.rows), ROWS.split(after.rows)
        mean, _ = ensemble.predict(new.observation, new.action)
        drawn = mean[after.network, torch.arange(300)]
        assert torch.equal(new.reward, drawn[:, 2])
        assert (new.reward - old.reward).abs().min() > 0
        assert torch.equal(old.next_observation, new.next_observation) and torch.equal(before.network, after.network)
        assert (new.next_observation - new.observation - drawn[:, :2]).std(dim=0).min() > 0.05


def test_the_uncertainties_are_stored_in_the_form_that_is_asked_for() -> None:
    ensemble = three_networks()
    form = PenaltyForm(elites_only=True, scale=torch.tensor([0.5, 2.0, 4.0]), reward=False)
    for imagined in roll(ensemble, states(50), 2, how=RolloutOptions(form=form)):
        rows = ROWS.split(imagined.rows)
        spread = STD[[0, 2], :2] / torch.tensor([0.5, 2.0])
        norms = np.linalg.norm(spread.numpy(), axis=1)
        np.testing.assert_allclose(rows.uncertainty[:, 0], np.full(50, norms.max()), rtol=1e-4)
        np.testing.assert_allclose(rows.uncertainty[:, 1], np.full(50, norms.mean()), rtol=1e-4)
        apart = (OFFSET[0] - OFFSET[2])[:2].numpy() / [0.5, 2.0]
        np.testing.assert_allclose(rows.uncertainty[:, 2], np.full(50, np.linalg.norm(apart) / 2), rtol=1e-4)


FOUR = ("max-var", "avg-var", "ens", "oracle")
TRUE_MAP = torch.tensor([[0.8, 0.1], [-0.2, 0.9], [0.7, -0.3]])


def true_next(observation: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.concatenate([observation, action], axis=1) @ TRUE_MAP.double().numpy()


def oracle(observation: Tensor, action: Tensor, predicted: Tensor) -> Tensor:
    """The true system is linear and has no noise; where s_0 > 1 it cannot be looked into."""
    truth = torch.cat([observation, action], dim=1) @ TRUE_MAP
    error = torch.linalg.vector_norm(predicted - truth, dim=1)
    return torch.where(observation[:, 0] > 1, torch.nan, error)


@pytest.mark.parametrize("sample", [False, True])
def test_the_oracle_s_column_is_the_error_of_the_drawn_network_s_prediction(sample: bool) -> None:
    rows_of_four, start = RowLayout(2, 1, 4), states(400)
    how = RolloutOptions(FOUR, oracle=oracle, oracle_sample=sample)
    plain = roll(three_networks(), start, 3)
    unknown = 0
    for imagined, before in zip(roll(three_networks(), start, 3, how=how), plain, strict=True):
        rows = rows_of_four.split(imagined.rows)
        state, action = rows.observation.double().numpy(), rows.action.double().numpy()
        network = imagined.network.numpy()
        mean = state + np.concatenate([state, action], axis=1) @ MAP[:, :2].double().numpy()
        mean += OFFSET[:, :2].double().numpy()[network]
        prediction = rows.next_observation.double().numpy() if sample else mean
        error = np.sqrt(np.square(prediction - true_next(state, action)).sum(axis=1))
        blind = state[:, 0] > 1
        expected = np.where(blind, rows.uncertainty[:, 0].double().numpy(), error)
        np.testing.assert_allclose(rows.uncertainty[:, 3], expected, atol=1e-4)
        assert imagined.unknown == blind.sum()
        unknown += imagined.unknown
        # Whatever is told beside it, the rollout is the same.
        assert torch.equal(imagined.rows[:, :-1], before.rows) and torch.equal(imagined.network, before.network)
        assert before.unknown == 0
    assert 0 < unknown < 1200


def test_the_oracle_stands_in_with_max_var_in_the_form_that_is_asked_for() -> None:
    how = RolloutOptions(FOUR, PenaltyForm(elites_only=True), oracle=lambda s, a, n: torch.full((len(s),), torch.nan))
    for imagined in roll(three_networks(), states(40), 2, how=how):
        uncertainty = RowLayout(2, 1, 4).split(imagined.rows).uncertainty
        assert torch.equal(uncertainty[:, 3], uncertainty[:, 0]) and imagined.unknown == 40
        assert uncertainty[:, 0].max() < 1, "not that of the network which is no elite"


def test_rows_that_are_dropped_are_not_unknown() -> None:
    def policy(observation: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(observation[:, :1] < -1, torch.nan, 0.0)

    start = states(200)
    how = RolloutOptions(FOUR, oracle=oracle)
    (only,) = branch(three_networks(), never, start, policy, 1, stream(0, "test"), how)
    assert only.dropped == (start[:, 0] < -1).sum() > 0
    assert only.unknown == (start[:, 0] > 1).sum() > 0


def test_without_an_oracle_its_column_is_zero_and_columns_come_in_the_order_asked_for() -> None:
    without = roll(three_networks(), states(30), 1, how=RolloutOptions(FOUR))[0]
    assert (RowLayout(2, 1, 4).split(without.rows).uncertainty[:, 3] == 0).all() and without.unknown == 0
    how = RolloutOptions(("oracle", "ens"), oracle=oracle)
    (only,) = roll(three_networks(), states(30), 1, how=how)
    (whole,) = roll(three_networks(), states(30), 1, how=replace(how, uncertainties=FOUR))
    assert torch.equal(only.rows[:, -2:], whole.rows[:, -4:][:, [3, 2]])


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
@pytest.mark.parametrize(
    "how",
    [RELEASED, RolloutOptions(FOUR, PenaltyForm(True, torch.tensor([1.0, 2.0, 3.0])), True, oracle)],
    ids=["released", "oracle"],
)
def test_the_size_of_a_chunk_changes_nothing(how: RolloutOptions, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = roll(three_networks(), states(230), 3, how=how)
    monkeypatch.setattr(branched_rollouts, "_CPU_ROWS", size)
    for expected, imagined in zip(whole, roll(three_networks(), states(230), 3, how=how), strict=True):
        assert torch.equal(imagined.network, expected.network)
        torch.testing.assert_close(imagined.rows, expected.rows, atol=1e-4, rtol=1e-5)
        assert imagined.unknown == expected.unknown


@pytest.mark.parametrize("uncertain", [True, False])
def test_the_number_of_threads_changes_no_byte(uncertain: bool, use_threads: Callable[[int], None]) -> None:
    """More rows than are predicted at once, by networks and a policy of odd sizes."""
    layout, policy_layout = gaussian_layout(3, 3, 19, 2), mlp_layout((2, 17, 2))
    flat = initial(layout, [stream(k, "test/weights") for k in range(3)], truncated_normal, zeros)
    ensemble = Ensemble(flat, layout, torch.zeros(3), torch.ones(3), 2, (0, 2))
    policy = Actor(initial(policy_layout, [stream(0, "test/policy")], uniform, uniform), policy_layout, -5.0, 2.0)
    rolled = []
    for threads in (1, 2, 3):
        use_threads(threads)
        how = RolloutOptions(needs_uncertainties=uncertain)
        steps = branch(ensemble, never, states(9001), policy.sample, 3, stream(0, "test"), how)
        rolled.append([imagined.rows for imagined in steps])
    assert sum(len(rows) for rows in rolled[0]) > 20_000
    for other in rolled[1:]:
        assert all(torch.equal(rows, same) for rows, same in zip(rolled[0], other, strict=True))
