"""What a judge says of policies, beside logged behaviour: several estimators, each checked on what the log knows.

Every estimator also judges behaviour whose return is in the log: all of the other episodes, their worse and their
better third. One that misses such a return has wider intervals by as much; if that is much, it is struck out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.engine.streams import stream
from mopo_cli.errors import InputError
from mopo_cli.evaluation.clone import log_density
from mopo_cli.evaluation.fitted_q import Act, FqeState, Log, TargetPolicy, fqe_values, logged_returns
from mopo_cli.evaluation.model_values import (
    JudgeModel,
    ModelValues,
    Record,
    Tail,
    noise_generator,
    replayed_values,
    values_by_network,
)
from mopo_cli.evaluation.support import support_of
from mopo_cli.evaluation.verdict import (
    MOST_MISSED,
    MOST_OUTSIDE,
    ROUNDING,
    Estimate,
    Verdict,
    importance_estimates,
    interval_over_bootstraps,
    interval_over_critics,
    interval_over_episodes,
    interval_over_networks,
    verdict,
    verdict_of_seeds,
)

CLONE = "clone"
ALL, WORSE, BETTER = SLICES = ("all episodes", "worse third", "better third")
"""Behaviour whose return is known."""
ESTIMATORS = ("fqe", "model")
"""Those that the verdict is made of."""
_NAMES = {"fqe": "fitted Q", "model": "the judge's model"}
EPISODES = 50  # that are imagined per network and policy
_ENOUGH = 10  # effective episodes, below which importance weights mean nothing


@dataclass(frozen=True)
class Judge:
    """What is needed to judge: the judge's log and that of the others, trained critics and a model of the judge's log.

    `fqe` has the policies of `target_policies`, in their order; `policies` are "seed 0", …, and `CLONE`. `knows_ends`:
    whether the model's rule ends the task where the log says that it ended.
    """

    log: Log
    others: Log
    fqe: FqeState
    policies: Mapping[str, Act]
    model: JudgeModel
    horizon: int
    knows_ends: bool = True

    @property
    def gamma(self) -> float:
        """The discount."""
        return self.fqe.gamma

    def tail(self, name: str, critic: int | None = None) -> Tail:
        """What the critics of a policy say on average, or critic number `critic` modulo K."""

        def values(observation: Tensor, action: Tensor) -> Tensor:
            every = self.replicates(name, observation, action)
            return every.mean(dim=0) if critic is None else every[critic % len(every)]

        return values

    def replicates(self, name: str, observation: Tensor, action: Tensor) -> Tensor:
        """The values by every critic of a policy, `[K, n]`."""
        p = [policy.name for policy in self.fqe.policies].index(name)
        return fqe_values(self.fqe, p, observation, action)


def target_policies(log: Log, policies: Mapping[str, Act], gamma: float) -> list[TargetPolicy]:
    """What critics are trained for: every policy, and the logged behaviour with its slices.

    InputError where every record ends after its first step and before the task.
    """
    everywhere = torch.ones_like(log.terminal, dtype=torch.bool)
    asked = [TargetPolicy(name, act(log.next_observation), everywhere) for name, act in policies.items()]
    next_action = torch.cat([log.action[1:], log.action[-1:]])
    followed = (log.steps_left() > 0) | (log.terminal > 0)  # where a record ends, the next action is not in the log
    if not bool(followed.any()):
        raise InputError("Every record of the judge ends after its first step, before the task: nothing follows it.")
    returns = _recorded_returns(log, gamma)
    for name, chosen in slices(returns).items():
        rows = followed & chosen[log.episode]
        asked.append(TargetPolicy(name, next_action, rows if bool(rows.any()) else followed))
    return asked


def slices(returns: Tensor) -> dict[str, Tensor]:
    """Which episodes are in each of `SLICES`, bool `[E]`, by their returns `[E]`."""
    third = max(len(returns) // 3, 1)
    order = returns.argsort(stable=True)
    chosen = {name: torch.zeros_like(returns, dtype=torch.bool) for name in SLICES}
    chosen[ALL][:] = True
    chosen[WORSE][order[:third]] = True
    chosen[BETTER][order[-third:]] = True
    return chosen


def judgement(judge: Judge, seeds: Sequence[str]) -> dict[str, Any]:
    """The floor, the estimates of the clone and of every seed, what the estimators are worth, and the verdict."""
    floor = _floor(judge)
    recorded = float(_recorded_returns(judge.log, judge.gamma).mean())
    calibration = {name: _calibrated(judge, name) for name in SLICES}
    misses = {e: max(checks[e]["misses_by"] for checks in calibration.values()) for e in ESTIMATORS}
    allowed = MOST_MISSED * (calibration[BETTER]["return"]["value"] - calibration[WORSE]["return"]["value"])
    # Of returns that are all equal, or of a single episode, no estimator is known to be right.
    checked = allowed > ROUNDING * abs(floor.value) and isfinite(calibration[ALL]["return"]["low"])
    # A model that does not know where the task ends lets it go on for ever, which its check on the log cannot show.
    struck = [e for e in ESTIMATORS if misses[e] > allowed or not checked or (e == "model" and not judge.knows_ends)]
    support = support_of(judge.log)
    outside = {name: support.outside(act) for name, act in judge.policies.items()}
    estimates = {name: _estimates(judge, name, misses) | {"outside": outside[name]} for name in judge.policies}
    verdicts: dict[str, Verdict] = {}
    for seed in seeds:
        usable = {e: _estimate(estimates[f"seed {seed}"][e]) for e in ESTIMATORS if e not in struck}
        verdicts[seed] = verdict(floor, usable, outside[f"seed {seed}"])
    undiscounted = [float(part.sum()) for part in np.split(_numpy(judge.log.reward), _numpy(judge.log.first)[1:])]
    return {
        "gamma": judge.gamma,
        "episodes": len(judge.log.first),
        "transitions": len(judge.log.reward),
        "floor": {
            "discounted": asdict(floor),
            "recorded": recorded,
            "undiscounted": asdict(interval_over_episodes(undiscounted)),
        },
        "clone": estimates[CLONE],
        "seeds": {seed: estimates[f"seed {seed}"] | {"verdict": verdicts[seed]} for seed in seeds},
        "calibration": calibration,
        "allowed": allowed,
        "struck_out": struck,
        "knows_ends": judge.knows_ends,
        "verdict": verdict_of_seeds(list(verdicts.values())),
    }


def _recorded_returns(log: Log, gamma: float) -> Tensor:
    """The discounted rewards of every episode `[E]`, and nothing for what follows the record."""
    return logged_returns(log, gamma, torch.zeros(len(log.first), device=log.reward.device))[log.first]


def _floor(judge: Judge) -> Estimate:
    """The discounted return of the judge's episodes; critics say what follows a record that ends before the task."""
    log, after = judge.log, _after(judge, judge.log, ALL)
    by_critic = torch.stack([logged_returns(log, judge.gamma, each)[log.first] for each in after])  # [K, E]
    critics = interval_over_bootstraps(_numpy(by_critic.mean(dim=1)))
    return interval_over_episodes(_numpy(by_critic.mean(dim=0))).joined((critics.high - critics.low) / 2)


