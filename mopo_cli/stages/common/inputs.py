"""What the stages open: the dataset, the ensembles, the files of a run. Each says in one sentence what is missing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mopo_cli.data.history import frame_width, steps_text
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions, normalise_actions
from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.nets.gaussian import gaussian_layout
from mopo_cli.nets.stacked import Layout
from mopo_cli.stages.runner import Stage
from mopo_cli.store.checkpoint import load_tensors
from mopo_cli.store.documents import Elites, checked, read_document
from mopo_cli.store.headers import HEADERS
from mopo_cli.store.lineage import command_again, read_lineage
from mopo_cli.store.run import RunFolder


def dataset_path(run: RunFolder) -> Path:
    """The dataset the run works on; InputError where there is none or it is gone, CorruptError where none is named."""
    record = read_lineage(run).get("fetch-data")
    if record is None:
        raise InputError(f"The run {run.root} has no dataset yet.", hint="mopo fetch-data --dataset NAME")
    if "dataset" not in record.outputs:
        raise CorruptError(f"{run.lineage} is damaged or was edited: it records no dataset made by fetch-data.")
    path = run.root / record.outputs["dataset"]["path"]
    if not path.is_file():
        raise InputError(f"The dataset {path} of the run {run.root} is gone.", hint=command_again(run, "fetch-data"))
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

    @property
    def frame(self) -> int:
        """How wide the newest frame of an observation is."""
        return frame_width(self.observation.shape[1], self.action.shape[1], self.info.history)


def open_data(path: Path, device: torch.device) -> Data:
    """Read a dataset and put it on the device."""
    transitions, info = read_dataset(path)
    actions = normalise_actions(transitions.actions, info)
    columns = transitions.observations, actions, transitions.rewards, transitions.terminals
    return Data(transitions, info, *(float_tensor(c).to(device) for c in (*columns, transitions.next_observations)))


def float_tensor(array: Any) -> Tensor:
    """An array as a tensor of float32."""
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


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


def open_ensemble(stage: Stage, data: Data, device: torch.device, seed: int) -> tuple[int, Ensemble]:
    """Of `open_model`, what a run with `seed` uses: the seed of the ensemble, see `model_position`, and itself."""
    ensembles = list(open_model(stage, data, device).items())
    return ensembles[model_position(tuple(model_seed for model_seed, _ in ensembles), seed)]


def open_model(stage: Stage, data: Data, device: torch.device) -> dict[int, Ensemble]:
    """Read the model, its ensembles by their seeds, and the elites chosen for it: the stage's inputs of these names.

    InputError where the model was made from other data (see check_lineage) or the elites for another model,
    CorruptError where one of the files is damaged.
    """
    path = stage.run.model
    tensors, meta = open_tensors(path, "model", device)
    with described(path):
        check_lineage(stage, f"the model {path}", meta["dataset_sha256"])
        check_dimensions(f"the model {path}", meta, data.transitions, data.info, "mopo train-model")
        inputs, outputs = meta["obs_dim"] + meta["act_dim"], data.frame + 1
        layout = gaussian_layout(inputs, outputs, meta["hidden"], meta["layers"])
        elites = _open_elites(stage, meta)
        ensembles = {}
        for seed in meta["seeds"]:
            prefix = f"seed-{seed}/"
            parts = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
            flat, scaler = pack(layout, parts, meta["networks"]), (parts["input_mean"], parts["input_std"])
            targets = _target_scale(parts, outputs)
            ensembles[seed] = Ensemble(flat, layout, *scaler, meta["obs_dim"], elites[seed], *targets)
    return ensembles


def _target_scale(parts: dict[str, Tensor], width: int) -> tuple[Tensor, Tensor] | tuple[()]:
    """The mean and deviation by which targets were standardised; nothing for a model that learned raw ones."""
    if "target_mean" not in parts and "target_std" not in parts:
        return ()
    mean, std = parts["target_mean"], parts["target_std"]
    if not mean.shape == std.shape == (width,):
        raise ValueError(f"target_mean and target_std do not have {width} numbers each")
    return mean, std


def _open_elites(stage: Stage, meta: dict[str, Any]) -> dict[int, tuple[int, ...]]:
    path = stage.run.elites
    chosen = read_document(path, Elites)
    with described(path):
        if chosen["model_sha256"] != stage.inputs["model"]["sha256"]:
            raise InputError(f"{path} was made for another model.", hint="mopo select-elites")
        elites = {seed: tuple(chosen["elites"][str(seed)]) for seed in meta["seeds"]}
        networks = range(meta["networks"])
        if not all(k in networks for chosen in elites.values() for k in chosen):
            raise ValueError(f"elites must be among the networks 0 to {networks[-1]}")
        return elites


def open_tensors(path: Path, kind: str, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the header of a file of one kind, see `HEADERS`; InputError when it is of another."""
    tensors, meta = load_tensors(path, str(device))
    if meta.get("kind") != kind:
        raise InputError(f"{path} is not a {kind} but a {meta.get('kind', 'file of another kind')}.")
    return tensors, checked(path, HEADERS[kind], meta)


@contextmanager
def described(path: Path, hint: str = "") -> Iterator[None]:
    """Around code that relies on a file's description of itself: content that does not fit it is a CorruptError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    # torch raises RuntimeError for shapes that do not fit.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        what = " ".join(repr(error).split())[:300]
        raise CorruptError(f"{path} is damaged, its parts do not fit ({what}).", hint) from error


def pack(layout: Layout, matrices: dict[str, Tensor], members: int) -> Tensor:
    """`layout.pack` of matrices that come from a file; ValueError where one does not have the shape of the layout."""
    for name, shape in layout.shapes:
        if matrices[name].shape != (members, *shape):
            raise ValueError(f"{name} has shape {tuple(matrices[name].shape)}, not {(members, *shape)}")
    return layout.pack(matrices)


def check_lineage(stage: Stage, what: str, recorded: str) -> None:
    """Refuse ``what`` ("the model model/ensemble.safetensors") when it was made from another dataset than the stage's.

    ``recorded`` is the dataset's sha256 in its metadata; see `check_made_from`.
    """
    hint = "make it again from this dataset, or use it as it is with --allow-mismatch"
    check_made_from(stage, "dataset", recorded, f"{what[:1].upper()}{what[1:]} was made from other data", hint)


def check_made_from(stage: Stage, role: str, recorded: str, message: str, hint: str) -> None:
    """InputError that says both hashes unless ``recorded`` is that of the stage's input; a warning if allowed."""
    present = stage.inputs[role]["sha256"]
    if recorded == present:
        return
    message = f"{message}: sha256 {recorded}, now {present}."
    if not stage.options.allow_mismatch:
        raise InputError(message, hint)
    stage.report.warn(message)


def check_dimensions(what: str, meta: dict[str, Any], transitions: Transitions, info: DatasetInfo, hint: str) -> None:
    """InputError unless ``what`` ("the policy PATH") is for states and actions as wide as the dataset's.

    And for observations of as many steps.
    """
    if (steps := meta.get("history", 1)) != info.history:
        raise InputError(
            f"{what[:1].upper()}{what[1:]} is for observations of {steps_text(steps)}, the dataset has some of "
            f"{steps_text(info.history)}.",
            hint=hint,
        )
    here = transitions.obs_dim, transitions.act_dim
    if (meta["obs_dim"], meta["act_dim"]) != here:
        raise InputError(
            f"{what[:1].upper()}{what[1:]} is for {meta['obs_dim']} observations and {meta['act_dim']} actions, "
            f"the dataset has {here[0]} and {here[1]}.",
            hint=hint,
        )
