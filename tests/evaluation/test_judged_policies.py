"""A judge of policies whose returns are a closed form: intervals, verdicts, and a model that is wrong off the data."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import RolloutOptions
from mopo_cli.dynamics.fit import FitSettings, fitted, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.dynamics.training import advance
from mopo_cli.evaluation import judgement as module
from mopo_cli.evaluation import model_values
from mopo_cli.evaluation.clone import clone_of
from mopo_cli.evaluation.fitted_q import FqeSettings, Log, advance_fqe, start_fqe
from mopo_cli.evaluation.judgement import CLONE, Judge, judgement, sentence, target_policies
from mopo_cli.evaluation.model_values import JudgeModel, data_quantile, policy_values
from mopo_cli.evaluation.verdict import interval_over_episodes

GAMMA, SPREAD, NOISE = 0.95, 0.5, 0.05
EPISODES, STEPS = 30, 25
MODEL = FitSettings(5, 32, 2, 128, 3e-3, (1e-5, 1e-5, 1e-5), 0.2, 1000, 5, 0.01, 20, target_scale="standardised")
FQE = FqeSettings(critics=5, hidden=32, batch_size=128, first_steps=100, steps=700)
POLICIES = {"clone of the log": 0.0, "better": 0.25, "worse": -0.3, "outside": 1.0}
"""Each takes the same action always. The log has actions from -0.5 to 0.5."""


def log_of(rng: np.random.Generator) -> Log:
    """x' = 0.9 x + 0.02 a + noise in two dimensions, with actions at random; the reward is a - x.x."""
    rows: list[tuple[Any, ...]] = []
    for episode in range(EPISODES):
        x = SPREAD * rng.normal(size=2)
        for _ in range(STEPS):
            a = rng.uniform(-0.5, 0.5, 1)
            following = 0.9 * x + 0.02 * a + NOISE * rng.normal(size=2)
            rows.append((x, a, a[0] - x @ x, following, episode))
            x = following
    columns: list[Tensor] = [torch.from_numpy(np.array(column)) for column in zip(*rows, strict=True)]
    observation, action, reward, next_observation = (column.float() for column in columns[:4])
    return Log(observation, action, reward, torch.zeros(len(rows)), next_observation, columns[4])


def value_of(action: float) -> float:
    """The discounted return for ever: the mean of x goes to a / 5, its variance to that of the noise."""
    t = np.arange(2_000)
    mean, variance = action / 5 * (1 - 0.9**t), SPREAD**2 * 0.81**t + NOISE**2 * (1 - 0.81**t) / (1 - 0.81)
    return float(GAMMA**t @ (action - 2 * (mean**2 + variance)))


def constant(action: float) -> Callable[[Tensor], Tensor]:
    return lambda observation: observation.new_full((len(observation), 1), action)


@pytest.fixture(scope="module")
def judge() -> Judge:
    rng = np.random.default_rng(0)
    log, others = log_of(rng), log_of(rng)
    policies = {f"seed {name}": constant(action) for name, action in POLICIES.items()}
    policies[CLONE] = clone_of(others, steps=500).greedy
    fit = start_fit(Examples.of(log.observation, log.action, log.reward, log.next_observation), MODEL, (0,))
    while not fit.done:
        advance(fit, 50)
    ensemble, options = fitted(fit, 0), RolloutOptions()
    fqe = start_fqe(log, target_policies(log, policies, GAMMA), FQE, GAMMA)
    advance_fqe(fqe, FQE.all_steps)

    def never(observation: Tensor, action: Tensor, next_observation: Tensor) -> Tensor:
        return torch.zeros(len(observation), dtype=torch.bool)

    limit = data_quantile(ensemble, log.observation, log.action, options)
    place = JudgeModel(ensemble, never, options, limit, GAMMA)
    return Judge(log, others, fqe, policies, place, 100)


@pytest.fixture(scope="module")
def judged(judge: Judge) -> Any:
    return judgement(judge, list(POLICIES))


@pytest.mark.parametrize("name", ["clone of the log", "better", "worse"])
@pytest.mark.parametrize("estimator", ["fqe", "model"])
def test_intervals_hold_the_closed_form(judged: Any, name: str, estimator: str) -> None:
    estimate = judged["seeds"][name][estimator]
    assert estimate["low"] <= value_of(POLICIES[name]) <= estimate["high"]
    assert estimate["high"] - estimate["low"] < 0.5 * (value_of(0.25) - value_of(-0.3)), "an interval that says little"


def test_verdicts_are_right_and_no_more(judged: Any) -> None:
    verdicts = {name: judged["seeds"][name]["verdict"] for name in POLICIES}
    assert verdicts["better"] == "better" and verdicts["worse"] == "worse"
    assert verdicts["clone of the log"] == "not shown to be better"


