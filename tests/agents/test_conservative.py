"""The conservative term by its definition, and its gradient by the critics' parameters by plain autograd."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from probes.agents import ACT, OBS, SETTINGS, make_batch, make_sac, normal
from probes.offline import assert_gradient, leaves, perceptron
from torch import Tensor
from torch.distributions import Normal, TanhTransform, TransformedDistribution

from mopo_cli.agents.algorithm import Batch
from mopo_cli.agents.conservative import (
    Lse,
    Proposals,
    differentiate_critics,
    log_sum_exp,
    log_sum_exp_gradient,
    propose,
)
from mopo_cli.engine.streams import stream
from mopo_cli.nets import perceptron as networks


def by_hand(values: np.ndarray, lse: Lse) -> float:
    """Of the values of one state, `[3N]`: uniform ones, those of the next state's policy, those of the state's."""
    if lse == "full":
        return float(np.log(np.exp(values).sum()))
    uniform, ahead, present = values.reshape(3, -1)
    return float(np.mean(np.log(np.exp(uniform) + np.exp(ahead) + np.exp(present))))


@pytest.mark.parametrize("lse", ["full", "paired"])
@pytest.mark.parametrize("count", [1, 4, 10])
def test_the_log_sum_exp_and_its_slope_by_hand(lse: Lse, count: int) -> None:
    value = 2 * normal(2, 3, 5, 3 * count, name="v")
    result, slope = log_sum_exp(value, lse), log_sum_exp_gradient(value, lse)
    assert result.shape == (2, 3, 5) and slope.shape == value.shape
    values, step = value.double().numpy(), 1e-5
    for at in np.ndindex(2, 3, 5):
        assert result[at].item() == pytest.approx(by_hand(values[at], lse), rel=1e-5)
        for k in range(3 * count):
            nudge = step * np.eye(3 * count)[k]
            rise = (by_hand(values[at] + nudge, lse) - by_hand(values[at] - nudge, lse)) / (2 * step)
            assert slope[at][k].item() == pytest.approx(rise, rel=1e-3, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-500, 500), min_size=6, max_size=6), st.floats(-200, 200))
def test_properties_of_the_log_sum_exp(values: list[float], shift: float) -> None:
    """It goes with a shift, lies above the greatest value by at most log of the count, and its slope is a weighting."""
    value = torch.tensor([values], dtype=torch.float64)
    paired = float(np.mean(np.max(np.reshape(values, (3, 2)), axis=0)))
    greatest: dict[Lse, float] = {"full": max(values), "paired": paired}
    for lse, most in greatest.items():
        length = 6 if lse == "full" else 3
        result = log_sum_exp(value, lse)
        assert most - 1e-9 <= result.item() <= most + np.log(length) + 1e-9
        torch.testing.assert_close(log_sum_exp(value + shift, lse), result + shift)
        slope = log_sum_exp_gradient(value, lse)
        assert (slope >= 0).all() and slope.sum().item() == pytest.approx(1)


def test_over_all_it_is_more_than_over_pairs_by_what_their_definitions_say() -> None:
    """Equal values: log 3N and log 3 above them. One great value: it is all of the first, an N-th of the second."""
    equal = torch.full((1, 30), 2.0)
    assert log_sum_exp(equal, "full").item() == pytest.approx(2 + np.log(30))
    assert log_sum_exp(equal, "paired").item() == pytest.approx(2 + np.log(3))
    great = torch.zeros(1, 30)
    great[0, 17] = 100.0
    assert log_sum_exp(great, "full").item() == pytest.approx(100)
    assert log_sum_exp(great, "paired").item() == pytest.approx(10 + 0.9 * np.log(3))
    assert log_sum_exp_gradient(great, "full")[0, 17].item() == pytest.approx(1)
    paired = log_sum_exp_gradient(great, "paired")[0]
    assert paired[17].item() == pytest.approx(0.1) and paired[7].item() == pytest.approx(0, abs=1e-6)
    assert paired[16].item() == pytest.approx(1 / 30)


def sampled(states: int, count: int, members: int = 2, act_dim: int = ACT) -> tuple[Tensor, ...]:
    """States, what the actors say of the next ones and of these, noise and uniform actions."""
    said = 0.7 * normal(2, members, states, 2 * act_dim, name="said")
    noise = normal(2, members, states, count, act_dim, name="noise")
    uniform = 2 * torch.rand(members, states, count, act_dim, generator=stream(0, "test/uniform")) - 1
    return normal(members, states, OBS, name="s"), said, noise, uniform


def test_what_is_proposed_and_how_rare_it_is() -> None:
    sac, count = make_sac(), 4
    state, said, noise, uniform = sampled(7, count)
    result = propose(sac.settings, state, said, noise, uniform)
    assert result.action.shape == (2, 7, 3 * count, ACT) and result.neg_log_density.shape == (2, 7, 3 * count)
    assert torch.equal(result.action[:, :, :count], uniform) and torch.equal(result.state, state)
    torch.testing.assert_close(result.neg_log_density[:, :, :count], torch.full((2, 7, count), np.log(2.0**ACT)))
    for kind in (0, 1):  # of the next state, of the state
        mean, log_std = said[kind].double().chunk(2, dim=-1)
        policy = TransformedDistribution(
            Normal(mean[:, :, None], log_std.clamp(SETTINGS.log_std_min, SETTINGS.log_std_max).exp()[:, :, None]),
            [TanhTransform()],
        )
        rows = slice((kind + 1) * count, (kind + 2) * count)
        expected = torch.tanh(policy.base_dist.mean + policy.base_dist.stddev * noise[kind])
        torch.testing.assert_close(result.action[:, :, rows].double(), expected, atol=1e-6, rtol=1e-5)
        log_prob = policy.log_prob(expected).sum(dim=-1)
        torch.testing.assert_close(result.neg_log_density[:, :, rows].double(), -log_prob, atol=2e-5, rtol=1e-4)


def test_each_kind_estimates_the_integral_of_exp_q_over_the_actions() -> None:
    """For Q = c · a it is the product of (e^c - e^-c) / c, whoever drew the actions."""
    count, slope = 20_000, torch.tensor([1.3, -0.6])
    state, said, noise, uniform = sampled(1, count, members=1)
    result = propose(make_sac(1).settings, state, said, noise, uniform)
    value = (result.action @ slope + result.neg_log_density)[0, 0].double()
    expected = np.prod([(np.exp(c) - np.exp(-c)) / c for c in (1.3, -0.6)])
    for kind in value.view(3, count):
        assert kind.exp().mean().item() == pytest.approx(expected, rel=0.03)
    assert log_sum_exp(value, "full").item() - np.log(3 * count) == pytest.approx(np.log(expected), abs=0.02)


def judged_by_hand(
    critic: dict[str, Tensor], batch: Batch, m: int, backup: Tensor, proposals: Proposals, beta: float, lse: Lse
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of one critic as the docstring has it, and what it says of the batch and of what was proposed."""
    states, count = proposals.neg_log_density.shape[1:]
    q = perceptron(critic, batch.observation[m].double(), batch.action[m].double())[:, 0]
    state = proposals.state[m].double()[:, None].expand(-1, count, -1)
    said = perceptron(critic, state.reshape(states * count, -1), proposals.action[m].double().flatten(0, 1))
    proposed = said.view(states, count)
    value = proposed + proposals.neg_log_density[m].double()
    lists = value.view(states, 3, -1) if lse == "paired" else value[:, :, None]
    low = torch.log(torch.exp(lists).sum(dim=1)).mean()
    loss = beta * (low - q[: batch.real_rows].mean()) + (q - backup[m].double()).square().mean()
    return loss, q, proposed


