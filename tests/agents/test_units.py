"""A world in standard deviations is the same world."""

from dataclasses import replace
from math import exp
from typing import Any

import pytest
import torch
from probes.models import make_ensemble
from probes.single_steps import single_steps
from probes.stacks import ACT, start
from torch import Tensor

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.agents.loop import advance, loop_state
from mopo_cli.agents.runs import start_loop
from mopo_cli.agents.units import in_standard_units
from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import RELEASED, RolloutStep, branch
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.penalties import PenaltyForm
from mopo_cli.engine.rows import RowLayout
from mopo_cli.engine.streams import stream
from mopo_cli.nets.scales import Standard
from mopo_cli.tasks.expression import expression_rule

OBS = 4
STANDARD = Standard(
    torch.tensor([0.5, -3.0, 20.0, 0.0], dtype=torch.float64), torch.tensor([0.2, 7.0, 3.0, 1e-3], dtype=torch.float64)
)


def raw_world(ensemble: Ensemble, form: PenaltyForm) -> World:
    """Random rows in raw units, a rule and a guard on raw numbers, and an oracle that tells what it was given."""
    draw = stream(0, "test/world")
    observation = STANDARD.undo(torch.randn(200, OBS, generator=draw))
    action = 2 * torch.rand(200, ACT, generator=draw) - 1
    how = replace(
        RELEASED,
        uncertainties=("max-var", "avg-var", "ens", "discrepancy", "oracle"),
        form=form,
        oracle=lambda s, a, following: (following - s).double().norm(dim=-1).float(),
        guard=expression_rule("obs[1] > 12"),
    )
    rows = RowLayout(OBS, ACT, len(how.uncertainties))
    zeros = torch.zeros(200)
    real = rows.pack(observation, action, zeros, zeros, observation, torch.zeros(200, rows.uncertainties))
    return World(rows, real, observation, single_steps(real), expression_rule("obs[2] < 17"), (ensemble,), options=how)


def roll(world: World) -> list[RolloutStep]:
    def policy(_: Tensor, generator: torch.Generator) -> Tensor:
        return torch.tanh(torch.randn(len(_), ACT, generator=generator))

    generator = stream(3, "test/rollout")
    return list(branch(world.ensembles[0], world.rule, world.start, policy, 3, generator, world.options))


def an_ensemble(standardised: bool) -> Ensemble:
    ensemble = make_ensemble(0, OBS, ACT)
    scaler = STANDARD.folded_scaler(ensemble.input_mean, ensemble.input_std)
    ensemble = replace(ensemble, input_mean=scaler[0], input_std=scaler[1])
    size = torch.cat([STANDARD.divisor, torch.ones(1)]).float()
    return replace(ensemble, target_mean=0.1 * size, target_std=0.5 * size) if standardised else ensemble


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize("scale", [None, torch.tensor([0.1, 3.0, 2.0, 1e-3, 0.7])])
def test_rollouts_there_are_the_rollouts_here(standardised: bool, scale: Tensor | None) -> None:
    world = raw_world(an_ensemble(standardised), PenaltyForm(True, scale, True))
    other = in_standard_units(world, STANDARD)
    here, there = roll(world), roll(other)
    assert len(here) == len(there) == 3
    assert sum(step.terminated for step in here) and sum(step.guarded for step in here)
    for one, two in zip(here, there, strict=True):
        assert (
            one.ends() == two.ends()
            and torch.equal(one.start, two.start)
            and torch.equal(one.guarded_rows, two.guarded_rows)
        )
        a, b = world.row_layout.split(one.rows), world.row_layout.split(two.rows)
        for name in ("observation", "next_observation"):
            torch.testing.assert_close(STANDARD.apply(getattr(a, name)), getattr(b, name), rtol=5e-4, atol=1e-4)
        for name in ("action", "reward", "terminal", "uncertainty"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=5e-4, atol=1e-4)


def test_the_guard_measures_tiny_columns_in_their_own_noise() -> None:
    ensemble = an_ensemble(True)
    world = raw_world(ensemble, RELEASED.form)
    away = STANDARD.undo(torch.zeros(5, OBS))
    away[:, 3] = ensemble.input_mean[3] + 0.3  # 300 of its deviations, which are less than the least raw noise

    def policy(observation: Tensor, _: torch.Generator) -> Tensor:
        return torch.zeros(len(observation), ACT)

    for each, states in ((world, away), (in_standard_units(world, STANDARD), STANDARD.apply(away))):
        how = replace(each.options, guard=None)
        (step,) = branch(each.ensembles[0], each.rule, states, policy, 1, stream(0, "test/guard"), how)
        assert step.guarded == 5
    raw = an_ensemble(False)
    assert raw.least_noise == pytest.approx(exp(-5))
    least = raw.in_units(STANDARD.mean, STANDARD.divisor).least_noise
    torch.testing.assert_close(least, (exp(-5) / STANDARD.divisor).float())


def test_all_rows_are_restated_and_only_their_observations() -> None:
    world = raw_world(an_ensemble(True), RELEASED.form)
    world = replace(world, buffer=world.real + 1, ensembles=())
    other = in_standard_units(world, STANDARD)
    assert other.buffer is not None and world.buffer is not None and other.standard is STANDARD
    for before, after in ((world.real, other.real), (world.buffer, other.buffer)):
        a, b = world.row_layout.split(before), world.row_layout.split(after)
        assert torch.equal(STANDARD.apply(a.observation), b.observation)
        assert torch.equal(STANDARD.apply(a.next_observation), b.next_observation)
        for name in ("action", "reward", "terminal", "uncertainty"):
            assert torch.equal(getattr(a, name), getattr(b, name))
    assert torch.equal(other.start, other.row_layout.split(other.real).observation)


def identity(world: World) -> World:
    obs_dim = world.row_layout.obs_dim
    return in_standard_units(world, Standard(torch.zeros(obs_dim).double(), torch.ones(obs_dim).double()))


def steps(loop: Any, world: World) -> dict[str, Tensor]:
    while loop.step < 16:
        advance(loop, world)
    return loop_state(loop)[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_learns_the_same_where_data_are_standard_already(name: str) -> None:
    loop, world = start(name)
    other = identity(world)
    again = start_loop(other, loop.members, loop.agent.settings, loop.settings, load(name))
    tensors, others = steps(loop, world), steps(again, other)
    for tensor_name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[tensor_name], rtol=1e-4, atol=1e-5)
    for file, content in load(name).files(loop.agent, 0).items():
        assert content.keys() == load(name).files(again.agent, 0)[file].keys()


def test_published_ratios_take_observations_as_they_are() -> None:
    loop, world = start("drop")
    divisor = torch.tensor([2.0, 0.5, 1.0, 4.0], dtype=torch.float64)
    standard = Standard(torch.tensor([1.0, 0.0, -2.0, 0.5], dtype=torch.float64), divisor)
    other = in_standard_units(world, standard)
    again = start_loop(other, loop.members, loop.agent.settings, loop.settings, load("drop"))
    steps(again, other)
    ratio = load("drop").files(again.agent, 0)["ratio"]
    # The dynamics' inputs were scaled by 0 and 1 before.
    torch.testing.assert_close(ratio["input_mean"], torch.zeros(OBS + ACT), rtol=0, atol=1e-6)
    torch.testing.assert_close(ratio["input_std"], torch.ones(OBS + ACT))
