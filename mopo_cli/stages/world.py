"""The world of the policy stages: the real rows, and the ensembles to branch in or the rollout file to learn from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mopo_cli.agents.loop import World
from mopo_cli.data.transitions import normalise_actions
from mopo_cli.dynamics.penalties import UNCERTAINTIES
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import Rows
from mopo_cli.errors import InputError
from mopo_cli.stages.inputs import Data, dataset_path, model_position, open_data, open_model
from mopo_cli.stages.runner import Stage, check_lineage
from mopo_cli.store.hdf5 import read_rollouts
from mopo_cli.store.run import RunFolder
from mopo_cli.tasks.termination import termination_rule


def policy_inputs(run: RunFolder, rollouts: str) -> dict[str, Path]:
    """What a policy is learned from: the dataset, and the model with its elites or a rollout file."""
    dataset = {"dataset": dataset_path(run)}
    if rollouts == "fresh":
        return dataset | {"model": run.model, "elites": run.elites}
    return dataset | {"rollouts": Path(rollouts)}


@dataclass(frozen=True)
class OpenWorld:
    """The dataset, and the world made of it; `model_seeds` are those of the ensembles in it, in order."""

    data: Data
    world: World
    model_seeds: tuple[int, ...]

    def model_of(self, seed: int) -> int:
        """Position of the ensemble that a policy seed uses, see `model_position`."""
        return model_position(self.model_seeds, seed)

    def model_seed(self, member: Member) -> int | None:
        """The seed of the ensemble that a member branches in; None where it learns from a rollout file."""
        return self.model_seeds[member.model] if self.model_seeds else None


def open_world(stage: Stage, inputs: dict[str, Path], device: torch.device) -> OpenWorld:
    """Open the stage's inputs; refuses a model or a rollout file made from other data (see check_lineage)."""
    data = open_data(inputs["dataset"], device)
    rows = Rows(data.observation.shape[1], data.action.shape[1], len(UNCERTAINTIES))
    none = torch.zeros(len(data.observation), rows.uncertainties, device=device)
    real = rows.pack(data.observation, data.action, data.reward, data.terminal, data.next_observation, none)
    present = stage.inputs["dataset"]["sha256"]
    rule = termination_rule(data.info.termination)
    if "model" in inputs:
        model = open_model(stage, data, device)
        ensembles = tuple(model.ensembles.values())
        return OpenWorld(data, World(rows, real, data.observation, rule, ensembles=ensembles), tuple(model.ensembles))
    columns, attributes = read_rollouts(inputs["rollouts"])
    made_from = str(attributes.get("dataset_sha256"))
    check_lineage(f"the rollout file {inputs['rollouts']}", made_from, present, stage.options, stage.report)
    buffer = _pack_rollouts(inputs["rollouts"], rows, columns, data, device)
    return OpenWorld(data, World(rows, real, data.observation, rule, buffer=buffer), ())


def _pack_rollouts(path: Path, rows: Rows, columns: dict[str, Any], data: Data, device: torch.device) -> torch.Tensor:
    shape = columns["observations"].shape[1], columns["actions"].shape[1]
    if shape != (rows.obs_dim, rows.act_dim):
        raise InputError(
            f"The rollout file {path} has {shape[0]} observations and {shape[1]} actions, the dataset has "
            f"{rows.obs_dim} and {rows.act_dim}.",
            hint="mopo rollout",
        )
    missing = [name for name in UNCERTAINTIES if f"uncertainty/{name}" not in columns]
    if missing:
        raise InputError(f"The rollout file {path} has no column uncertainty/{missing[0]}.", hint="mopo rollout")

    def tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))

    uncertainty = np.stack([columns[f"uncertainty/{name}"] for name in UNCERTAINTIES], axis=1)
    packed = rows.pack(
        tensor(columns["observations"]),
        tensor(normalise_actions(columns["actions"], data.info)),
        tensor(columns["rewards"]),
        tensor(columns["terminals"]),
        tensor(columns["next_observations"]),
        tensor(uncertainty),
    )
    return packed.to(device)
