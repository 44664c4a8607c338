"""Does a stack of policies fit into memory? Checked before the data are read, and again for a whole stack."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Shapes:
    """How many transitions a dataset has, how wide they are, and the environment that they were logged in."""

    rows: int
    obs_dim: int
    act_dim: int
    env_id: str | None


def shapes_of(dataset: Path) -> Shapes:
    """Those of a file, whose columns are not read; raises what `read_dataset` does."""
    return Shapes(*dataset_shape(dataset), read_dataset_info(dataset).env_id)


def check_policies(settings: TrainPolicy, shapes: Shapes, options: Options, device: torch.device) -> None:
    """SettingsError where a policy per seed would not fit: by the settings and the size of the dataset alone."""
    oracle = settings.penalty == ORACLE
    rows = Rows(shapes.obs_dim, shapes.act_dim, len(uncertainty_names(settings, [settings.penalty])))

    def estimate(some: TrainPolicy) -> Needed:
        members = some.seed_count
        size = crew_size(members, device, oracle)
        return policy_bytes(some, rows, shapes.rows, device, size, some.h, members)

    check_memory(settings, estimate, device)
    if shapes.env_id is not None and settings.eval_every:
        _check_played(settings, shapes.env_id, options, device, oracle)


def check_stack(opened: OpenWorld, members: tuple[Member, ...], settings: PolicyTraining, device: torch.device) -> None:
    """SettingsError where the members would not fit beside the data, which are there."""
    world = opened.world
    longest, elites = (
        max(member.h for member in members),
        max((len(each.elites) for each in world.ensembles), default=0),
    )

    def estimate(some: PolicyTraining) -> Needed:
        size = crew_size(len(members), device, world.how.oracle is not None)
        needed = policy_bytes(some, world.rows, len(world.real), device, size, longest, len(members), elites)
        del needed["data"]
        return needed

    check_memory(settings, estimate, device)


def _check_played(settings: TrainPolicy, env_id: str, options: Options, device: torch.device, oracle: bool) -> None:
    """The same of the environments that the policies are evaluated in while they train."""
    members = settings.seed_count
    size = crew_size(members, device, oracle)
    players = max(1, free_processes(options, device, members, size))
    check_memory(
        settings,
        lambda some: environment_bytes(env_id, players * some.eval_episodes),
        torch.device("cpu"),
        "Evaluation",
    )
