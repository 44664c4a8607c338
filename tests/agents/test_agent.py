"""What of an agent a checkpoint holds, under the names that checkpoints have always had, and which of it is watched."""

import pytest
from probes.stacks import start

from mopo_cli.agents.algorithm import agent_state, parts, restore_agent
from mopo_cli.agents.algorithms import NAMES
from mopo_cli.nets.network import Network

SAC = ["actor", "critic", "alpha"], {"target", "log_alpha"}
# The networks and numbers that have Adams, in the order of these, and the other tensors.
STATES: dict[str, tuple[list[str], set[str]]] = {
    "awr": (["actor", "value"], {"returns", "weights"}),
    "bc": (["actor"], set()),
    "bear": ([*SAC[0], "multiplier", "encoder", "decoder"], SAC[1] | {"log_multiplier"}),
    "brac-p": ([*SAC[0], "behaviour"], SAC[1]),
    "brac-v": ([*SAC[0], "behaviour"], SAC[1]),
    "combo": SAC,
    "cql": SAC,
    "drop": ([*SAC[0], "tau", "f", "nu"], SAC[1] | {"objective"}),
    "iql": (["actor", "value", "critic"], {"target"}),
    "mobile": SAC,
    "morel": SAC,
    "sac": SAC,
    "td3-bc": (["actor", "critic"], {"actor_target", "critic_target", "imitation"}),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_names_in_a_checkpoint(name: str) -> None:
    agent = start(name)[0].agent
    adams, others = STATES[name]
    tensors, steps = agent_state(agent)
    moments = {f"{each}/{moment}" for each in adams for moment in ("first", "second")}
    logs = {"alpha", "multiplier"}
    assert set(tensors) == moments | others | (set(adams) - logs)
    assert len(steps) == len(adams)


def test_steps_are_those_of_the_adams_in_this_order() -> None:
    agent = start("bear")[0].agent
    restore_agent(agent, agent_state(agent)[0], [1, 2, 3, 4, 5, 6])
    networks = dict(parts(agent, Network))
    assert [int(networks[name].adam.steps) for name in ("actor", "critic", "encoder", "decoder")] == [1, 2, 5, 6]
    assert agent.alpha_adam.steps == 3 and agent.multiplier_adam.steps == 4  # type: ignore[attr-defined]
