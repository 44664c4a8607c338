"""What critics are asked, which episodes are good and bad ones, and what the verdict's sentence says."""

from math import inf

import pytest
import torch

from mopo_cli.errors import InputError
from mopo_cli.evaluation.fitted_q import Log, logged_returns
from mopo_cli.evaluation.judgement import ALL, BETTER, EPISODES, WORSE, _drawn, sentence, slices, target_policies

LENGTHS = (3, 2, 1, 2, 3, 4)


CHECKED = {ALL: {"return": {"value": 0.5, "low": 0.25, "high": 0.75}}}


def log() -> Log:
    """Episodes of these lengths; the second and the last end by a terminal. Actions are the rows' numbers."""
    count = sum(LENGTHS)
    number = torch.arange(count, dtype=torch.float32)
    episode = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    terminal = torch.zeros(count)
    terminal[[4, 14]] = 1
    reward = torch.tensor([5.0, 1, 3, 2, 6, 4])[episode]
    return Log(number[:, None], number[:, None], reward, terminal, number[:, None] + 0.5, episode)


def test_behaviour_takes_the_next_logged_action_and_a_policy_its_action() -> None:
    asked = {question.name: question for question in target_policies(log(), {"seed 0": lambda seen: -seen}, 0.0)}
    assert list(asked) == ["seed 0", ALL, WORSE, BETTER]
    assert torch.equal(asked["seed 0"].next_action, -log().next_observation) and bool(asked["seed 0"].rows.all())
    behaviour = asked[ALL]
    # Where a record ends and the task does not, the next action is not in the log.
    assert torch.nonzero(~behaviour.rows)[:, 0].tolist() == [2, 5, 7, 10]
    followed = torch.nonzero(behaviour.rows & (log().terminal == 0))[:, 0]
    assert torch.equal(behaviour.next_action[followed, 0], followed + 1.0)
    # With gamma = 0 a return is the first reward.
    assert {log().episode[asked[WORSE].rows].tolist()[k] for k in (0, -1)} == {1, 3}
    assert {*log().episode[asked[BETTER].rows].tolist()} == {0, 4}


@pytest.mark.parametrize(("episodes", "third"), [(4, 1), (6, 2), (100, 33)])
def test_slices_are_thirds_by_return(episodes: int, third: int) -> None:
    returns = torch.randn(episodes, generator=torch.Generator().manual_seed(0))
    chosen = slices(returns)
    order = returns.sort().values
    assert torch.equal(returns[chosen[WORSE]].sort().values, order[:third])
    assert torch.equal(returns[chosen[BETTER]].sort().values, order[-third:])
    assert bool(chosen[ALL].all()) and len(logged_returns(log(), 0.9)) == 15


@pytest.mark.parametrize(
    ("verdict", "struck", "begins"),
    [
        ("better", [], "Better than the logged behaviour: discounted return -1 to 4 by fitted Q and the judge's model"),
        ("worse", ["fqe"], "Worse than the logged behaviour: discounted return 1 to 4 by the judge's model"),
        (
            "not shown to be better",
            ["fqe", "model"],
            "Not shown to be better than the logged behaviour, 0.5 (0.25 to 0.75): no",
        ),
    ],
)
def test_the_sentence_has_the_numbers_of_the_estimators_that_count(
    verdict: str, struck: list[str], begins: str
) -> None:
    floor = {"discounted": {"value": 0.5, "low": 0.25, "high": 0.75}}
    seed = {"fqe": {"value": 0, "low": -1, "high": 1}, "model": {"value": 2, "low": 1, "high": 4}, "outside": 0.1}
    result = {"floor": floor, "calibration": CHECKED, "struck_out": struck, "verdict": verdict}
    said = sentence(result | {"seeds": {"0": seed}})
    assert said.startswith(begins) and "0.5 (0.25 to 0.75)" in said and "unlike" not in said
    seeds = {"0": seed, "1": seed | {"outside": 0.345}}
    said = sentence(result | {"seeds": seeds})
    assert len(struck) == 2 or said.endswith("; 34% of its actions are unlike the log's in similar states.")


def test_the_sentence_of_one_episode_has_no_infinite_numbers() -> None:
    everything = {"value": 0.5, "low": -inf, "high": inf}
    seed = {"fqe": everything, "model": everything, "outside": 0.1}
    result = {"floor": {"discounted": everything}, "seeds": {"0": seed}, "struck_out": []}
    said = sentence(result | {"verdict": "not shown to be better"})
    assert said == "Not shown to be better than the logged behaviour: the judge has one episode only (0.5)."


def test_the_sentence_of_equal_episodes_says_that_they_are() -> None:
    """There nothing tells whether an estimator is right."""
    floor = {"value": 100.0, "low": 100.0 - 1e-14, "high": 100.0}
    seed = {"fqe": floor, "model": floor, "outside": 0.1}
    result = {"floor": {"discounted": floor}, "seeds": {"0": seed}, "struck_out": ["fqe", "model"]}
    said = sentence(result | {"calibration": CHECKED, "verdict": "not shown to be better"})
    assert said == "Not shown to be better than the logged behaviour: all of the judge's episodes return 100."


@pytest.mark.parametrize(("count", "some"), [(30, 30), (80, EPISODES)])
def test_no_start_counts_twice(count: int, some: int) -> None:
    """Else the spread of few starts would be divided by more of them than there are."""
    drawn = _drawn(count, "starts").tolist()
    assert len(set(drawn)) == len(drawn) == some and set(drawn) <= set(range(count))


def records(lengths: tuple[int, ...]) -> Log:
    """Episodes of these lengths, none of which ends by a terminal; the shorter, the lower are their rewards."""
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    number = torch.arange(float(len(episode)))[:, None]
    reward = torch.tensor([float(length) for length in lengths])[episode]
    return Log(number, number, reward, torch.zeros(len(episode)), number + 0.5, episode)


def test_critics_of_a_slice_of_single_steps_learn_from_what_is_followed() -> None:
    asked = {policy.name: policy for policy in target_policies(records((1, 1, 4, 5, 4, 5)), {}, 0.9)}
    assert torch.nonzero(asked[WORSE].rows)[:, 0].tolist() == torch.nonzero(asked[ALL].rows)[:, 0].tolist()
    with pytest.raises(InputError, match="ends after its first step"):
        target_policies(records((1, 1, 1)), {}, 0.9)
