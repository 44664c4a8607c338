"""Initial weights: the spread that was meant, for every member of the stack and every layer of it."""

from dataclasses import replace
from math import sqrt

import pytest
import torch
from probes.agents import SETTINGS

from mopo_cli.agents.algorithms.sac import start_sac
from mopo_cli.dynamics.fit import FitSettings, start_fit
from mopo_cli.dynamics.split import Examples
from mopo_cli.engine.streams import stream
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.stacked import mlp_layout

FIT = FitSettings(7, 200, 4, 256, 1e-3, (0.0,) * 5, 0.2, 1000, 5, 0.01, None)
SAC = replace(SETTINGS, hidden=256)
TRUNCATED_STD = 0.8796  # of a unit normal kept within two standard deviations


def test_every_layer_of_every_network_of_the_ensemble_has_the_spread_of_the_paper_s_code() -> None:
    data = Examples(torch.randn(20, 14, generator=stream(0, "test")), torch.zeros(20, 12))
    fit = start_fit(data, FIT, (0, 5))
    views = fit.layout.views(fit.flat)
    for name in ("w0", "w1", "w2", "w3", "w_mean", "w_logvar"):
        fan_in = 14 if name == "w0" else 200
        sigma = 0.5 / sqrt(fan_in)
        count = views[name][0].numel()
        for member in views[name]:
            assert member.abs().max() <= 2 * sigma * (1 + 1e-6)
            assert member.abs().max() > 1.9 * sigma, "cut nearer than at two standard deviations"
            assert member.std() / sigma == pytest.approx(TRUNCATED_STD, abs=4 / sqrt(2 * count))
            assert member.mean() / sigma == pytest.approx(0, abs=4 * TRUNCATED_STD / sqrt(count))
    for name in ("b0", "b1", "b2", "b3", "b_mean", "b_logvar"):
        assert (views[name] == 0).all()
    assert (views["max_logvar"] == 0.5).all() and (views["min_logvar"] == -10.0).all()


def test_no_two_members_and_no_two_layers_start_alike() -> None:
    data = Examples(torch.randn(20, 14, generator=stream(0, "test")), torch.zeros(20, 12))
    fit = start_fit(data, FIT, (0, 5))
    weights = fit.layout.views(fit.flat)
    for i in range(14):
        for j in range(i):
            assert torch.corrcoef(weights["w1"][[i, j]].flatten(1))[0, 1].abs() < 0.03
        assert torch.corrcoef(torch.stack([weights["w1"][i], weights["w2"][i]]).flatten(1))[0, 1].abs() < 0.03


@pytest.mark.parametrize(("name", "fan_in"), [("w0", 14), ("w1", 256), ("w2", 256)])
def test_agents_start_uniform_within_the_root_of_the_fan_in(name: str, fan_in: int) -> None:
    sac = start_sac(11, 3, SAC, [0, 1, 2], "cpu")
    bound = 1 / sqrt(fan_in)
    critic = sac.critic.layout.views(sac.critic.flat)
    for member in (*critic[name], *critic["b" + name[1:]]):
        assert member.abs().max() <= bound
        if member.numel() > 200:
            assert member.abs().max() > 0.95 * bound
            assert member.std() / bound == pytest.approx(1 / sqrt(3), abs=3 / sqrt(member.numel()))
            assert member.mean() / bound == pytest.approx(0, abs=3 / sqrt(member.numel()))
    assert torch.equal(sac.critic.flat, sac.critic.target.flat) and (sac.alpha == 1).all()
    actor = sac.actor.layout.views(sac.actor.flat)
    assert 0.95 / sqrt(11) < actor["w0"].abs().max() <= 1 / sqrt(11)


def test_agents_twins_and_seeds_start_apart() -> None:
    sac = start_sac(11, 3, SAC, [0, 1, 0], "cpu")
    weights = sac.critic.layout.views(sac.critic.flat)["w1"].flatten(1)
    correlation = torch.corrcoef(weights[:4])
    assert (correlation - torch.eye(4)).abs().max() < 0.03
    assert torch.equal(sac.actor.flat[0], sac.actor.flat[2]) and torch.equal(sac.critic.flat[:2], sac.critic.flat[4:])
    assert not torch.equal(sac.actor.flat[0], sac.actor.flat[1])


def test_a_member_draws_from_its_own_stream_alone() -> None:
    layout = mlp_layout((5, 9, 2))
    stacked = initial(layout, [stream(s, "w") for s in (4, 8)], truncated_normal, zeros)
    assert torch.equal(stacked[1:], initial(layout, [stream(8, "w")], truncated_normal, zeros))


def test_the_spectral_norm_of_every_members_square_layer_is_that_of_a_random_matrix() -> None:
    layout = gaussian_layout(14, 12, 200, 4)
    flat = initial(layout, [stream(0, "model/weights", k) for k in range(7)], truncated_normal, zeros)
    # The largest singular value of an n x n matrix of independent entries tends to 2 std sqrt(n); the std of a
    # normal cut at two sigma is 0.8796 of the normal's, here 1 / (2 sqrt(n)).
    for name in ("w1", "w2", "w3"):
        norms = torch.linalg.svdvals(layout.views(flat)[name])[:, 0]
        assert norms.tolist() == pytest.approx([TRUNCATED_STD] * 7, rel=0.06), name
        assert len(set(norms.tolist())) == 7