def _after(judge: Judge, log: Log, name: str) -> Tensor:
    """What every critic of a question says of the time after each record of a log `[K, E]`, 0 where the task ended."""
    last = log.next_observation[log.last]
    return judge.replicates(name, last, judge.policies[CLONE](last)) * (1 - log.terminal[log.last].double())


def _estimates(judge: Judge, name: str, misses: Mapping[str, float]) -> dict[str, Any]:
    """What the estimators say of a policy, with intervals wider by what each misses known returns by.

    Each network of the model goes with another critic, which says what follows, so that the spread of both counts.
    """
    act, log = judge.policies[name], judge.log
    start = log.observation[log.first]
    values = _numpy(judge.replicates(name, start, act(start)))
    imagined = values_by_network(judge.model, some_starts(log), act, lambda k: judge.tail(name, k), judge.horizon)
    model = interval_over_networks(torch.stack([each.value for each in imagined]).cpu().numpy())
    weighted = _weighted(judge, name)
    return {
        "fqe": asdict(interval_over_critics(values).widened(misses["fqe"])),
        "model": asdict(model.widened(misses["model"])) | _cut(imagined),
        "weighted": weighted | {"means_something": weighted["effective"] >= _ENOUGH},
    }


def some_starts(log: Log) -> Tensor:
    """At most `EPISODES` first observations of the log's episodes, from which policies act in the model."""
    start = log.observation[log.first]
    return start[_drawn(len(start), "starts")]


