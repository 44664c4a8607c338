"""Ensembles on a GPU that computes on the CPU: fitted, taken up again, predicting, rolled out and played in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from probes.fake_cuda import FakeCuda, fake_cuda
from probes.fits import TINY, make_data
from probes.gpu import as_on_cuda, off_device
from probes.models import ELITES, make_ensemble
from torch import Tensor

from mopo_cli.agents.dice import Ratio, ratio_layout
from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutOptions, branch, uniform_policy
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.episodes import model_returns
from mopo_cli.dynamics.fit import FitState, fit_checkpoint, fitted, restore_fit, start_fit
from mopo_cli.dynamics.penalties import UNCERTAINTIES, PenaltyForm
from mopo_cli.dynamics.training import advance, holdout_errors, take_steps
from mopo_cli.engine.capture import cuda_graph
from mopo_cli.engine.streams import stream
from mopo_cli.store.checkpoint import load_tensors, save_tensors
from mopo_cli.tasks.termination import never

SEEDS = (0, 7, 3)  # one of which leaves the stack early
SETTINGS = replace(TINY, hidden=12)
WAYS = [("none", "fp32"), ("per-network", "bf16"), ("shared", "tf32")]

FETCHES = {
    "engine.capture._agree": "the comparison of the first replays with the steps",
    "dynamics.fit.trained_state": "Adam's steps, for that comparison",
    "dynamics.training.end_epoch": "which ensembles improved",
    "store.checkpoint.save_tensors": "the checkpoint",
    "nets.spectral.largest_singular_values": "the exact sigmas, found on the CPU, when an epoch ends",
}
SENT = {
    "dynamics.fit.start_fit": "initial weights",
    "dynamics.split.split_data": "the rows held out, which are drawn on the CPU for all devices",
    "dynamics.training._epoch_order": "the order of an epoch, likewise",
    "dynamics.training._keep": "the ensembles that stay",
    "nets.spectral.largest_singular_values": "the exact sigmas",
    "elsewhere": "the data, by these tests",
}


def assert_met_where_meant(cuda: FakeCuda, fetches: Any = FETCHES, sent: Any = SENT) -> None:
    assert not cuda.fetched.keys() - fetches.keys() and not cuda.sent.keys() - sent.keys(), (cuda.fetched, cuda.sent)


def train(fit: FitState, epochs: int) -> set[int]:
    """Train to the end of so many epochs; how many ensembles there were in the stack meanwhile."""
    stacks = set()
    while fit.epoch < epochs and not fit.done:
        stacks.add(len(fit.active))
        advance(fit, 50)
        assert fit.engine.why_eager is None
    return stacks


@pytest.mark.parametrize(("norm", "precision"), WAYS)
def test_a_fit_stays_on_the_device(norm: str, precision: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, spectral_norm=norm, update_precision=precision)
    with fake_cuda() as cuda:
        fit = start_fit(make_data(device="cuda"), settings, SEEDS, cuda_graph)
        train(fit, 1)
        best = fit.best.cpu()
        take_steps(fit, 1)
        cuda.forget()
        take_steps(fit, 1)
        assert not cuda.fetched and not cuda.sent, "the epoch goes on"
        tensors, numbers = fit_checkpoint(fit)
        save_tensors(tmp_path / "state", tensors, numbers)
        stacks = train(fit, 12)
        assert_met_where_meant(cuda)
        assert off_device(fit) == [] and fit.done and cuda.recorded == len(stacks) > 1

        tensors, numbers = load_tensors(tmp_path / "state", "cuda:0")
        resumed = start_fit(make_data(device="cuda"), settings, SEEDS, cuda_graph)
        restore_fit(resumed, tensors, numbers)
        assert off_device(resumed) == []
        train(resumed, 2)
        assert off_device(resumed) == []
        ensemble = fitted(fit, 1)
        assert off_device([ensemble, holdout_errors(fit, ensemble.flat, 1)]) == []
    with as_on_cuda(monkeypatch):
        plain = start_fit(make_data(), settings, SEEDS)
        train(plain, 1)
    # The kernel that a made-up device falls back to rounds the slope of SiLU otherwise in bfloat16.
    torch.testing.assert_close(best, plain.best, rtol=0, atol=0.05 if precision == "bf16" else 1e-5)


def ensemble(device: str) -> Ensemble:
    made = make_ensemble()
    columns = {name: getattr(made, name).to(device) for name in ("flat", "input_mean", "input_std")}
    return replace(made, **columns)


def error(observation: Tensor, action: Tensor, predicted: Tensor) -> Tensor:
    """As a simulator's: found on the CPU, and not everywhere."""
    distance = (predicted - observation).cpu().norm(dim=-1)
    return torch.where(distance > 1, torch.nan, distance).to(observation.device)