def test_a_policy_that_exploits_what_the_model_has_not_seen_is_not_called_better(judged: Any) -> None:
    """The model thinks that a reward of the action goes on beyond the data: off them anything may be true."""
    outside = judged["seeds"]["outside"]
    assert outside["model"]["value"] > judged["floor"]["discounted"]["high"], "nothing to exploit"
    assert outside["verdict"] == "not shown to be better"


@pytest.mark.parametrize(("share", "struck"), [(0.9, []), (1.1, ["fqe"])])
def test_what_misses_the_log_a_little_has_wider_intervals_and_much_has_no_say(
    judge: Judge, judged: Any, monkeypatch: pytest.MonkeyPatch, share: float, struck: list[str]
) -> None:
    """The allowance is a twentieth of what the better and the worse third returned, apart."""
    calibration = judged["calibration"]
    thirds = calibration["better third"]["return"]["value"] - calibration["worse third"]["return"]["value"]
    assert judged["struck_out"] == [] and judged["allowed"] == pytest.approx(0.05 * thirds)
    off, before = share * judged["allowed"], max(checks["fqe"]["misses_by"] for checks in calibration.values())

    def calibrated(_: Judge, name: str) -> Any:
        return calibration[name] | {
            "fqe": calibration[name]["fqe"] | {"misses_by": off if name == "worse third" else 0.0}
        }

    monkeypatch.setattr(module, "_calibrated", calibrated)
    again = judgement(judge, list(POLICIES))
    assert again["struck_out"] == struck
    for name in POLICIES:
        one, other = judged["seeds"][name]["fqe"], again["seeds"][name]["fqe"]
        assert other["value"] == one["value"]
        assert other["high"] - one["high"] == pytest.approx(off - before)
        assert one["low"] - other["low"] == pytest.approx(off - before)


def part_of(log: Log, episodes: int) -> Log:
    """The first episodes of a log."""
    rows = log.episode < episodes
    return Log(**{column.name: getattr(log, column.name)[rows] for column in fields(Log)})


def test_an_estimator_that_nothing_checks_has_no_say(judge: Judge) -> None:
    """One other episode has a return, but not how far such returns vary: an estimator cannot miss it."""
    result = judgement(replace(judge, others=part_of(judge.others, 1)), list(POLICIES))
    assert result["struck_out"] == ["fqe", "model"] and result["verdict"] == "not shown to be better"
    assert {each["verdict"] for each in result["seeds"].values()} == {"not shown to be better"}
    assert sentence(result).endswith("beside the judge's episodes there is one only.")
    assert judgement(replace(judge, others=part_of(judge.others, 2)), list(POLICIES))["struck_out"] == []


def test_how_much_of_the_floor_is_in_the_log_is_kept(judge: Judge, judged: Any) -> None:
    rewards = judge.log.reward.double().numpy().reshape(EPISODES, STEPS)
    assert judged["floor"]["recorded"] == pytest.approx((rewards @ GAMMA ** np.arange(STEPS)).mean())
    assert abs(judged["floor"]["recorded"] - judged["floor"]["discounted"]["value"]) > 0.1, (
        "records end before the task"
    )


def test_what_critics_say_of_the_rest_counts_with_how_much_they_differ(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where records end early, most of a value is what critics say: network k goes with critic k, counted round."""
    tails: list[Tensor] = []
    first = judge.log.observation[judge.log.first]
    action = judge.policies["seed better"](first)

    def noted(place: JudgeModel, network: int, start: Tensor, act: Any, tail: Any, *others: Any) -> Any:
        tails.append(tail(first, action))
        return policy_values(place, network, start, act, tail, *others)

    monkeypatch.setattr(model_values, "policy_values", noted)
    short = judgement(replace(judge, horizon=5), ["better"])["seeds"]["better"]["model"]
    critics = judge.replicates("seed better", first, action)
    before = len(judge.model.ensemble) * list(judge.policies).index("seed better")
    assert torch.equal(torch.stack(tails[before : before + len(critics)]), critics)
    assert short["low"] <= value_of(POLICIES["better"]) <= short["high"]


def test_the_floor_s_interval_holds_what_critics_differ_by(judge: Judge, judged: Any) -> None:
    """Independent errors add up in squares: of the episodes' mean, and of five critics (Student's t: 2.776)."""
    last = judge.log.next_observation[judge.log.last]
    after = judge.replicates(module.ALL, last, judge.policies[CLONE](last)).numpy()
    rewards = judge.log.reward.double().numpy().reshape(EPISODES, STEPS)
    returns = rewards @ GAMMA ** np.arange(STEPS) + GAMMA**STEPS * after  # [critics, episodes]
    alone, half = interval_over_episodes(returns.mean(axis=0)), 2.776 * returns.mean(axis=1).std(ddof=1)
    floor = judged["floor"]["discounted"]
    assert floor["value"] == pytest.approx(returns.mean())
    assert floor["high"] - floor["value"] == pytest.approx(np.hypot(alone.high - alone.value, half), rel=1e-3)
    assert floor["value"] - floor["low"] == pytest.approx(np.hypot(alone.value - alone.low, half), rel=1e-3)
