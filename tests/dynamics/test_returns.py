"""Returns in an ensemble whose every prediction is known: sums, discount, penalty, ends, in float64 by hand."""

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.linear import linear_ensemble
from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutOptions, TerminationRule, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.episodes import ModelReturns, model_returns
from mopo_cli.dynamics.penalties import ORACLE, penalty_weights
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.tasks.expression import expression_reward, expression_rule
from mopo_cli.tasks.termination import never

# (s, a) -> (change of s, r) of three networks. Only network 0 generates, and its noise is nothing.
MAPS = torch.tensor(
    [
        [[-0.1, 0.0, 1.0], [0.2, -0.3, 0.5], [0.5, -0.4, 0.3]],
        [[0.3, 0.1, 0.0], [0.0, 0.2, 0.5], [-0.5, 0.4, 0.3]],
        [[-0.2, 0.4, 1.0], [0.1, 0.1, 0.5], [0.2, 0.2, 0.3]],
    ]
)
OFFSET = torch.tensor([[0.3, -0.2, 0.4], [0.1, 0.0, -0.4], [-0.1, 0.5, 0.0]])
STD = torch.tensor([[1e-9, 1e-9, 1e-9], [0.3, 0.4, 1.2], [0.1, 0.2, 0.2]])
GAMMA = 0.9


def three_networks(std: Tensor = STD, elites: tuple[int, ...] = (0,)) -> Ensemble:
    return linear_ensemble(MAPS, OFFSET, std, elites)


def linear_policy(observation: Tensor, _: torch.Generator) -> Tensor:
    return 0.5 * observation[:, :1] - 0.2


def starts(count: int) -> Tensor:
    return torch.randn(count, 2, generator=stream(0, "test/starts"))


def returns(
    start: Tensor, horizon: int, rule: TerminationRule = never, gamma: float = GAMMA, policy: Any = linear_policy
) -> ModelReturns:
    return model_returns(three_networks(), rule, start, policy, horizon, gamma, stream(1, "test/returns"))


def by_hand(start: NDArray[np.float64], horizon: int, limit: float = np.inf) -> dict[str, NDArray[np.float64]]:
    """Rows of sums, (discounted or not) x (r, max-var, avg-var, ens), and the length, episode by episode."""
    maps, offset, std = (tensor.double().numpy() for tensor in (MAPS, OFFSET, STD))
    norms = np.sqrt((std**2).sum(axis=1))
    out: dict[str, list[Any]] = {"total": [], "discounted": [], "length": []}
    for state in start:
        total, discounted, length = np.zeros(4), np.zeros(4), 0
        for t in range(horizon):
            x = np.append(state, 0.5 * state[0] - 0.2)
            predictions = x @ maps + offset
            spread = predictions[:, :2] - predictions[:, :2].mean(axis=0)
            row = np.array([predictions[0, 2], norms.max(), norms.mean(), np.sqrt((spread**2).sum(axis=1)).max()])
            total, discounted, length = total + row, discounted + GAMMA**t * row, length + 1
            state = state + predictions[0, :2]
            if state[0] > limit:
                break
        out["total"].append(total)
        out["discounted"].append(discounted)
        out["length"].append(length)
    return {name: np.array(values) for name, values in out.items()}


