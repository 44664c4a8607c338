"""The squashed Gaussian against torch's own distributions in float64, and where those fail."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from probes.agents import normal as normals
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from mopo_cli.agents.actor import Actor, squash, squash_gradient
from mopo_cli.engine.streams import stream
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.stacked import mlp_layout

LOW, HIGH = -1.0, 0.5
Array = NDArray[np.float64]
normal = partial(normals, dtype=torch.float64)


def outputs(mean: Tensor, log_std: Tensor) -> Tensor:
    return torch.cat([mean, log_std], dim=-1)


@pytest.mark.parametrize("dims", [1, 3])
def test_log_probability_against_torch_distributions(dims: int) -> None:
    mean, raw, noise = normal(2, 50, dims, name="m"), 3 * normal(2, 50, dims, name="s"), normal(2, 50, dims)
    drawn = squash(outputs(mean, raw), noise, -5.0, 2.0)
    log_std = raw.clamp(-5, 2)
    assert (raw < -5).any() and (raw > 2).any()
    base = Independent(Normal(mean, log_std.exp()), 1)
    transformed = TransformedDistribution(base, [TanhTransform(cache_size=1)])
    x = mean + log_std.exp() * noise
    assert torch.equal(drawn.action, torch.tanh(x)) and drawn.log_prob.shape == (2, 50)
    jacobian = TanhTransform().log_abs_det_jacobian(x, drawn.action).sum(dim=-1)
    torch.testing.assert_close(drawn.log_prob, base.log_prob(x) - jacobian, rtol=1e-9, atol=1e-9)
    inner = (x.abs() < 4).all(dim=-1)  # further out atanh(tanh(x)) is not x
    assert inner.sum() > 20
    textbook = transformed.log_prob(drawn.action)[inner]
    torch.testing.assert_close(drawn.log_prob[inner], textbook, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.5, 1.0), (0.2, 7.0), (0.2, -7.0)])
def test_the_density_of_actions_integrates_to_one(mean: float, log_std: float) -> None:
    edges = np.tanh(np.linspace(-12, 12, 40_001))
    x = torch.from_numpy(np.arctanh((edges[1:] + edges[:-1]) / 2)).view(1, -1, 1)
    noise = (x - mean) / np.exp(np.clip(log_std, -2, 1))
    out = torch.tensor([mean, log_std], dtype=torch.float64).expand(1, len(noise[0]), 2)
    log_prob = squash(out, noise, -2.0, 1.0).log_prob
    assert float((log_prob[0].exp().numpy() * np.diff(edges)).sum()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("x", [-80.0, -30.0, -12.0, -9.1, -3.0, 0.0, 0.5, 6.0, 9.1, 14.0, 80.0])
def test_float32_is_exact_where_tanh_is_one(x: float) -> None:
    """log(1 - tanh(x)^2 + 1e-6) would stop at -13.8; the truth goes on as 2 log 2 - 2 |x|."""
    log_prob = squash(torch.tensor([[[x, 0.0]]]), torch.zeros(1, 1, 1), -5.0, 2.0).log_prob.item()
    log_det = 2 * (np.log(2) - abs(x) - np.log1p(np.exp(-2 * abs(x))))
    assert log_prob == pytest.approx(-0.5 * np.log(2 * np.pi) - log_det, rel=1e-6, abs=1e-6)


def test_what_is_given_to_squash_is_left_as_it_was() -> None:
    out, noise = normal(2, 9, 6), normal(2, 9, 3, name="noise")
    kept = out.clone(), noise.clone()
    squash(out, noise, LOW, HIGH)
    assert torch.equal(out, kept[0]) and torch.equal(noise, kept[1])


@pytest.mark.parametrize("dims", [1, 3])
@pytest.mark.parametrize("index", [0, 1])
def test_the_gradient_is_autograd_s_of_the_textbook_also_where_the_log_std_is_out_of_bounds(
    dims: int, index: int
) -> None:
    """Of a loss that weighs every action and every log-probability by a number of its own."""
    mean, raw, noise = (normal(2, 60, dims, name=name) for name in ("m", "s", "noise"))
    raw[:, 0], raw[:, 1] = LOW, HIGH  # at its bounds it still follows
    by_action, by_log_prob = normal(60, dims, name="a"), normal(60, 1, name="l")
    result = squash_gradient(squash(outputs(mean, raw), noise, LOW, HIGH), index, by_action, by_log_prob)
    m, s = mean[index].requires_grad_(), raw[index].requires_grad_()
    base = Normal(m, s.clamp(LOW, HIGH).exp())
    x = m + base.scale * noise[index]
    log_prob = (base.log_prob(x) - torch.log(1 - x.tanh() ** 2)).sum(dim=-1, keepdim=True)
    loss = (by_action * x.tanh()).sum() + (by_log_prob * log_prob).sum()
    expected = torch.cat(torch.autograd.grad(loss, (m, s)), dim=-1)
    torch.testing.assert_close(result, expected, rtol=1e-9, atol=1e-9)
    outside = (raw[index] < LOW) | (raw[index] > HIGH)
    assert (result[:, dims:] == 0).equal(outside) and 10 < outside.sum() < 60 * dims - 10


def test_the_slope_of_the_log_probability_stays_finite_far_out() -> None:
    means = torch.tensor([-50.0, -10.0, 1.0, 10.0, 50.0]).view(1, 5, 1)
    drawn = squash(outputs(means, torch.zeros(1, 5, 1)), torch.zeros(1, 5, 1), LOW, HIGH)
    slope = squash_gradient(drawn, 0, torch.zeros(5, 1), torch.ones(5, 1))
    assert slope[:, 0].tolist() == pytest.approx([-2, -2, 2 * np.tanh(1), 2, 2], abs=1e-5)
    assert slope[:, 1].tolist() == [-1.0] * 5, "a wider one is less likely, whatever the mean"


def policy(obs_dim: int = 4, act_dim: int = 2) -> Actor:
    layout = mlp_layout((obs_dim, 16, 16, 2 * act_dim))
    return Actor(initial(layout, [stream(0, "test/actor")], uniform, uniform) * 3, layout, LOW, HIGH)


def heads(actor: Actor, observation: Tensor) -> tuple[Array, Array]:
    """Mean and log std of a plain perceptron with the actor's numbers, the latter within the bounds."""
    params = {name: view[0].double().numpy() for name, view in actor.layout.views(actor.flat).items()}
    x = observation.double().numpy()
    for i in range(3):
        x = x @ params[f"w{i}"] + params[f"b{i}"]
        x = np.maximum(x, 0) if i < 2 else x
    mean, raw = np.split(x, 2, axis=1)
    return mean, np.clip(raw, LOW, HIGH)


