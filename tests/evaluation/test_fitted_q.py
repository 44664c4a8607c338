"""Critics learn the exact values of small processes, each from whole episodes, and the same ones after a stop."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.evaluation.fitted_q import (
    FqeSettings,
    FqeState,
    Log,
    TargetPolicy,
    advance_fqe,
    fqe_checkpoint,
    fqe_values,
    logged_returns,
    restore_fqe,
    return_bounds,
    start_fqe,
)
from mopo_cli.nets.perceptron import evaluate

TINY = FqeSettings(critics=3, hidden=16, batch_size=32, first_steps=20, steps=40)
GAMMA = 0.9


def make_log(lengths: tuple[int, ...] = (4, 1, 7, 3), seed: int = 0) -> Log:
    """Random rows; every second episode ends by a terminal."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    observation, following = torch.randn(2, count, 2, generator=generator)
    terminal = torch.zeros(count)
    terminal[torch.tensor(lengths).cumsum(0)[::2] - 1] = 1
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    reward = torch.randn(count, generator=generator)
    return Log(observation, observation[:, :1], reward, terminal, following, episode)


def ask(log: Log, name: str = "policy") -> TargetPolicy:
    return TargetPolicy(name, log.next_observation[:, 1:], torch.ones(len(log.reward), dtype=torch.bool))


def test_logged_returns_are_those_of_a_loop() -> None:
    log, tail = make_log(), torch.tensor([5.0, 6.0, 7.0, 8.0])
    expected, after = np.empty(15), 0.0
    for row in reversed(range(15)):
        if row in (3, 4, 11, 14):
            after = 0.0 if log.terminal[row] else float(tail[log.episode[row]])
        after = float(log.reward[row]) + GAMMA * after
        expected[row] = after
    np.testing.assert_allclose(logged_returns(log, GAMMA, tail), expected, rtol=1e-6)
    endless = logged_returns(replace(log, reward=torch.full((15,), 2.0), terminal=torch.zeros(15)), GAMMA)
    np.testing.assert_allclose(endless, 20.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("rewards", "gamma", "bounds"),
    [([1.0, 2.0], 0.9, (1.0, 20.0)), ([-1.0, 2.0], 0.5, (-2.0, 4.0)), ([-3.0, -1.0], 1.0, (-30.0, -1.0))],
)
def test_no_return_is_out_of_what_rewards_allow(
    rewards: list[float], gamma: float, bounds: tuple[float, float]
) -> None:
    """An episode may end after its first step."""
    assert return_bounds(torch.tensor(rewards), gamma, 10) == pytest.approx(bounds)


