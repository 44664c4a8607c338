"""When a warning comes, and what it says."""

from typing import Any

import pytest
import torch

from mopo_cli.dynamics.branched_rollouts import ENDS
from mopo_cli.report.alarms import branches_alarm, guard_remark, model_alarm
from mopo_cli.stages.common.alarms import rescale_hint
from mopo_cli.stages.common.inputs import Data


def dimensions(*explained: float | None) -> list[dict[str, Any]]:
    """Targets with these shares of explained variance; None for one that does not vary."""
    return [{"std": 0.0 if e is None else 2.0, "explained_variance": e or 0.0} for e in explained]


@pytest.mark.parametrize(
    ("explained", "said"),
    [
        ((0.9, 0.8, 0.7), None),
        ((0.9, -0.1), None),  # a half is not most
        ((0.9, -0.1, 0.0), "For 2 of 3 targets"),
        ((0.9, None, None, None), None),  # what never varies cannot be explained, and need not be
        ((-0.5, None, None), "For 1 of 1 targets"),
        ((float("nan"), float("nan"), 0.9), "For 2 of 3 targets"),
        ((None, None), None),
    ],
)
def test_a_model_that_explains_nothing_of_most_targets_is_told(explained: Any, said: str | None) -> None:
    for scale, helps in (("raw", "rescale columns"), ("standardised", "train longer (--max-epochs, --patience)")):
        alarm = model_alarm(dimensions(*explained), scale)
        assert (alarm is None) == (said is None)
        if alarm and said:
            assert alarm.startswith(said) and "no better than their mean change" in alarm
            assert f"What usually helps: {helps}" in alarm


@pytest.mark.parametrize(
    ("ended_first_step", "said", "advice"),
    [
        ({"terminated": 0.9}, None, None),
        ({"terminated": 0.45, "guarded": 0.46}, "91% of the branches", "far from all data"),
        ({"terminated": 0.95, "guarded": 0.02}, "97% of the branches", "mopo fetch-data --check"),
        ({"halted": 0.99}, "(99% by the networks' discrepancy)", "--pessimism"),
        ({"dropped": 1.0}, "(100% as numbers that are not finite)", "overflow"),
        ({}, None, None),
    ],
)
def test_branches_that_end_at_once_are_told_with_their_cause(
    ended_first_step: dict[str, float], said: str | None, advice: str | None
) -> None:
    alarm = branches_alarm(ended_first_step)
    assert (alarm is None) == (said is None)
    if alarm and said and advice:
        assert said in alarm and advice in alarm


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_all_branches_at_once_is_told(end: str) -> None:
    assert "100% of the branches" in str(branches_alarm({end: 1.0}))


def test_how_guarded_rows_are_taken() -> None:
    assert "every later step counts as the data's least reward, -7.25." in guard_remark(-7.25)
    assert "counts as 0, as no reward is negative." in guard_remark(0.5)


def data(observation: float = 1.0, reward: float = 1.0) -> Data:
    column = torch.tensor([0.5, reward])
    states = torch.tensor([[0.1, 0.2], [observation, -0.3]])
    return Data(None, None, states, column[:, None], column, column, states)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (data(observation=9e5, reward=-9e5), None),
        (data(observation=-2e7, reward=3e6), "the largest observation is 2.0e+07"),
        (data(reward=-1e6), "the largest reward is 1.0e+06"),
    ],
)
def test_huge_values_are_to_be_rescaled_and_nothing_else(held: Data, said: str | None) -> None:
    hint = rescale_hint(held)
    assert (hint is None) == (said is None)
    assert said is None or (hint is not None and hint.startswith("rescale the data's columns: ") and said in hint)
    # Where observations are standardised, only the reward's size counts.
    other = rescale_hint(held, standardised=True)
    assert (other is not None) == bool(held.reward.abs().amax() >= 1e6) and "observation" not in str(other)