def check(came: ModelReturns, expected: dict[str, NDArray[np.float64]]) -> None:
    for kind in ("total", "discounted"):
        sums = getattr(came, kind)
        assert sums.reward.dtype == sums.uncertainty.dtype == torch.float64
        np.testing.assert_allclose(sums.reward.numpy(), expected[kind][:, 0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(sums.uncertainty.numpy(), expected[kind][:, 1:], rtol=1e-4, atol=1e-4)
    assert came.length.tolist() == expected["length"].tolist()


@pytest.mark.parametrize("horizon", [1, 2, 12])
def test_sums_equal_a_hand_written_loop(horizon: int) -> None:
    start = starts(7)
    came = returns(start, horizon)
    check(came, by_hand(start.double().numpy(), horizon))
    assert (came.terminated, came.guarded, came.dropped, came.unknown) == (0, 0, 0, 0)


def test_an_episode_that_the_rule_ends_earns_its_last_step_and_no_more() -> None:
    def rule(_: Tensor, __: Tensor, next_observation: Tensor) -> Tensor:
        return next_observation[:, 0] > 1.0

    start = 2 * starts(40)
    expected = by_hand(start.double().numpy(), 10, limit=1.0)
    came = returns(start, 10, rule)
    check(came, expected)
    assert len(set(came.length.tolist())) > 3, "episodes end at different times"
    last = expected["length"] == 10
    ended_last = came.terminated * 40 - (~last).sum()
    assert 0 <= ended_last <= last.sum() and 0 < came.terminated < 1


@pytest.mark.parametrize(("penalty", "lam"), [*product(RELEASED.uncertainties, [0.0, 0.7, 5.0]), ("none", 3.0)])
def test_the_penalised_return_is_the_sum_of_r_minus_lambda_u(penalty: str, lam: float) -> None:
    start = starts(5)
    came, expected = returns(start, 8), by_hand(start.double().numpy(), 8)
    column = {"none": None, **{name: 1 + u for u, name in enumerate(RELEASED.uncertainties)}}[penalty]
    for kind in ("total", "discounted"):
        off = lam * expected[kind][:, column] if column is not None else 0.0
        penalised = getattr(came, kind).penalised(penalty_weights(penalty, lam, RELEASED.uncertainties))
        np.testing.assert_allclose(penalised.numpy(), expected[kind][:, 0] - off, rtol=1e-4, atol=1e-4)


def test_the_discount_at_its_ends() -> None:
    start = starts(6)
    one = returns(start, 5, gamma=1.0)
    assert torch.equal(one.discounted.reward, one.total.reward)
    assert torch.equal(one.discounted.uncertainty, one.total.uncertainty)
    none, first = returns(start, 5, gamma=0.0), returns(start, 1)
    assert torch.equal(none.discounted.reward, first.total.reward)
    assert torch.equal(none.total.reward, one.total.reward)


def test_a_rollout_that_breaks_off_leaves_the_others_their_own_sums() -> None:
    """Rows die by a number that is not finite, each at its own step; those that stay must not change places."""
    start = starts(30)
    plain = returns(start, 6)
    # The policy goes astray in the states that these episodes are in at these steps.
    fatal = {3: 0, 4: 2, 11: 2, 29: 5}
    visited = [rows.clone() for rows in _observations(start, 6)]
    marked = torch.stack([visited[step][row] for row, step in fatal.items()])

    def astray(observation: Tensor, generator: torch.Generator) -> Tensor:
        action = linear_policy(observation, generator)
        action[((observation[:, None] - marked).abs() < 1e-5).all(dim=-1).any(dim=1)] = torch.nan
        return action

    came = returns(start, 6, policy=astray)
    assert came.length.tolist() == [fatal.get(row, 6) for row in range(30)]
    assert came.dropped == pytest.approx(4 / 30)
    kept = [row for row in range(30) if row not in fatal]
    torch.testing.assert_close(came.total.reward[kept], plain.total.reward[kept], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(came.discounted.uncertainty[kept], plain.discounted.uncertainty[kept])
    for row, step in fatal.items():
        until = by_hand(start[row : row + 1].double().numpy(), step)
        assert came.total.reward[row].item() == pytest.approx(until["total"][0, 0], rel=1e-4)


def _observations(start: Tensor, horizon: int) -> list[Tensor]:
    steps = branch(three_networks(), never, start, linear_policy, horizon, stream(1, "test/returns"))
    return [RowLayout(2, 1, 3).split(imagined.rows).observation for imagined in steps]


def test_the_guard_s_share_is_told_apart_from_the_rule_s() -> None:
    still = linear_ensemble(torch.zeros(1, 3, 3), torch.tensor([[0.0, 0.0, 2.0]]), torch.full((1, 3), 1e-9), (0,))
    start = torch.tensor([[0.0, 0.0], [101.0, 0.0], [50.0, 0.0], [0.0, -101.0]])

    def rule(_: Tensor, __: Tensor, next_observation: Tensor) -> Tensor:
        return (next_observation[:, 0] > 10) & (next_observation[:, 0] < 60)

    came = model_returns(still, rule, start, linear_policy, 3, 0.5, stream(0, "test"))
    assert (came.terminated, came.guarded, came.dropped) == (0.25, 0.5, 0)
    assert came.length.tolist() == [3, 1, 1, 1]
    assert came.total.reward.tolist() == pytest.approx([6, 2, 2, 2])
    assert came.discounted.reward.tolist() == pytest.approx([3.5, 2, 2, 2])


@pytest.mark.parametrize("gamma", [0.5, 1.0])
@pytest.mark.parametrize("least", [-3.0, 0.0, 2.0])
def test_what_leaves_every_range_or_is_not_finite_earns_the_least_reward_to_the_horizon(
    gamma: float, least: float
) -> None:
    """One goes all the way, the rule ends one, the guard one at its second step, and a NaN one at its third."""
    move = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 60.0, 0.0]]])  # the action moves the second entry
    model = linear_ensemble(move, torch.tensor([[1.0, 0.0, -2.0]]), torch.full((1, 3), 1e-9), (0,))
    start = torch.tensor([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0], [30.0, 0.0]])

    def rule(_: Tensor, __: Tensor, next_observation: Tensor) -> Tensor:
        return (next_observation[:, 0] > 10.5) & (next_observation[:, 0] < 15)

    def policy(observation: Tensor, _: torch.Generator) -> Tensor:
        action = torch.zeros(len(observation), 1)
        action[(observation[:, 0] - 20).abs() < 5] = 1.0
        action[(observation[:, 0] - 32).abs() < 0.5] = torch.nan
        return action

    came = model_returns(model, rule, start, policy, 6, gamma, stream(0, "test"), least=least)
    assert came.length.tolist() == [6, 1, 2, 2]
    assert (came.terminated, came.guarded, came.dropped) == (0.25, 0.25, 0.25)
    paid = min(0.0, least)
    steps = [[-2.0] * 6, [-2.0], [-2.0] * 2 + [paid] * 4, [-2.0] * 2 + [paid] * 4]
    assert came.total.reward.tolist() == pytest.approx([sum(rewards) for rewards in steps], abs=1e-5)
    worth = [sum(gamma**t * reward for t, reward in enumerate(rewards)) for rewards in steps]
    assert came.discounted.reward.tolist() == pytest.approx(worth, abs=1e-5)