def chain() -> tuple[Log, Tensor, Tensor]:
    """A process of three states and two actions, its log, a policy's actions by state, and its exact Q `[3, 2]`.

    Action 1 goes on with probability 0.8, action 0 stays; the third state's action 1 ends the task. States are one-hot.
    """
    go = torch.tensor([[0.0, 0.8], [0.0, 0.8], [0.0, 0.8]])  # [state, action]
    reward = torch.tensor([[0.1, 0.0], [0.2, -0.1], [0.0, 1.0]])
    policy = torch.tensor([1, 1, 0])
    q = torch.zeros(3, 2, dtype=torch.float64)
    for _ in range(2000):
        value = torch.cat([q[torch.arange(3), policy], q.new_zeros(1)])
        q = reward + GAMMA * ((1 - go) * value[:3, None] + go * value[1:, None])
    generator = torch.Generator().manual_seed(0)
    state, action = torch.arange(3).repeat(800), torch.randint(2, (2400,), generator=generator)
    moved = torch.rand(2400, generator=generator) < go[state, action]
    following = state + moved
    columns = (
        torch.eye(4)[state],
        2.0 * action[:, None] - 1,
        reward[state, action],
        (following == 3).float(),
        torch.eye(4)[following],
    )
    chosen = 2.0 * torch.cat([policy, torch.zeros(1)])[following][:, None] - 1
    return Log(*columns, torch.arange(2400) // 3), chosen, q


def test_the_values_of_a_tabular_process_are_exact() -> None:
    log, chosen, exact = chain()
    question = TargetPolicy("policy", chosen, torch.ones(2400, dtype=torch.bool))
    settings = FqeSettings(critics=2, hidden=16, batch_size=256, first_steps=50, steps=500, learning_rate=1e-2)
    fqe = start_fqe(log, [question], settings, GAMMA)
    advance_fqe(fqe, settings.all_steps)
    assert fqe.done
    states, actions = torch.eye(4)[:3].repeat_interleave(2, dim=0), torch.tensor([[-1.0], [1.0]]).repeat(3, 1)
    values = fqe_values(fqe, 0, states, actions).mean(dim=0).view(3, 2)
    torch.testing.assert_close(values, exact, atol=0.06, rtol=0)


def test_no_target_is_out_of_what_rewards_allow() -> None:
    """A target network that promises a million, and follows hardly: the critics learn no more than ten times the
    greatest reward."""
    log = replace(make_log(), reward=torch.linspace(0, 1, 15), terminal=torch.zeros(15))
    fqe = start_fqe(log, [ask(log)], replace(TINY, first_steps=1, steps=400, learning_rate=0.03, tau=1e-9), GAMMA)
    fqe.critic.target.layers[0][-1][1].fill_(1e6)
    advance_fqe(fqe, 1000)
    (values,) = evaluate((fqe.critic, (fqe.observation[None], log.action[None])))
    learned = (fqe.centre + fqe.unit * values.out[0]).flatten()
    torch.testing.assert_close(learned, torch.full((15,), 10.0), atol=1.5, rtol=0)


def test_every_critic_learns_from_a_bootstrap_of_whole_episodes() -> None:
    log = make_log()
    question = ask(log)
    some = replace(question, rows=log.episode != 2)
    fqe = start_fqe(log, [question, some], TINY, GAMMA)
    tables = [table[: int(count)] for table, count in zip(fqe.table, fqe.lengths, strict=True)]
    for place, rows in enumerate(tables):
        times = torch.bincount(rows, minlength=15)
        by_episode = [set(times[log.episode == e].tolist()) for e in range(4)]
        assert all(len(counts) == 1 for counts in by_episode), "rows of an episode are drawn together"
        assert sum(counts.pop() for counts in by_episode) == (4 if place < 3 else 3)
        assert place < 3 or times[log.episode == 2].sum() == 0
    assert len({tuple(rows.tolist()) for rows in tables[:3]}) > 1


def trained(log: Log, *names: str) -> FqeState:
    fqe = start_fqe(log, [ask(log, name) for name in names], TINY, GAMMA)
    advance_fqe(fqe, TINY.all_steps)
    return fqe


def test_a_policy_is_judged_alike_whatever_others_are() -> None:
    log = make_log()
    alone, beside = trained(log, "one"), trained(log, "other", "one")
    inputs = log.observation, log.action
    assert torch.equal(fqe_values(alone, 0, *inputs), fqe_values(beside, 1, *inputs))
    assert not torch.equal(fqe_values(beside, 0, *inputs), fqe_values(beside, 1, *inputs))


@pytest.mark.parametrize("stop", [7, 20, 33])
def test_critics_that_are_stopped_end_as_uninterrupted_ones(stop: int) -> None:
    log = make_log()
    begun = start_fqe(log, [ask(log)], TINY, GAMMA)
    advance_fqe(begun, stop)
    tensors, numbers = fqe_checkpoint(begun)
    resumed = start_fqe(log, [ask(log)], TINY, GAMMA)
    restore_fqe(resumed, {name: tensor.clone() for name, tensor in tensors.items()}, numbers)
    advance_fqe(resumed, 1000)
    assert resumed.step == TINY.all_steps
    for one, other in zip(
        fqe_checkpoint(resumed)[0].values(), fqe_checkpoint(trained(log, "policy"))[0].values(), strict=True
    ):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="another shape"):
        restore_fqe(start_fqe(log, [ask(log)] * 2, TINY, GAMMA), tensors, numbers)
