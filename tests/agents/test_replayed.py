"""What can be recorded and replayed as a GPU's graphs are, in which precision, and what is done where it cannot."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes.gpu import record
from probes.stacks import SCHEDULE, assert_same, start
from torch import Tensor

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.agents.algorithms.sac import Sac
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.runs import Loop
from mopo_cli.engine.capture import Recorder, Tape, _agree, cuda_graph
from mopo_cli.engine.streams import draws
from mopo_cli.nets.network import Network
from mopo_cli.nets.stacked import Parameters


def trained(
    name: str, recorder: Recorder | None = None, device: str = "cpu", precision: str = "fp32", **schedule: Any
) -> tuple[Loop, dict[str, Tensor]]:
    """The loop after three epochs of 8 steps, and the means over the last."""
    loop, world = start(name, recorder, replace(SCHEDULE, **schedule), device, precision)
    while loop.step < 24:
        means = advance(loop, world)
    assert means is not None
    return loop, means


def changed(recorder: Recorder, how: Callable[[], object]) -> Recorder:
    """A recorder whose replays do something else besides."""

    def record_and_more(work: Callable[[], None]) -> Callable[[], object]:
        replay = recorder(work)
        return lambda: (replay(), how())

    return record_and_more


def test_what_cannot_be_recorded_in_the_warm_up_leaves_the_rest_to_be_replayed() -> None:
    tried = []

    def recorder(work: Callable[[], None]) -> Callable[[], object]:
        tried.append(work)
        if len(tried) == 1:
            raise RuntimeError("not permitted")
        return record(work)

    (plain, _), (replayed, _) = trained("drop"), trained("drop", recorder)
    assert replayed.engine.why_eager is not None and replayed.engine._refused == {"warm-up"}
    assert len(tried) == 3 and {key[0] for key in replayed.engine._recorded} == {"refresh", "update"}
    assert_same(plain, replayed)


@pytest.mark.parametrize("name", NAMES)
def test_every_algorithm_can_be_trained_in_bfloat16(name: str) -> None:
    (full, means), (reduced, others) = trained(name), trained(name, record, precision="bf16")
    assert reduced.engine.why_eager is None
    assert_same(trained(name, precision="bf16")[0], reduced)
    one, other = loop_state(reduced)[0], loop_state(full)[0]
    assert all(tensor.dtype == other[key].dtype for key, tensor in one.items())
    off = (one["actor"] - other["actor"]).norm()
    assert 0 < off < 0.1 * other["actor"].norm()
    for key, mean in means.items():
        torch.testing.assert_close(mean, others[key], rtol=0.2, atol=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_all_networks_that_learn_are_reduced_but_drop_s_ratios(name: str) -> None:
    agent = start(name, precision="bf16")[0].agent
    parts = [agent, *(getattr(agent, part) for part in ("vae",) if hasattr(agent, part))]
    networks = {key: value for part in parts for key, value in vars(part).items() if isinstance(value, Parameters)}
    networks |= {
        f"{key}'s target": value.target
        for key, value in networks.items()
        if isinstance(value, Network) and value.target_or_none is not None
    }
    assert networks and all(value.products == "bf16" for value in networks.values()), networks.keys()


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_graphs_are_the_steps(name: str, precision: str) -> None:
    how: dict[str, Any] = {"device": "cuda", "precision": precision}
    (_, means), (replayed, others) = trained(name, **how), trained(name, cuda_graph, **how)
    assert replayed.engine.why_eager is None
    for key in means:
        torch.testing.assert_close(means[key], others[key], rtol=1e-3, atol=1e-4)


def test_a_learning_rate_of_its_own_is_a_recording_of_its_own() -> None:
    slow: dict[str, Any] = {"actor_schedule": "cosine", "epochs": 3}
    plain, replayed = trained("sac", **slow)[0], trained("sac", record, **slow)[0]
    assert replayed.engine.why_eager is None
    assert list(replayed.engine._recorded) == [("update", replayed.settings.actor_scale(16), 0)], (
        "those of before are dropped"
    )
    assert_same(plain, replayed)


def test_a_resumed_run_records_anew() -> None:
    plain, _ = trained("drop")
    stopped, world = start("drop", record)
    while stopped.step < 16:
        advance(stopped, world)
    tensors, numbers = loop_state(stopped)
    saved = {name: tensor.clone() for name, tensor in tensors.items()}
    resumed, world = start("drop", record)
    restore_loop(resumed, world, saved, numbers)
    while resumed.step < 24:
        advance(resumed, world)
    assert resumed.engine.why_eager is None and len(resumed.engine._recorded) == 2, "its steps and those of its ratios"
    assert_same(plain, resumed)


@pytest.mark.parametrize("fault", ["python decides", "wrong numbers", "nothing", "not recordable"])
def test_what_cannot_be_replayed_is_noticed_and_taken_as_it_is(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "sac"
    recorder: Recorder = record
    loops: list[Loop] = []
    if fault == "python decides":
        name = "td3-bc"
        # Every third step moves the actor, and the loop is not told.
        monkeypatch.setattr("mopo_cli.agents.algorithms.td3_bc.ALGORITHM", replace(load(name), cycle=lambda _: 1))
    elif fault == "wrong numbers":
        recorder = changed(record, lambda: loops[-1].agent.actor.flat[1].mul_(1 + 1e-4))
    elif fault == "nothing":
        recorder = lambda work: lambda: None  # noqa: E731
    else:

        def refusing(work: Callable[[], None]) -> Callable[[], object]:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")

        recorder = refusing

    plain, world = start(name)
    odd, _ = start(name, recorder)
    loops.append(odd)
    for loop in (plain, odd):
        while loop.step < 24:
            advance(loop, world)
    assert odd.engine.why_eager is not None and "\n" not in odd.engine.why_eager and not odd.engine._recorded
    assert ("not permitted" in odd.engine.why_eager) == (fault == "not recordable")
    assert_same(plain, odd)


def test_a_finished_stack_is_freed_at_once() -> None:
    loop, _ = trained("sac", record)
    pool = weakref.ref(loop.pool)
    gc.disable()
    try:
        del loop
        assert pool() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("asks", [("normal", 1, 3), ("uniform", 1, 4), ("uniform", 1, 3, 2)])
def test_a_step_that_draws_otherwise_than_before_is_no_step_to_replay(asks: tuple[Any, ...]) -> None:
    tape = Tape(draws((0,), "test", 0, "cpu"))
    first = tape.uniform(1, 3)
    tape.rewind()
    assert tape.uniform(1, 3) is first
    kind, *shape = asks
    for position in (0, 1):  # in place of what was asked for, and after all of it
        tape.rewind()
        for _ in range(position):
            tape.uniform(1, 3)
        with pytest.raises(RuntimeError, match="before and draws"):
            getattr(tape, kind)(*shape)


def test_one_member_s_fault_shows_beside_a_huge_one() -> None:
    before, taken = torch.zeros(3, 100), torch.full((3, 100), 1e-3)
    taken[2] = 1e9
    replayed = taken.clone()
    assert _agree(before, replayed, taken)
    replayed[0] *= 1.1
    assert not _agree(before, replayed, taken)


def test_rounding_is_no_doubt() -> None:
    loops: list[Loop] = []

    def round_otherwise() -> None:
        sac = loops[0].agent
        assert isinstance(sac, Sac)
        sac.critic.flat.mul_(1 + 1e-7)

    loop, world = start("sac", changed(record, round_otherwise))
    loops.append(loop)
    while loop.step < 24:
        advance(loop, world)
    assert loop.engine.why_eager is None


def test_a_member_that_has_diverged_is_replayed_as_such() -> None:
    loop, world = start("sac", record)
    loop.agent.actor.flat[1] = torch.nan
    while loop.step < 24:
        advance(loop, world)
    assert loop.engine.why_eager is None and loop.agent.finite().tolist() == [True, False]
