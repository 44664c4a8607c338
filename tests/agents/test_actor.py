"""The squashed Gaussian against torch's own distributions in float64, and where those fail."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from mopo_cli.agents.actor import Actor, heads, squash
from mopo_cli.engine.streams import stream
from mopo_cli.nets.init import initial, uniform
from mopo_cli.nets.stacked import mlp, mlp_layout


def normal(*shape: int, name: str = "x", dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=stream(0, f"test/{name}"), dtype=dtype)


def test_log_probability_against_torch_distributions() -> None:
    mean, log_std, noise = normal(2, 50, 3, name="m"), normal(2, 50, 3, name="s").clamp(-5, 2), normal(2, 50, 3)
    action, log_prob = squash(mean, log_std, noise)
    base = Independent(Normal(mean, log_std.exp()), 1)
    transformed = TransformedDistribution(base, [TanhTransform(cache_size=1)])
    x = mean + log_std.exp() * noise
    assert torch.equal(action, torch.tanh(x)) and log_prob.shape == (2, 50)
    jacobian = TanhTransform().log_abs_det_jacobian(x, action).sum(dim=-1)
    torch.testing.assert_close(log_prob, base.log_prob(x) - jacobian, rtol=1e-9, atol=1e-9)
    inner = (x.abs() < 4).all(dim=-1)  # further out atanh(tanh(x)) is not x
    assert inner.sum() > 20
    torch.testing.assert_close(log_prob[inner], transformed.log_prob(action)[inner], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (1.5, -1.0), (-0.5, 1.0)])
def test_the_density_of_actions_integrates_to_one(mean: float, log_std: float) -> None:
    edges = np.tanh(np.linspace(-12, 12, 40_001))
    x = torch.from_numpy(np.arctanh((edges[1:] + edges[:-1]) / 2)).view(1, -1, 1)
    noise = (x - mean) / np.exp(log_std)
    log_prob = squash(torch.full_like(x, mean), torch.full_like(x, log_std), noise)[1]
    assert float((log_prob[0].exp().numpy() * np.diff(edges)).sum()) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("x", [-80.0, -30.0, -12.0, -9.1, -3.0, 0.0, 0.5, 6.0, 9.1, 14.0, 80.0])
def test_float32_is_exact_where_tanh_is_one(x: float) -> None:
    """log(1 - tanh(x)^2 + 1e-6) would stop at -13.8; the truth goes on as 2 log 2 - 2 |x|."""
    mean, zero = torch.tensor([[[x]]]), torch.zeros(1, 1, 1)
    log_prob = squash(mean, zero, zero)[1].item()
    log_det = 2 * (np.log(2) - abs(x) - np.log1p(np.exp(-2 * abs(x))))
    assert log_prob == pytest.approx(-0.5 * np.log(2 * np.pi) - log_det, rel=1e-6, abs=1e-6)


def test_the_slope_of_the_log_probability_stays_finite_far_out() -> None:
    mean = torch.tensor([-50.0, -10.0, 1.0, 10.0, 50.0]).view(1, 5, 1).requires_grad_()
    log_prob = squash(mean, torch.zeros(1, 5, 1), torch.zeros(1, 5, 1))[1]
    (slope,) = torch.autograd.grad(log_prob.sum(), mean)
    assert slope.flatten().tolist() == pytest.approx([-2, -2, 2 * np.tanh(1), 2, 2], abs=1e-5)


def policy(obs_dim: int = 4, act_dim: int = 2) -> Actor:
    layout = mlp_layout((obs_dim, 16, 16, 2 * act_dim))
    return Actor(initial(layout, [stream(0, "test/actor")], uniform, uniform) * 3, layout, -1.0, 0.5)


def test_the_greedy_action_is_the_squashed_mean() -> None:
    actor, observation = policy(), normal(7, 4, dtype=torch.float32)
    output = mlp(actor.layout.views(actor.flat), observation[None])[0]
    assert torch.equal(actor.greedy(observation), torch.tanh(output[:, :2]))


def test_the_log_std_is_the_other_half_kept_within_its_bounds() -> None:
    actor, observation = policy(), normal(1, 200, 4, dtype=torch.float32) * 10
    params = actor.layout.views(actor.flat)
    mean, log_std = heads(params, observation, -1.0, 0.5)
    output = mlp(params, observation)
    assert torch.equal(mean, output[..., :2]) and torch.equal(log_std, output[..., 2:].clamp(-1.0, 0.5))
    assert log_std.min() == -1.0 and log_std.max() == 0.5 and mean.abs().max() > 1.0


def test_samples_are_distributed_as_the_heads_say() -> None:
    actor = policy()
    observation = normal(1, 4, dtype=torch.float32)
    mean, log_std = heads(actor.layout.views(actor.flat), observation[None], -1.0, 0.5)
    action = actor.sample(observation.expand(20_000, 4), stream(0, "test/sample"))
    assert action.abs().max() <= 1
    x = torch.atanh(action.double().clamp(-1 + 1e-7, 1 - 1e-7))
    expected, std = mean[0, 0].tolist(), log_std[0, 0].exp().tolist()
    assert x.mean(dim=0).tolist() == pytest.approx(expected, abs=5 * max(std) / np.sqrt(20_000))
    assert x.std(dim=0).tolist() == pytest.approx(std, rel=0.03)
    assert abs(torch.corrcoef(x.T)[0, 1].item()) < 0.04, "every dimension has its own noise"


def test_sampling_depends_on_the_stream_alone() -> None:
    actor, observation = policy(), normal(5, 4, dtype=torch.float32)
    first, again, other = (actor.sample(observation, stream(0, "test", i)) for i in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