def ratio(device: str) -> Ratio:
    layout, model = ratio_layout(6), ensemble(device)
    flat = torch.randn(len(ELITES), layout.size, generator=stream(0, "test/ratio")).to(device)
    return Ratio(flat, layout, model.input_mean, model.input_std, torch.tensor(ELITES, device=device))


ROLLOUTS: dict[str, Callable[[str], RolloutOptions]] = {
    "as released": lambda device: RELEASED,
    "in bfloat16": lambda device: replace(RELEASED, precision="bf16", reward_mean=True),
    "every uncertainty, of the elites": lambda device: RolloutOptions(
        tuple(UNCERTAINTIES), PenaltyForm(True, torch.full((5,), 2.0).to(device), False), precision="tf32"
    ),
    "halting and guarded": lambda device: RolloutOptions(
        ("discrepancy",), halt=("discrepancy", 1.5), guard=lambda s, a, following: following.amax(dim=-1) > 2
    ),
    "an oracle": lambda device: RolloutOptions(("oracle", "max-var"), oracle=error),
    "ratios": lambda device: RolloutOptions(("ratio",), ratio=ratio(device), needs_uncertainties=False),
}
COUNTED = {
    "dynamics.branched_rollouts.branch": "the rows that live on, and how many ended",
    "agents.dice.Ratio.__call__": "the rows of each network",
    "dynamics.branched_rollouts._uncertainties_to_store": "what a simulator is asked",
    "dynamics.episodes.model_returns": "whether every episode is over",
}
LISTED = {
    "dynamics.branched_rollouts.sample_step": "the elites' numbers",
    "dynamics.penalties.uncertainties": "the elites' numbers",
    "dynamics.branched_rollouts._uncertainties_to_store": "what a simulator answers",
    "dynamics.episodes.model_returns": "the value after the guard",
    "dynamics.episodes.Sums.penalised": "the penalties' weights",
    "elsewhere": "all that the tests make",
}


def rolled(how: RolloutOptions, device: str) -> list[Tensor]:
    start = torch.randn(60, 4, generator=stream(0, "test/start")).to(device)
    draw = stream(0, "test/rollout", 0, device)
    steps = branch(ensemble(device), lambda s, a, n: n[:, 0] > 3, start, uniform_policy(2), 3, draw, how)
    made = [tensor for step in steps for tensor in (step.rows, step.network, step.start, step.guarded_rows)]
    assert len(made) == 12 and off_device(made) == [] if device == "cuda" else True
    return made


@pytest.mark.parametrize("what", ROLLOUTS)
def test_rollouts_stay_on_the_device(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda() as cuda:
        made = [tensor.cpu() for tensor in rolled(ROLLOUTS[what]("cuda"), "cuda")]
        assert_met_where_meant(cuda, COUNTED | {"elsewhere": "the rows, by the line above"}, LISTED)
    with as_on_cuda(monkeypatch):
        wanted = rolled(ROLLOUTS[what]("cpu"), "cpu")
    assert all(torch.equal(one, other) for one, other in zip(made, wanted, strict=True))


def test_episodes_stay_on_the_device() -> None:
    with fake_cuda() as cuda:
        start, draw = torch.ones(20, 4, device="cuda"), stream(0, "test/episodes", 0, "cuda")
        returns = model_returns(ensemble("cuda"), never, start, uniform_policy(2), 4, 0.9, draw, RELEASED, -1.0)
        assert off_device(returns) == [] and returns.discounted.penalised([1.0, 0.0, 0.0]).is_cuda
        assert_met_where_meant(cuda, COUNTED, LISTED)
