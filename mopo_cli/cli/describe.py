"""What ``mopo show`` says of a path: its kind, its contents, and the stages that made it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.config.schema import STAGES
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import read_json, sha256_file
from mopo_cli.store.files import check_file
from mopo_cli.store.lineage import StageRecord, read_lineage
from mopo_cli.store.run import DATA_FILES, RunFolder, check_run, data_ending

if TYPE_CHECKING:
    from mopo_cli.data.transitions import DatasetInfo, Transitions

RUN, DATASET, FOREIGN, TABLE = "run folder", "dataset", "HDF5 file of another program", "data file"
EXPORTED = "exported policy"
_D4RL_LAYOUT = {f"column {name}" for name in ("observations", "actions", "rewards", "terminals")}
# Attributes of a dataset that are JSON text.
_NESTED = ("env_kwargs", "obs_entries", "recipe")
_LONGEST_ATTRIBUTE = 1 << 20
_MOST_LISTED = 1000


def describe(path: Path) -> dict[str, Any]:
    """``path``, ``kind``, ``about`` (name -> value) and ``stages`` (the records of those that made it).

    Raises InputError for a missing path or unknown kind of file, CorruptError for a damaged file.
    """
    if path.name == "run.json":
        path = path.parent
    if path.is_dir():
        return _run_folder(path)
    check_file(path)
    kind, about = _reader(path)(path)
    return {"path": str(path), "kind": kind, "about": about, "stages": _makers(path)}


def _reader(path: Path) -> Callable[[Path], tuple[str, dict[str, Any]]]:
    """The function that reads this kind of file. InputError for an unknown kind."""
    readers = {**dict.fromkeys(DATA_FILES, _table), ".h5": _hdf5, ".hdf5": _hdf5, ".json": _json}
    readers |= {".safetensors": _tensors, ".npz": _npz, ".onnx": _exported_policy}
    if (ending := data_ending(path.name) or path.suffix.lower()) in readers:
        return readers[ending]
    from mopo_cli.data.files.layout_rows import check_kind

    try:
        check_kind(path)
    except InputError as error:
        raise InputError(error.message, hint="mopo show RUN-FOLDER, or a file that mopo made") from error
    return _hdf5


def open_dataset(described: dict[str, Any]) -> "tuple[Transitions, DatasetInfo] | None":
    """The dataset in a file that ``describe`` has described, also in one that ``fetch-data`` could read; else None.

    Of observations of several steps it has the newest frames. Raises InputError for data that break the schema or are
    not numbers, CorruptError for a damaged file.
    """
    path = Path(described["path"])
    if described["kind"] == DATASET:
        from mopo_cli.data.history import newest_frames
        from mopo_cli.data.transition_files import read_dataset

        return newest_frames(*read_dataset(path))
    kind, about = described["kind"], described["about"]
    if kind != TABLE and not (kind == FOREIGN and about.keys() >= _D4RL_LAYOUT):
        return None
    from mopo_cli.data.checks import UnusableData, require
    from mopo_cli.data.files.local import load_local
    from mopo_cli.data.validate import check_bounds, check_columns

    try:
        transitions, info = load_local([path], None, [sha256_file(path)])
    except UnusableData as error:  # it takes flags of another command to fix this
        if error.data is None:
            raise InputError(error.message, hint=f"mopo fetch-data --dataset {path} --columns ... --check") from error
        transitions, info = error.data  # what else is wrong with it does not keep it from being shown
    check_columns(transitions, str(path))
    require([check_bounds(info, transitions.act_dim)])
    return transitions, info


def _run_folder(path: Path) -> dict[str, Any]:
    run = RunFolder(path)
    check_run(run)
    stages = [_stage(key, record) for key, record in read_lineage(run).items()]
    order = list(STAGES)
    stages.sort(key=lambda stage: (stage["finished"], order.index(stage["stage"].split("/")[0])))
    about = {"stages": ", ".join(stage["stage"] for stage in stages) or "none finished"}
    return {"path": str(path), "kind": RUN, "about": about, "stages": stages}


def _stage(key: str, record: StageRecord) -> dict[str, Any]:
    return {
        "stage": key,
        "finished": record.finished,
        "wall_seconds": record.wall_seconds,
        "versions": record.versions,
        "inputs": record.inputs,
        "outputs": record.outputs,
        "settings": record.settings,
        "origins": record.extra.get("origins", {}),
    }


def _makers(path: Path) -> list[dict[str, Any]]:
    """The stages that made the file, of the run folder that it is in."""
    path = path.resolve()
    run = next((RunFolder(folder) for folder in path.parents if (folder / "run.json").is_file()), None)
    if run is None:
        return []
    return [
        _stage(key, record)
        for key, record in read_lineage(run).items()
        if any((run.root / file["path"]).resolve() == path for file in record.outputs.values())
    ]


def _hdf5(path: Path) -> tuple[str, dict[str, Any]]:
    from mopo_cli.store.columns import column_names, open_hdf5

    try:
        with open_hdf5(path) as file:
            about = {name: _attribute(file, name) for name in sorted(file.attrs)}
            names = column_names(file)
            listed = sorted(sorted(names, key=lambda name: name.count("/"))[:_MOST_LISTED])
            columns = {f"column {name}": _shape(file[name]) for name in listed}
    except CorruptError as error:
        raise CorruptError(error.message, hint="mopo fetch-data --force") from error
    if len(listed) < len(names):
        columns["columns besides"] = f"{len(names) - len(listed):,}"
    kind = str(about.pop("kind", FOREIGN))
    if kind == DATASET:
        about |= {name: _parsed(about[name]) for name in _NESTED if name in about}
    return kind, about | columns


def _attribute(file: Any, name: str) -> Any:
    stored = file.attrs.get_id(name)
    if (size := math.prod(stored.shape or ()) * stored.dtype.itemsize) > _LONGEST_ATTRIBUTE:
        return f"{size:,} bytes"
    return _plain(file.attrs[name])


def _shape(column: Any) -> str:
    return f"{' x '.join(map(str, column.shape or ()))} {column.dtype}"


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return text  # reading the dataset reports what is wrong with it


def _plain(value: Any) -> Any:
    """An attribute in JSON's types, as text where it has none; h5py's Empty stands for None."""
    import h5py

    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, h5py.Empty):
        return None
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float) else str(value)


def _table(path: Path) -> tuple[str, dict[str, Any]]:
    return TABLE, {"bytes": path.stat().st_size}


def _npz(path: Path) -> tuple[str, dict[str, Any]]:
    from mopo_cli.data.files.npz import npz_names
    from mopo_cli.store.arrays import HEADER_KEY

    return _exported_policy(path) if HEADER_KEY in npz_names(path) else _table(path)


def _exported_policy(path: Path) -> tuple[str, dict[str, Any]]:
    from mopo_cli.policy.files import read_policy

    return EXPORTED, {name: value for name, value in read_policy(path).about.items() if name != "golden"}


def _tensors(path: Path) -> tuple[str, dict[str, Any]]:
    from mopo_cli.store.checkpoint import load_tensors

    tensors, meta = load_tensors(path)
    about = {name: value for name, value in meta.items() if name != "kind" and not isinstance(value, dict)}
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return str(meta.get("kind", "tensors")), about | {"tensors": len(tensors), "numbers": numbers}


def _json(path: Path) -> tuple[str, dict[str, Any]]:
    from mopo_cli.data.files.json_logs import is_log

    if is_log(path):
        return _table(path)
    document = read_json(path)
    if not isinstance(document, dict):
        raise InputError(f"{path} is not a JSON file that mopo makes.")
    kinds = {
        "evaluations": "evaluation",
        "ablations": "ablation",
        "model": "model description",
        "rollouts": "map" if path.stem.endswith("-map") else "diagnosis",
    }
    kind = "elites" if path.name == "elites.json" else kinds.get(path.parent.name, "JSON file")
    return kind, document
