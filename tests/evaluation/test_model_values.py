"""Returns in a linear model are those of a closed form; what leaves the data is worth what the critics say."""

import math

import pytest
import torch
from probes.linear import linear_ensemble
from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import RolloutOptions
from mopo_cli.evaluation.model_values import JudgeModel, Record, data_quantile, policy_values, replayed_values

GAMMA = 0.9


def never(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
    return torch.zeros(len(observation), dtype=torch.bool)


def place(limit: float = math.inf, rule: object = never, step: float = 1.0) -> JudgeModel:
    """Two networks: x' = x + step + a, the reward is x, or 10 x in the second; next to no noise."""
    maps = torch.tensor([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 10.0], [1.0, 0.0]]])
    offset, std = torch.tensor([[step, 0.0]] * 2), torch.full((2, 2), 1e-8)
    ensemble = linear_ensemble(maps, offset, std, (0, 1))
    return JudgeModel(ensemble, rule, RolloutOptions(), limit, GAMMA)  # type: ignore[arg-type]


def tail(observation: Tensor, action: Tensor) -> Tensor:
    return 1000.0 * observation[:, 0].double()


def still(observation: Tensor) -> Tensor:
    return torch.zeros(len(observation), 1)


START = torch.tensor([[0.0], [3.0]])


@pytest.mark.parametrize(("network", "factor"), [(0, 1), (1, 10)])
def test_an_episode_is_summed_in_one_network_and_the_rest_is_the_tail(network: int, factor: float) -> None:
    values = policy_values(place(), network, START, still, tail, 5, torch.Generator())
    for start, value in zip((0.0, 3.0), values.value.tolist(), strict=True):
        expected = sum(GAMMA**t * factor * (start + t) for t in range(5)) + GAMMA**5 * 1000 * (start + 5)
        assert value == pytest.approx(expected, rel=1e-5)
    assert values.cut == 0


def test_an_end_of_the_task_has_no_tail() -> None:
    def rule(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        return next_observation[:, 0] > 3.5

    values = policy_values(place(rule=rule), 0, START, still, tail, 50, torch.Generator())
    assert values.value.tolist() == pytest.approx([0 + 0.9 * 1 + 0.81 * 2 + 0.729 * 3, 3.0], rel=1e-5)


def test_what_leaves_the_data_is_cut_before_the_step() -> None:
    """All steps are as uncertain, so that nothing is made, or everything."""
    uncertain = data_quantile(place().ensemble, START, torch.zeros(2, 1), RolloutOptions())
    cut = policy_values(place(uncertain / 2), 0, START, still, tail, 50, torch.Generator())
    assert cut.value.tolist() == pytest.approx([0.0, 3000.0]) and (cut.cut, cut.cut_steps) == (1, 1)
    made = policy_values(place(uncertain * 2), 0, START, still, tail, 50, torch.Generator())
    assert (made.cut, made.cut_steps) == (0, 0)


def test_a_state_that_is_none_is_cut_too() -> None:
    """The guard: a step of 200 leaves every plausible range at once."""
    values = policy_values(place(step=200.0), 0, START, still, tail, 50, torch.Generator())
    assert values.value.tolist() == pytest.approx([0.0, 3000.0]) and (values.cut, values.cut_steps) == (1, 1)


def test_the_share_of_steps_is_of_those_that_were_begun() -> None:
    """The first start leaves the plausible range in its fourth step, the second in its third; both are then cut."""

    def act(observation: Tensor) -> Tensor:
        return torch.where(observation[:, :1] > 4, 500.0, 0.0)

    starts = torch.tensor([[2.0], [3.0]])
    values = policy_values(place(), 0, starts, act, tail, 50, torch.Generator())
    assert (values.cut, values.cut_steps) == (1, 2 / 7)


def test_a_record_is_replayed_by_its_actions_and_ends_with_them() -> None:
    action = torch.tensor([[[0.5], [0.5], [0.5]], [[-1.0], [-1.0], [9.0]]])
    record = Record(START, action, torch.tensor([3, 2]), torch.tensor([0.0, 7.0], dtype=torch.float64))
    values = replayed_values(place(), 0, record, tail, torch.Generator())
    first = 0 + 0.9 * 1.5 + 0.81 * 3
    assert values.value.tolist() == pytest.approx([first, 3 + 0.9 * 3], rel=1e-5)


def test_a_replayed_record_that_leaves_the_data_is_cut() -> None:
    """It is worth what the tail says from there on, less what it says of the time after the record."""
    record = Record(START, torch.zeros(2, 4, 1), torch.tensor([4, 3]), torch.tensor([0.0, 100.0], dtype=torch.float64))
    values = replayed_values(place(-1.0), 0, record, tail, torch.Generator())
    assert values.value.tolist() == pytest.approx([0.0, 3000.0 - 0.9**3 * 100]) and values.cut == 1
