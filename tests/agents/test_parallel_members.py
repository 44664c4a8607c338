"""A stack trained by processes side by side: what it learns is what it learns in one process, bit for bit."""

import gc
import os
import signal
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from probes.stacks import MEMBERS, SCHEDULE, assert_same, start
from torch import Tensor

from mopo_cli.agents import parallel_members as crews
from mopo_cli.agents.algorithms import NAMES
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.parallel_members import Crew, crew_size, open_crew
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.engine.members import Member
from mopo_cli.engine.parallel import LostError, can_fork, use_threads

pytestmark = pytest.mark.skipif(not can_fork(), reason="needs processes that can be forked")

# Blocks of 4 steps, three in an epoch, rollouts before the first and the second of an epoch, or the third.
BLOCKS = replace(SCHEDULE, steps_per_epoch=12, rollout_every=8)
THREE = (*MEMBERS, Member(5, "ensemble-std", 2.0, 1, 0))


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Members are handed on after every block."""
    monkeypatch.setattr(crews, "_STEPS", 4)
    use_threads(2)
    yield
    use_threads(1)


def never() -> bool:
    return False


def nobody(steps: float) -> None:
    pass


def learner_of(loop: Loop) -> Any:
    agent: Any = loop.agent
    return agent.settings if hasattr(agent, "settings") else agent.sac.settings


def side_by_side(name: str, epochs: int, members: tuple[Member, ...] = THREE) -> tuple[Loop, dict[str, Tensor] | None]:
    loop, world = start(name, schedule=BLOCKS, members=members)
    means = None
    with open_crew(loop, world, learner_of(loop)) as crew:
        assert crew is not None and len(crew.helpers.each) == min(len(members), 2)
        while loop.step < 12 * epochs:
            means = crew.advance(never, nobody)
    return loop, means


def in_one_process(name: str, epochs: int, members: tuple[Member, ...] = THREE) -> tuple[Loop, Any]:
    loop, world = start(name, schedule=BLOCKS, members=members)
    means = None
    while loop.step < 12 * epochs:
        means = advance(loop, world)
    return loop, means


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_is_what_is_learned_in_one_process(name: str) -> None:
    (together, means), (alone, others) = side_by_side(name, 3), in_one_process(name, 3)
    assert_same(together, alone)
    assert together.tallies == alone.tallies
    assert means is not None and means.keys() == others.keys()
    assert all(torch.equal(means[key], others[key]) for key in means)


def test_as_many_members_as_processes_or_many_more() -> None:
    for count in (2, 7):
        members = tuple(Member(seed, "max-var", 0.5, 1, 0) for seed in range(count))
        assert_same(side_by_side("sac", 2, members)[0], in_one_process("sac", 2, members)[0])


@pytest.mark.parametrize("name", ["sac", "drop"])
def test_legs_of_many_blocks_end_where_rollouts_are_due(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "_STEPS", 100)
    monkeypatch.setattr(crews, "_TURNS", 1)
    assert_same(side_by_side(name, 3)[0], in_one_process(name, 3)[0])
    loop, _ = start(name, schedule=BLOCKS)
    assert [crews._goal(loop, step, 24) for step in (0, 4, 8, 12, 16)] == [8, 8, 16, 16, 24]
    assert [crews._goal(loop, step, 12) for step in (-12, -4, 8)] == [-8, 0, 12]


def stopping_after(polls: int) -> Callable[[], bool]:
    count = iter(range(1000))
    return lambda: next(count) >= polls


@pytest.mark.parametrize("name", ["sac", "drop", "bear"])
@pytest.mark.parametrize("polls", [0, 1, 2, 4, 6])
def test_stopped_at_any_moment_all_stand_at_the_same_step_and_go_on_elsewhere(name: str, polls: int) -> None:
    stopped, world = start(name, schedule=BLOCKS, members=THREE)
    before = stopped.step
    with open_crew(stopped, world, learner_of(stopped)) as crew:
        assert crew is not None
        crew.advance(stopping_after(polls), nobody)
        assert before <= stopped.step <= before + 12 and stopped.step % 4 == 0
        if polls in (1, 2):
            assert before < stopped.step < max(before + 12, 0)
    tensors, numbers = loop_state(stopped)
    # From the crew's state to one process, and back to another crew.
    alone, world = start(name, schedule=BLOCKS, members=THREE)
    restore_loop(alone, world, {key: tensor.clone() for key, tensor in tensors.items()}, numbers)
    again, world = start(name, schedule=BLOCKS, members=THREE)
    with open_crew(again, world, learner_of(again)) as crew:
        assert crew is not None
        restore_loop(again, world, tensors, numbers)
        while again.step < 24:
            crew.advance(never, nobody)
    while alone.step < 24:
        advance(alone, world)
    whole, _ = in_one_process(name, 2)
    assert_same(alone, whole)
    assert_same(again, whole)


def test_steps_are_told_as_they_are_taken() -> None:
    loop, world = start("sac", schedule=BLOCKS, members=THREE)
    progress: list[float] = []
    with open_crew(loop, world, learner_of(loop)) as crew:
        assert crew is not None
        crew.advance(never, progress.append)
    assert sum(progress) == pytest.approx(12) and len(progress) >= 9


def test_a_member_that_diverges_leaves_the_others_as_they_are() -> None:
    loops = []
    for open_ in (open_crew, None):
        loop, world = start("sac", schedule=BLOCKS, members=THREE)
        loop.agent.actor.flat[1] = torch.nan
        if open_ is None:
            while loop.step < 24:
                advance(loop, world)
        else:
            with open_(loop, world, learner_of(loop)) as crew:
                assert isinstance(crew, Crew)
                while loop.step < 24:
                    crew.advance(never, nobody)
        loops.append(loop)
    together, alone = loops
    assert together.agent.finite().tolist() == alone.agent.finite().tolist() == [True, False, True]
    for m in (0, 2):
        assert torch.equal(together.agent.actor.flat[m], alone.agent.actor.flat[m])


def test_a_lost_process_is_told() -> None:
    loop, world = start("sac", schedule=BLOCKS, members=THREE)
    with open_crew(loop, world, learner_of(loop)) as crew:
        assert crew is not None
        crew.advance(never, nobody)
        os.kill(crew.helpers.each[0].process.pid, signal.SIGKILL)
        with pytest.raises(LostError):
            while loop.step < 1200:
                crew.advance(never, nobody)


def test_a_finished_stack_is_freed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pools can be gigabytes, and an ablation trains one stack after another."""
    freed: list[weakref.ref[Loop]] = []

    def noted(*given: Any) -> Loop:
        loop = start_loop(*given)
        freed.append(weakref.ref(loop))
        return loop

    monkeypatch.setattr(crews, "start_loop", noted)
    gc.collect()
    gc.disable()
    try:
        loop, world = start("sac", schedule=BLOCKS, members=THREE)
        with open_crew(loop, world, learner_of(loop)) as crew:
            assert crew is not None
            crew.advance(never, nobody)
        freed.append(weakref.ref(loop))
        del loop, crew
        assert len(freed) == 4 and all(one() is None for one in freed)
    finally:
        gc.enable()


def test_who_trains_alone() -> None:
    cpu = torch.device("cpu")
    assert [crew_size(members, cpu) for members in (1, 2, 3, 9)] == [0, 2, 2, 2]
    assert crew_size(3, torch.device("cuda")) == 0
    assert crew_size(3, cpu, oracle=True) == 0, "a simulator's threads cannot be forked"
    use_threads(4)
    assert [crew_size(members, cpu) for members in (1, 3, 9)] == [0, 3, 4]
    use_threads(1)
    assert crew_size(3, cpu) == 0
    loop, world = start("sac", members=THREE)
    with open_crew(loop, world, learner_of(loop)) as crew:
        assert crew is None
    use_threads(2)
    asking = replace(world, options=replace(world.options, oracle=lambda *_: torch.zeros(1)))
    with open_crew(loop, asking, learner_of(loop)) as crew:
        assert crew is None