@pytest.mark.parametrize("block", [2048, 50])
@pytest.mark.parametrize(
    ("rows", "real", "states", "count", "lse"),
    [(37, 37, 37, 2, "full"), (37, 12, 25, 3, "full"), (9, 1, 9, 1, "paired"), (12, 5, 7, 10, "paired")],
)
def test_the_gradient_is_that_of_the_loss(
    monkeypatch: pytest.MonkeyPatch, rows: int, real: int, states: int, count: int, lse: Lse, block: int
) -> None:
    monkeypatch.setattr(networks, "_CPU_BLOCK", block)
    sac, (plain, backup, _) = make_sac(), make_batch(2, rows)
    batch = Batch(**vars(plain), real_rows=real, index=torch.zeros(2, real))
    proposals = propose(sac.settings, *sampled(states, count))
    before = sac.critic.flat.clone()
    q_of_batch, q_of_proposals = differentiate_critics(sac.critic, batch, backup, proposals, 0.7, lse)
    assert torch.equal(sac.critic.flat, before)
    for m in range(2):
        for i in (0, 1):
            critic = leaves(sac.critic.layout, sac.critic.flat, 2 * m + i)
            loss, q, proposed = judged_by_hand(critic, batch, m, backup, proposals, 0.7, lse)
            torch.testing.assert_close(q_of_batch[m, i].double(), q, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(q_of_proposals[m, i].double(), proposed, atol=1e-5, rtol=1e-5)
            assert_gradient(sac.critic.layout, sac.critic.adam.grad, 2 * m + i, loss, critic)


def test_without_weight_it_is_the_mean_squared_error_alone() -> None:
    sac, (plain, backup, _) = make_sac(), make_batch(2)
    batch, grads = Batch(**vars(plain), real_rows=12, index=torch.zeros(2, 12)), []
    for states in (37, 5):
        differentiate_critics(sac.critic, batch, backup, propose(sac.settings, *sampled(states, 3)), 0.0, "full")
        grads.append(sac.critic.adam.grad.clone())
    assert torch.equal(*grads) and grads[0].abs().max() > 0.01


def test_the_term_moves_values_the_way_it_should() -> None:
    """Along the gradient of the term, values at the data rise against those at what was proposed."""
    sac, (plain, backup, _) = make_sac(), make_batch(2)
    batch = Batch(**vars(plain), real_rows=37, index=torch.zeros(2, 37))
    proposals, gaps = propose(sac.settings, *sampled(37, 5)), []
    for _ in range(4):
        q_of_batch, q_of_proposals = differentiate_critics(sac.critic, batch, backup, proposals, 100.0, "full")
        low = log_sum_exp(q_of_proposals + proposals.neg_log_density[:, None], "full")
        gaps.append((low.mean(dim=2) - q_of_batch.mean(dim=2)).flatten())
        sac.critic.flat.sub_(1e-4 * sac.critic.adam.grad)
    assert all((later < earlier).all() for earlier, later in pairwise(gaps))