def _calibrated(judge: Judge, name: str) -> dict[str, Any]:
    """What the records of a slice of the other episodes returned, and what every estimator says of it.

    Only what is in the log counts: of a record that ends before the task, critics count what they say of its first step
    less what they say of the time after its last.
    """
    log, ensemble = judge.others, judge.model.ensemble
    returns = _recorded_returns(log, judge.gamma)
    episodes = torch.nonzero(slices(returns)[name])[:, 0]
    first, length = log.first[episodes], (log.last - log.first + 1)[episodes]
    after = _after(judge, log, name)[:, episodes]
    values = judge.replicates(name, log.observation[first], log.action[first])
    fqe = interval_over_bootstraps(_numpy((values - judge.gamma ** length.double() * after).mean(dim=1)))
    some = _drawn(len(episodes), f"calibration/{name}")
    imagined = []
    for k in range(len(ensemble)):
        record = _record(log, episodes[some], after[k % len(after)][some])
        imagined.append(
            replayed_values(judge.model, k, record, judge.tail(name, k), noise_generator(k, log.reward.device))
        )
    model = interval_over_networks(torch.stack([each.value for each in imagined]).cpu().numpy())
    truth, actual = (
        interval_over_episodes(_numpy(returns[episodes])),
        interval_over_episodes(_numpy(returns[episodes][some])),
    )
    return {
        "return": asdict(truth),
        "fqe": asdict(fqe) | {"misses_by": fqe.gap(truth)},
        "model": asdict(model) | {"misses_by": model.gap(actual)} | _cut(imagined),
    }


def _cut(imagined: Sequence[ModelValues]) -> dict[str, float]:
    """Which shares of episodes and steps were cut, in the mean of the networks."""
    return {name: sum(getattr(each, name) for each in imagined) / len(imagined) for name in ("cut", "cut_steps")}


def _record(log: Log, episodes: Tensor, rest: Tensor) -> Record:
    first, last = log.first[episodes], log.last[episodes]
    length = last - first + 1
    steps = torch.arange(int(length.max()), device=length.device)
    rows = torch.minimum(first[:, None] + steps, last[:, None])
    return Record(log.observation[first], log.action[rows], length, rest)


def _weighted(judge: Judge, name: str) -> dict[str, float]:
    """By importance weights: the policy is a Gaussian around its action, as wide as behaviour is around its clone."""
    log, act = judge.log, judge.policies[name]
    behaviour, action = judge.policies[CLONE](log.observation), act(log.observation)
    deviation = (log.action - behaviour).double().square().mean(dim=0).sqrt()
    ratio = log_density(action, log.action, deviation) - log_density(behaviour, log.action, deviation)
    tail, next_action = judge.tail(name), act(log.next_observation)
    next_value = tail(log.next_observation, next_action) * (1 - log.terminal.double())
    return asdict(
        importance_estimates(
            _numpy(ratio),
            _numpy(log.reward.double()),
            q=_numpy(tail(log.observation, log.action)),
            value=_numpy(tail(log.observation, action)),
            next_value=_numpy(next_value),
            first=_numpy(log.first),
            gamma=judge.gamma,
        )
    )


def _estimate(each: Mapping[str, float]) -> Estimate:
    return Estimate(each["value"], each["low"], each["high"])


def _drawn(count: int, what: str) -> Tensor:
    return torch.randperm(count, generator=stream(0, f"judge/{what}"))[:EPISODES]


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return tensor.cpu().numpy()


def sentence(result: Mapping[str, Any]) -> str:
    """The verdict with its numbers."""
    floor, low, high = (result["floor"]["discounted"][key] for key in ("value", "low", "high"))
    if not isfinite(low):
        return f"Not shown to be better than the logged behaviour: the judge has one episode only ({floor:.4g})."
    usable = [e for e in ESTIMATORS if e not in result["struck_out"]]
    if not usable and not isfinite(result["calibration"][ALL]["return"]["low"]):
        return "Not shown to be better than the logged behaviour: beside the judge's episodes there is one only."
    if not usable and high - low <= ROUNDING * abs(floor):
        return f"Not shown to be better than the logged behaviour: all of the judge's episodes return {floor:.4g}."
    if not usable:
        logged = f"{floor:.4g} ({low:.4g} to {high:.4g})"
        return f"Not shown to be better than the logged behaviour, {logged}: no estimator agrees with the log."
    bounds = [each[e][key] for each in result["seeds"].values() for e in usable for key in ("low", "high")]
    values = f"{min(bounds):.4g} to {max(bounds):.4g} by {' and '.join(_NAMES[e] for e in usable)}"
    logged = f"the logged behaviour's {floor:.4g} ({low:.4g} to {high:.4g})"
    what = result["verdict"]
    begin = {"better": "Better than", "worse": "Worse than"}.get(what, "Not shown to be better than")
    outside = max(each["outside"] for each in result["seeds"].values())
    unlike = f"; {outside:.0%} of its actions are unlike the log's in similar states" if outside > MOST_OUTSIDE else ""
    return f"{begin} the logged behaviour: discounted return {values}, {logged}{unlike}."
