"""Does a stack of policies fit into memory? Checked before the data are read, and again for a whole stack."""

from pathlib import Path

import torch

from mopo_cli.agents.crew import crew_size
from mopo_cli.config.schema import PolicyTraining, TrainPolicy
from mopo_cli.data.transition_files import dataset_shape, read_dataset_info
from mopo_cli.dynamics.penalties import ORACLE
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows
from mopo_cli.stages.common.memory import check_memory
from mopo_cli.stages.common.memory_estimates import Needed, environment_bytes, policy_bytes
from mopo_cli.stages.common.open_world import OpenWorld, uncertainty_names
from mopo_cli.stages.common.watch import free_processes
from mopo_cli.stages.runner import Options


def check_policies(settings: TrainPolicy, dataset: Path, options: Options, device: torch.device) -> None:
    """SettingsError where a policy per seed would not fit, or the environments that they are evaluated in meanwhile.

    By the settings and the size of the dataset alone, whose columns are not read; raises what `read_dataset` does.
    """
    (transitions, obs_dim, act_dim), env_id = dataset_shape(dataset), read_dataset_info(dataset).env_id
    rows = Rows(obs_dim, act_dim, len(uncertainty_names(settings, [settings.penalty])))

    def crew(members: int) -> int:
        return crew_size(members, device, settings.penalty == ORACLE)

    def estimate(some: TrainPolicy) -> Needed:
        members = some.seed_count
        return policy_bytes(some, rows, transitions, device, crew(members), some.h, members)

    check_memory(settings, estimate, device)
    if env_id is not None and settings.eval_every:
        seeds = settings.seed_count
        players = max(1, free_processes(options, device, seeds, crew(seeds)))

        def played(some: TrainPolicy) -> Needed:
            return environment_bytes(env_id, players * some.eval_episodes)

        check_memory(settings, played, torch.device("cpu"), "Evaluation")


def check_stack(opened: OpenWorld, members: tuple[Member, ...], settings: PolicyTraining, device: torch.device) -> None:
    """SettingsError where the members would not fit beside the data, which are there."""
    world = opened.world
    longest, elites = max(member.h for member in members), max((len(e.elites) for e in world.ensembles), default=0)

    def estimate(some: PolicyTraining) -> Needed:
        size = crew_size(len(members), device, world.how.oracle is not None)
        needed = policy_bytes(some, world.rows, len(world.real), device, size, longest, len(members), elites)
        del needed["data"]
        return needed

    check_memory(settings, estimate, device)