@pytest.mark.parametrize(("rows", "act_dim"), [(7, 2), (1, 1), (2100, 1)])
def test_the_greedy_action_is_the_squashed_mean(rows: int, act_dim: int) -> None:
    actor, observation = policy(act_dim=act_dim), normal(rows, 4, dtype=torch.float32)
    mean, _ = heads(actor, observation)
    assert np.abs(mean).max() > 0.5
    np.testing.assert_allclose(actor.greedy(observation), np.tanh(mean), atol=1e-5)


@pytest.mark.parametrize("bias", [(-0.5, 0.2), (-9.0, 9.0)])
def test_samples_are_distributed_as_the_heads_say_the_log_std_within_its_bounds(bias: tuple[float, float]) -> None:
    actor = policy()
    params = actor.layout.views(actor.flat)
    params["w2"][..., 2:] *= 0.1
    params["b2"][..., 2:] = torch.tensor(bias)
    observation = normal(1, 4, dtype=torch.float32)
    mean, log_std = heads(actor, observation)
    assert (log_std.tolist() == [[LOW, HIGH]]) == (bias == (-9.0, 9.0))
    action = actor.sample(observation.expand(20_000, 4), stream(0, "test/sample"))
    assert action.abs().max() <= 1
    x = torch.atanh(action.double().clamp(-1 + 1e-7, 1 - 1e-7))
    std = np.exp(log_std[0])
    assert x.mean(dim=0).tolist() == pytest.approx(mean[0], abs=5 * max(std) / np.sqrt(20_000))
    assert x.std(dim=0).tolist() == pytest.approx(std, rel=0.03)
    assert abs(torch.corrcoef(x.T)[0, 1].item()) < 0.04, "every dimension has its own noise"


def test_sampling_depends_on_the_stream_alone() -> None:
    actor, observation = policy(), normal(5, 4, dtype=torch.float32)
    first, again, other = (actor.sample(observation, stream(0, "test", i)) for i in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