def test_the_mean_over_noise_and_elites_is_the_linear_system_s() -> None:
    """E[s'] and E[r] of a linear system need only the mean state, whatever the noise and whoever is drawn."""
    count, elites = 20_000, (0, 2)
    std = torch.tensor([[0.3, 0.2, 0.5], [9.0, 9.0, 9.0], [0.1, 0.4, 0.2]])
    start = torch.tensor([0.4, -0.3]).repeat(count, 1)
    came = model_returns(three_networks(std, elites), never, start, linear_policy, 4, GAMMA, stream(2, "test"))
    maps, offset = (tensor[list(elites)].double().numpy().mean(axis=0) for tensor in (MAPS, OFFSET))
    state, expected = np.array([0.4, -0.3]), 0.0
    for t in range(4):
        change = np.append(state, 0.5 * state[0] - 0.2) @ maps + offset
        state, expected = state + change[:2], expected + GAMMA**t * change[2]
    spread = came.discounted.reward.std().item() / count**0.5
    assert came.discounted.reward.mean().item() == pytest.approx(expected, abs=5 * spread)
    assert spread < 0.02


def test_the_reward_may_be_the_mean_and_the_oracle_s_ignorance_is_counted() -> None:
    def oracle(observation: Tensor, _: Tensor, __: Tensor) -> Tensor:
        return torch.where(observation[:, 0] > 0, 0.25, torch.nan)

    std = torch.tensor([[1e-9, 1e-9, 3.0], [0.3, 0.4, 1.2], [0.1, 0.2, 0.2]])
    how = RolloutOptions((*RELEASED.uncertainties, ORACLE), reward_mean=True, oracle=oracle)
    start = starts(50)
    came = model_returns(three_networks(std), never, start, linear_policy, 1, GAMMA, stream(3, "test"), how)
    np.testing.assert_allclose(came.total.reward, by_hand(start.double().numpy(), 1)["total"][:, 0], rtol=1e-5)
    unknown = start[:, 0] <= 0
    assert came.unknown == pytest.approx(unknown.double().mean().item()) and 0 < came.unknown < 1
    stand_in = came.total.uncertainty[:, 0]
    expected = torch.where(unknown, stand_in, 0.25)
    torch.testing.assert_close(came.total.uncertainty[:, 3], expected.double())


def test_the_same_stream_gives_the_same_returns_and_start_states_do_not_depend_on_one_another() -> None:
    start = starts(9)
    a, b = returns(start, 6), returns(start, 6)
    assert torch.equal(a.total.reward, b.total.reward) and torch.equal(a.discounted.reward, b.discounted.reward)
    backwards = returns(start.flip(0), 6)
    torch.testing.assert_close(backwards.total.reward.flip(0), a.total.reward, rtol=1e-5, atol=1e-5)


def test_a_reward_and_a_rule_that_count_steps_in_the_model() -> None:
    """The states are those of the model, the rewards those of the rule, and branches end after their fifth step."""
    start, begun = starts(4), torch.tensor([0, 3, 4, 1])
    reward = expression_reward("10 * step + obs[0] - next_obs[1] + action[0]", ([-2.0], [2.0]))
    options = replace(RELEASED, reward=reward)
    layout, seen = RowLayout(2, 1, len(options.uncertainties)), 0
    steps = branch(
        three_networks(), expression_rule("step >= 5"), start, linear_policy, 9, stream(0, "t"), options, begun
    )
    for imagined in steps:
        row = layout.split(imagined.rows)
        count = begun[imagined.start] + imagined.step + 1
        expected = 10 * count + row.observation[:, 0] - row.next_observation[:, 1] + 2 * row.action[:, 0]
        torch.testing.assert_close(row.reward, expected, rtol=0, atol=1e-5)
        assert torch.equal(row.terminal > 0, count >= 5)
        seen += len(row.reward)
    assert seen == 5 + 2 + 1 + 4
