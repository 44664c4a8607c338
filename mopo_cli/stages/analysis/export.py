"""export: a policy as one file that needs nothing of mopo, compared with the policy before it is published."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mopo_cli import __version__
from mopo_cli.data.ranges import column_names, observation_range
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import InputError, MopoError
from mopo_cli.policy.agreement import difference, extremes, some_rows
from mopo_cli.policy.files import FORMAT, WRITERS, read_policy, read_weights
from mopo_cli.policy.onnx_file import require_onnx
from mopo_cli.policy.run import read_run
from mopo_cli.policy.weights import Weights, joined
from mopo_cli.stages.common.inputs import check_dimensions, dataset_path
from mopo_cli.stages.common.policies import greedy_policy, open_policy
from mopo_cli.stages.common.trained_policies import AFTER_DIVERGING, policy_inputs_of
from mopo_cli.stages.common.user_units import data_header, offset_of
from mopo_cli.store.atomic import publish
from mopo_cli.store.documents import CELL, read_document
from mopo_cli.store.lineage import check_recorded, describe_files, read_lineage, stored_path
from mopo_cli.store.run import RunFolder

_GOLDEN = 3

Act = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Chosen:
    """The policies to export: their name, their files by seed, and the settings that they were trained with."""

    name: str
    files: dict[int, Path]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Data:
    """What the policies were trained on: observations `[N, O]` f8 in the user's units, and what headers say of it."""

    transitions: Transitions
    info: DatasetInfo
    observations: NDArray[np.float64]
    header: dict[str, Any]


def run_export(
    run: RunFolder, policy: str | None, kind: str, output: Path | None, *, ensemble: bool, force: bool
) -> dict[str, Any]:
    """Write a file per seed, or with ``ensemble`` one whose action is the mean of theirs; returns the result object.

    ``policy`` is a policy.safetensors, a name of the run, or None for the policy trained last; ``kind`` is "onnx" or
    "numpy". InputError where the policy is missing or of other data, a file is there already (unless ``force``), or a
    package is missing; CorruptError for damaged inputs; MopoError, and nothing is written, where a file would compute
    other actions.
    """
    if kind == "onnx":
        require_onnx("mopo export --to onnx", "onnx", "onnxruntime")
    chosen = _chosen(run, policy, kind)
    dataset = dataset_path(run)
    files = describe_files(run, {"dataset": dataset, **policy_inputs_of(chosen.files)})
    check_recorded(run, files)
    places = _places(run, chosen, kind, output, ensemble)
    if folders := [path for path in places if path.is_dir()]:
        raise InputError(f"{folders[0]} is a folder, not a file.", hint="-o FILE takes another place")
    if there := [path for path in places if path.exists() and not force]:
        raise InputError(f"{there[0]} is there already.", hint="--force writes over it, -o FILE takes another place")
    data = _open_data(dataset, files["dataset"]["sha256"])
    contents, apart = {}, 0.0
    for path, seeds in places.items():
        digests = [files[f"policy/{seed}"]["sha256"] for seed in seeds]
        weights, acts = zip(*(_open_policy(chosen.files[seed], data) for seed in seeds), strict=True)
        about = _about(chosen, data, seeds, digests, _mean(acts)) | {"verdict": _verdict(run, chosen.name, digests)}
        contents[path], off = _made(kind, joined(list(weights)), about, data, _mean(acts))
        apart = max(apart, off)
    for path, content in contents.items():
        with publish(path) as temporary:
            temporary.write_bytes(content)
    outputs = {path.stem: str(path) for path in contents}
    return {"policy": chosen.name, "to": kind, "outputs": outputs, "difference": apart}


def _chosen(run: RunFolder, policy: str | None, kind: str) -> Chosen:
    if policy is not None and policy.endswith(".safetensors"):
        path = Path(policy)
        _, header = read_weights(path)
        in_folder = path.absolute().parent.name.startswith("seed-")
        name = path.absolute().parents[1].name if in_folder else path.stem
        return Chosen(name, {header["seed"]: path}, _settings_of(run, path))
    trained = read_run(run.root).policies
    if not trained:
        raise InputError(f"The run {run.root} has no trained policy yet.", hint="mopo train-policy")
    name = policy or list(trained)[-1]
    if name not in trained:
        raise InputError(
            f"The run {run.root} has no policy {name}; it has {', '.join(sorted(trained))}.",
            hint=f"mopo export {min(trained)} --to {kind}, or the path of a policy.safetensors",
        )
    if not trained[name]:
        hint = f"mopo train-policy with {AFTER_DIVERGING}"
        raise InputError(f"The policy {name} has no files: all its seeds diverged.", hint)
    return Chosen(name, trained[name], read_lineage(run)[f"train-policy/{name}"].settings)


