"""What the stages open: the device, the dataset on it, the ensembles. Each says in one sentence what is missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mopo_cli.data.transitions import DatasetInfo, Transitions, normalise_actions
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.errors import InputError, UsageError
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.stages.runner import Options, Stage
from mopo_cli.store.atomic import read_json
from mopo_cli.store.checkpoint import load_tensors
from mopo_cli.store.hdf5 import read_dataset
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder


def open_device(options: Options) -> torch.device:
    """The device to compute on: `auto` takes a CUDA GPU where there is one. Sets the CPU threads where asked to.

    UsageError for a device that this machine or this build of torch does not have.
    """
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--device {options.device} is not usable here: {str(error).splitlines()[0]}", hint="--device cpu"
        ) from error
    return device


def dataset_path(run: RunFolder) -> Path:
    """The dataset the run works on; InputError where none was fetched or it is gone."""
    record = read_lineage(run).get("fetch-data")
    if record is None:
        raise InputError(f"The run {run.root} has no dataset yet.", hint="mopo fetch-data --dataset NAME")
    path = run.root / record.outputs["dataset"]["path"]
    if not path.is_file():
        raise InputError(f"The dataset {path} of the run {run.root} is gone.", hint="mopo fetch-data --force")
    return path


@dataclass(frozen=True)
class Data:
    """A dataset in the core's terms, on the device: actions in [-1, 1], columns `[N, ·]`, reward and terminal `[N]`."""

    transitions: Transitions
    info: DatasetInfo
    observation: Tensor
    action: Tensor
    reward: Tensor
    terminal: Tensor
    next_observation: Tensor


def open_data(path: Path, device: torch.device) -> Data:
    """Read a dataset and put it on the device."""
    transitions, info = read_dataset(path)

    def tensor(array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)

    return Data(
        transitions,
        info,
        tensor(transitions.observations),
        tensor(normalise_actions(transitions.actions, info)),
        tensor(transitions.rewards),
        tensor(transitions.terminals),
        tensor(transitions.next_observations),
    )


@dataclass(frozen=True)
class Model:
    """The ensembles of a run by the seed they were trained with, and what model.safetensors says of itself."""

    ensembles: dict[int, Ensemble]
    meta: dict[str, Any]

    def for_seed(self, seed: int) -> Ensemble:
        """The ensemble that a run with this seed uses, see `model_position`."""
        return tuple(self.ensembles.values())[model_position(tuple(self.ensembles), seed)]


def model_position(model_seeds: tuple[int, ...], seed: int) -> int:
    """Position of the ensemble that a run with `seed` uses: the only one, or that of the same seed; else InputError."""
    if len(model_seeds) <= 1:
        return 0
    if seed not in model_seeds:
        have = ",".join(map(str, model_seeds))
        raise InputError(
            f"The model has ensembles for the seeds {have}, none for seed {seed}.",
            hint=f"mopo train-model --seed-list {have},{seed}",
        )
    return model_seeds.index(seed)


def open_model(stage: Stage, device: torch.device) -> Model:
    """Read the model and the elites chosen for it, the stage's inputs of these names.

    InputError where elites.json was made for another model.
    """
    run = stage.run
    tensors, meta = load_tensors(run.model, str(device))
    chosen = read_json(run.elites)
    if chosen["model_sha256"] != stage.inputs["model"]["sha256"]:
        raise InputError(f"{run.elites} was made for another model.", hint="mopo select-elites")
    layout = gaussian_layout(
        meta["obs_dim"] + meta["act_dim"], meta["obs_dim"] + 1, meta["hidden"], meta["layers"]
    )
    ensembles = {}
    for seed in meta["seeds"]:
        prefix = f"seed-{seed}/"
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        elites = tuple(chosen["elites"][str(seed)])
        ensembles[seed] = Ensemble(
            layout.pack(own), layout, own["input_mean"], own["input_std"], meta["obs_dim"], elites
        )
    return Model(ensembles, meta)
