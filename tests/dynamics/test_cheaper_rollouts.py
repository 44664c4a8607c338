"""Rollouts that compute less: the drawn networks alone where nobody asks how unsure, and fewer bits between layers."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutOptions, branch, sample_step, uniform_policy
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import uncertainties
from mopo_cli.engine.streams import stream
from mopo_cli.nets import libraries
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.libraries import LIBRARIES, Library, all_by
from mopo_cli.nets.products import possible
from mopo_cli.tasks.termination import never

OBS, ACT, HIDDEN = 5, 2, 64
BLIND, COARSE = replace(RELEASED, needs_uncertainties=False), replace(RELEASED, precision="bf16")


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    layout = gaussian_layout(OBS + ACT, OBS + 1, HIDDEN, 3)
    flat = initial(layout, [stream(k, "test/weights") for k in range(4)], truncated_normal, zeros)
    views = layout.views(flat)
    views["w1"] *= 3
    views["w2"] *= 3
    views["w_logvar"] *= 10
    views["max_logvar"].fill_(0.5)
    views["min_logvar"].fill_(-6.0)
    return Ensemble(flat, layout, torch.zeros(OBS + ACT), torch.ones(OBS + ACT), OBS, (0, 1, 3))


def rows(count: int) -> tuple[Tensor, Tensor]:
    draw = stream(0, "test/rows")
    return torch.randn(count, OBS, generator=draw), 2 * torch.rand(count, ACT, generator=draw) - 1


def rounded(x: Tensor) -> Tensor:
    return x.to(torch.bfloat16).double()


def by_hand(ensemble: Ensemble, k: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and std of a network in float64, where what bfloat16 holds is rounded to it: products too, or their SiLU."""
    p = {name: view[k].double() for name, view in ensemble.layout.views(ensemble.flat).items()}
    h = rounded(torch.nn.functional.silu(x.double() @ p["w0"] + p["b0"]))
    for i in (1, 2):
        h = h @ rounded(p[f"w{i}"]) + rounded(p[f"b{i}"])
        h = rounded(torch.nn.functional.silu(h if "bfloat16 silu" in (libraries.to_onednn or ()) else rounded(h)))
    raw = h @ p["w_logvar"] + p["b_logvar"]
    softplus = torch.nn.functional.softplus
    below = p["max_logvar"] - softplus(p["max_logvar"] - raw)
    return h @ p["w_mean"] + p["b_mean"], torch.exp(0.5 * (p["min_logvar"] + softplus(below - p["min_logvar"])))


@pytest.mark.parametrize("count", [1, 1500, 9000])
def test_without_uncertainties_the_same_networks_say_the_same(ensemble: Ensemble, count: int) -> None:
    observation, action = rows(count)
    full = sample_step(ensemble, observation, action, stream(1, "test/step"))
    blind = sample_step(ensemble, observation, action, stream(1, "test/step"), BLIND)
    assert torch.equal(full.network, blind.network)
    for name in ("next_observation", "reward", "mean"):
        torch.testing.assert_close(getattr(blind, name), getattr(full, name), rtol=1e-5, atol=1e-5)
    assert not blind.uncertainty.any() and full.uncertainty.all()


def test_without_uncertainties_a_network_is_asked_about_its_own_rows_alone(
    ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ensemble, "predict", lambda *_: pytest.fail("every network was evaluated"))
    steps = list(branch(ensemble, never, rows(100)[0], uniform_policy(ACT), 3, stream(0, "test"), BLIND))
    assert [len(step.rows) for step in steps] == [100, 100, 100]
    assert set(steps[0].network.tolist()) == {0, 1, 3}


@pytest.mark.parametrize("library", LIBRARIES)
def test_in_bf16_only_the_hidden_products_are_rounded(ensemble: Ensemble, library: Library) -> None:
    libraries.use(possible(all_by(library)))
    observation, action = rows(700)
    coarse = ensemble.predict(observation, action, precision="bf16")
    exact = ensemble.predict(observation, action)
    for k in range(4):
        wanted = by_hand(ensemble, k, torch.cat([observation, action], dim=1))
        for result, full, expected in zip(coarse, exact, wanted, strict=True):
            # Now and then the order of a sum turns a rounding over; all of the rest is explained by the rounding.
            effect = (full[k] - expected).abs().mean()
            assert effect > 1e-5 and (result[k] - expected).abs().mean() < 0.3 * effect


def test_a_coarse_step_is_a_step(ensemble: Ensemble) -> None:
    observation, action = rows(2000)
    fine = sample_step(ensemble, observation, action, stream(2, "test/step"))
    coarse = sample_step(ensemble, observation, action, stream(2, "test/step"), COARSE)
    assert coarse.next_observation.dtype == coarse.uncertainty.dtype == torch.float32
    assert torch.equal(fine.network, coarse.network)
    difference = (fine.next_observation - coarse.next_observation).abs().mean()
    assert 0 < difference < 0.1 * (fine.next_observation - observation).abs().mean()
    mean, std = ensemble.predict(observation, action, precision="bf16")
    torch.testing.assert_close(coarse.uncertainty, uncertainties(mean, std, names=RELEASED.uncertainties))


def test_coarse_and_blind_together(ensemble: Ensemble) -> None:
    observation, action = rows(3000)
    both = RolloutOptions(needs_uncertainties=False, precision="bf16")
    coarse = sample_step(ensemble, observation, action, stream(3, "test/step"), COARSE)
    result = sample_step(ensemble, observation, action, stream(3, "test/step"), both)
    error = (result.mean - coarse.mean).abs()
    assert error.median() < 1e-5 and error.max() < 0.05