def _settings_of(run: RunFolder, path: Path) -> dict[str, Any]:
    """The settings that a policy file was trained with; none where the run does not say."""
    place = stored_path(run, path)
    for record in read_lineage(run).values():
        if any(file["path"] == place for file in record.outputs.values()):
            return record.settings
    cell = path.absolute().parents[1] / "cell.json"
    settings: dict[str, Any] = read_document(cell, CELL)["settings"] if cell.is_file() else {}
    return settings


def _places(
    run: RunFolder, chosen: Chosen, kind: str, output: Path | None, ensemble: bool
) -> dict[Path, tuple[int, ...]]:
    """The files to write, each with the seeds in it."""
    ending, _ = WRITERS[kind]
    folder, several = run.root / "exports" / chosen.name, len(chosen.files) > 1
    if ensemble:
        return {output or folder / f"ensemble{ending}": tuple(chosen.files)}
    if output is None:
        return {folder / f"seed-{seed}{ending}": (seed,) for seed in chosen.files}
    stems = {seed: f"{output.stem}-seed-{seed}" if several else output.stem for seed in chosen.files}
    return {output.with_name(f"{stem}{output.suffix}"): (seed,) for seed, stem in stems.items()}


def _open_data(path: Path, sha256: str) -> Data:
    transitions, info = read_dataset(path)
    offset = offset_of(info)
    observations = transitions.observations.astype(np.float64) + (np.array(offset) if offset else 0.0)
    header: dict[str, Any] = {
        "obs_dim": transitions.obs_dim,
        "act_dim": transitions.act_dim,
        "history": info.history,
        "action_low": info.action_low.tolist(),
        "action_high": info.action_high.tolist(),
        "observation_range": observation_range(transitions, info),
        "columns": column_names(transitions, info),
        "environment": info.env_id,
        "dataset_id": info.dataset_id,
        "dataset_sha256": sha256,
    }
    return Data(transitions, info, observations, header | data_header(info))


def _open_policy(path: Path, data: Data) -> tuple[Weights, Act]:
    """A policy's weights, and the policy itself as it acts in mopo."""
    weights, header = read_weights(path)
    if (made_from := header["inputs"]["dataset"]) != (present := data.header["dataset_sha256"]):
        raise InputError(
            f"The policy {path} was made from other data: sha256 {made_from}, not {present}.",
            hint="mopo train-policy makes it from these data; --run PATH names another run",
        )
    check_dimensions(f"the policy {path}", header, data.transitions, data.info, "mopo train-policy")
    actor, _ = open_policy(path, torch.device("cpu"))
    act = greedy_policy(actor, header["action_low"], header["action_high"])
    return weights, act if actor.offset else lambda rows: act(rows.astype(np.float32))


def _mean(acts: Sequence[Act]) -> Act:
    return lambda rows: np.mean([act(rows) for act in acts], axis=0)


def _about(chosen: Chosen, data: Data, seeds: tuple[int, ...], sha256: list[str], act: Act) -> dict[str, Any]:
    """The header of a file with these seeds' policies, which act as ``act``."""
    rows = data.observations[np.linspace(0, len(data.observations) - 1, _GOLDEN).astype(np.int64)]
    return {
        **data.header,
        "format": FORMAT,
        "mopo": __version__,
        "activation": "relu",
        "method": chosen.settings.get("method"),
        "algorithm": chosen.settings.get("algorithm"),
        "seeds": list(seeds),
        "policy_sha256": sha256,
        "golden": {"observation": rows.tolist(), "action": act(rows).tolist()},
    }


def _verdict(run: RunFolder, name: str, sha256: list[str]) -> str | None:
    """What `evaluate --ope` says of the policy of one file, None where it has not judged this very file."""
    record = read_lineage(run).get(f"evaluate/{name}/ope")
    if record is None or not {file["sha256"] for file in record.inputs.values()} >= {*sha256}:
        return None
    if len(sha256) > 1:  # their mean action is another policy, which nobody has judged
        return None
    seed = next(role for role, file in record.inputs.items() if file["sha256"] == sha256[0]).rpartition("/")[2]
    verdict = record.extra.get("seeds", {}).get(seed, {}).get("verdict")
    return verdict if isinstance(verdict, str) else None


def _made(kind: str, weights: Weights, about: dict[str, Any], data: Data, act: Act) -> tuple[bytes, float]:
    """The content of an exported file, and how far its actions are from the policy's, as a share of their range."""
    ending, write = WRITERS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"policy{ending}"
        write(path, weights, about)
        exported = read_policy(path)
        apart = []
        for rows in (some_rows(data.observations), extremes(about["observation_range"])):
            off, most = difference(weights, act, exported, rows)
            if off > most:
                raise MopoError(
                    f"The exported policy's actions are {off:.1e} of their range away from the policy's, more than "
                    f"{most:.1e}; nothing is written."
                )
            apart.append(off)
        return path.read_bytes(), max(apart)
