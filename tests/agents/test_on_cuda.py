"""Every algorithm on a GPU that computes on the CPU: what is on which device, and where host and device meet."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from probes.fake_cuda import FakeCuda, fake_cuda
from probes.gpu import as_on_cuda, off_device
from probes.stacks import MEMBERS, SCHEDULE, start

from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.runs import Loop
from mopo_cli.agents.world import World
from mopo_cli.engine.capture import cuda_graph
from mopo_cli.store.checkpoint import load_tensors, save_tensors

every = pytest.mark.parametrize("name", NAMES)
# Blocks of 4 steps, three in an epoch; rollouts in the middle of an epoch, too.
BLOCKS = replace(SCHEDULE, steps_per_epoch=12, rollout_every=8)

FETCHES = {
    "engine.capture._agree": "the comparison of the first replays with the steps",
    "agents.algorithm.agent_state": "Adam's steps, for that comparison and for checkpoints",
    "agents.branching.branch_member": "whether a member has a penalty, once per rollouts",
    "agents.branching._covered": "who is alive, once per rollouts",
    "agents.algorithms.morel.halting_options": "the threshold, once per rollouts",
    "agents.dice.Ratio.__call__": "the rows of each network, once per step of a rollout",
    "dynamics.branched_rollouts.branch": "the rows that live on, and how many ended",
    "agents.algorithms.awr.returns_and_advantages": "the episodes' last steps, once per refresh",
    "agents.returns.lambda_returns": "how long the longest episode is, once per refresh",
    "agents.returns.episode_returns": "the episodes' last steps, at the start",
    "agents.world.World.least_reward": "of the data, at the start",
    "agents.algorithms.iql.start": "the range of the returns, at the start",
    "agents.algorithms.mobile.start": "the range of the returns, at the start",
}
SENT = {
    "nets.network.start_network": "initial weights, which are drawn on the CPU for all devices",
    "agents.runs.start_loop": "the weights of the penalties",
    "agents.algorithms.drop.start": "the elites' numbers",
    "agents.algorithms.drop.Drop.__post_init__": "the levels of the quantiles",
    "agents.algorithms.morel.start": "the reward of halting",
    "dynamics.ensemble.Ensemble.only_elites": "the elites' numbers",
    "dynamics.branched_rollouts.sample_step": "the elites' numbers",
    "elsewhere": "the data, by these tests",
}


def begin(name: str, precision: str = "fp32") -> tuple[Loop, World]:
    return start(name, cuda_graph, BLOCKS, "cuda", precision)


def train(loop: Loop, world: World, end: int) -> list[dict[str, Any]]:
    means = []
    while loop.step < end:
        means.append(advance(loop, world))
        assert loop.engine.why_eager is None
    return [epoch for epoch in means if epoch is not None]


def assert_met_where_meant(cuda: FakeCuda) -> None:
    assert not cuda.fetched.keys() - FETCHES.keys() and not cuda.sent.keys() - SENT.keys(), (cuda.fetched, cuda.sent)


@every
def test_a_run_stays_on_the_device_and_learns_what_whole_stacks_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda() as cuda:
        loop, world = begin(name)
        (means,) = train(loop, world, 12)
        assert_met_where_meant(cuda)
        cuda.forget()
        train(loop, world, 16)  # neither rollouts nor the end of an epoch, and all replays have been compared
        assert not cuda.fetched and not cuda.sent
        assert cuda.recorded >= len(loop.phases) + loop.cycle
        assert off_device([loop, world, means]) == []
        tensors, numbers = loop_state(loop)
        tensors = {key: tensor.cpu() for key, tensor in (tensors | means).items()}
    with as_on_cuda(monkeypatch):
        plain, world = start(name, None, BLOCKS)
        (others,) = train(plain, world, 16)
        wanted, wanted_numbers = loop_state(plain)
    assert numbers == wanted_numbers and tensors.keys() == (wanted | others).keys()
    assert all(torch.equal(tensors[key], tensor) for key, tensor in (wanted | others).items())


@every
def test_a_checkpoint_is_put_back_on_the_device_and_policies_are_read_from_there(name: str, tmp_path: Path) -> None:
    """In bfloat16, and from a file, which may as well have been written on a CPU."""
    with fake_cuda() as cuda:
        loop, world = begin(name, "bf16")
        train(loop, world, 4)
        save_tensors(tmp_path / "state", *loop_state(loop))
        train(loop, world, 12)
        resumed, world = begin(name, "bf16")
        tensors, numbers = load_tensors(tmp_path / "state", str(world.real.device))
        restore_loop(resumed, world, tensors, numbers)
        assert off_device(resumed) == []
        train(resumed, world, 12)
        wanted = loop_state(loop)[0]
        assert all(torch.equal(tensor, wanted[key]) for key, tensor in loop_state(resumed)[0].items())
        assert off_device(resumed) == []

        cuda.forget()
        algorithm, agent = load(name), resumed.agent
        assert agent.finite().tolist() == [True] * len(MEMBERS)
        for m in range(len(MEMBERS)):
            assert agent.policy(m).greedy(world.start).is_cuda and off_device(algorithm.files(agent, m)) == []
        algorithm.choices(agent)
        assert cuda.fetched == {"elsewhere": 1} and not cuda.sent
