"""Transitions on disk, HDF5 schema v1: D4RL's column names, described by attributes.

See `store.sealed` for what keeps damage from passing unseen.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.history import frame_width, stacked_width
from mopo_cli.data.transitions import COLUMNS, OBSERVATIONS, DatasetInfo, Transitions
from mopo_cli.data.validate import check_bounds, check_columns, finite
from mopo_cli.errors import InputError
from mopo_cli.store.atomic import publish, sha256_file
from mopo_cli.store.columns import column_shape, open_hdf5, read_columns, stored_names
from mopo_cli.store.documents import present_names
from mopo_cli.store.sealed import OF_FILE, check_content, create, read_attributes
from mopo_cli.tasks.termination import check_rule_width

UNCERTAINTY = "uncertainty"
OFFSET = "observation_offset"
# Groups that a dataset may have besides.
INFOS, BEHAVIOUR = "infos", "behaviour"
_INFO_TYPES: dict[str, tuple[type, ...]] = {
    "dataset_id": (str,),
    "env_id": (str, type(None)),
    "source": (str,),
    "action_low": (np.ndarray,),
    "action_high": (np.ndarray,),
    "termination": (str,),
    "reference_min": (float, type(None)),
    "reference_max": (float, type(None)),
    "seed": (int, type(None)),
    "env_kwargs": (dict,),
    "obs_entries": (list,),
    "terminal_next_known": (bool,),
    "recipe": (dict, type(None)),
    "doubts": (list,),
    "names": (dict,),
    "reward": (str, type(None)),
    "history": (int,),
    "observation_offset": (np.ndarray, type(None)),
}
# Attributes kept as JSON text.
_JSON = ("env_kwargs", "obs_entries", "recipe", "doubts", "names")
# What a file without them means.
_ABSENT: dict[str, Any] = {
    "env_kwargs": {},
    "obs_entries": [],
    "terminal_next_known": True,
    "recipe": None,
    "doubts": [],
    "names": {},
    "reward": None,
    "history": 1,
    OFFSET: None,
}
# Those that a file has only where there are any.
_SELDOM = ("obs_entries", "doubts", "names", "reward")
_STEP_COLUMNS = {"step": np.int32, "network": np.int32}
_OLD_NETWORK = "member"  # what the column network is called in older files


def write_dataset(path: Path, transitions: Transitions, info: DatasetInfo) -> str:
    """Publish a dataset and return its sha256; equal content gives equal bytes."""
    attributes = {name: getattr(info, name) for name in _INFO_TYPES}
    attributes["doubts"] = [asdict(check) for check in info.doubts]
    for name in _SELDOM:
        if not attributes[name]:
            del attributes[name]
    if info.observation_offset is None:
        del attributes[OFFSET]
    if info.history == 1:
        del attributes["history"]
    for name in _JSON:
        if attributes.get(name) is not None:
            attributes[name] = json.dumps(attributes[name], sort_keys=True, allow_nan=False)
    columns = {name: getattr(transitions, name) for name in COLUMNS}
    columns |= {f"{INFOS}/{name}": column for name, column in sorted(transitions.infos.items())}
    columns |= {f"{BEHAVIOUR}/{name}": weights for name, weights in sorted(info.behaviour.items())}
    with publish(path) as temporary, create(temporary, "dataset", attributes) as file:
        for name, column in columns.items():
            file.append(name, column)
    return sha256_file(path)


def read_dataset(path: Path) -> tuple[Transitions, DatasetInfo]:
    """Read what `write_dataset` wrote.

    CorruptError when the file is damaged, InputError when it is absent or breaks the schema.
    """
    with open_hdf5(path) as file:
        attributes = read_attributes(file, path, "dataset")
        names = {group: stored_names(file, group) for group in (INFOS, BEHAVIOUR)}
        columns = read_columns(file, [*COLUMNS, *(f"{group}/{name}" for group in names for name in names[group])])
    infos, behaviour = ({name: columns[f"{group}/{name}"] for name in names[group]} for group in names)
    transitions = _transitions(columns, infos)
    check_columns(transitions, str(path))
    info = _dataset_info(attributes, behaviour, path)
    _check_offset(info.observation_offset, transitions.obs_dim, path)
    frame = frame_width(transitions.obs_dim, transitions.act_dim, info.history)
    if frame < 1 or stacked_width(frame, transitions.act_dim, info.history) != transitions.obs_dim:
        raise InputError(
            f"{path}: observations of {transitions.obs_dim} numbers are not of {info.history} steps, as attribute "
            "history says."
        )
    try:
        check_rule_width(info.termination, frame, transitions.act_dim)
    except InputError as error:
        raise InputError(f"{path}: {error.message}") from error
    require([check_bounds(info, transitions.act_dim)])
    check_content(path, attributes, columns)
    return transitions, info


def dataset_shape(path: Path) -> tuple[int, int, int]:
    """How many transitions a dataset has, and how wide observations and actions are; no column is read.

    Raises what `read_dataset` raises for a file that has no such columns.
    """
    with open_hdf5(path) as file:
        observations, actions = (column_shape(file, name) for name in ("observations", "actions"))
    if len(observations) != 2 or len(actions) != 2:
        raise InputError(
            f"{path}: observations {observations} and actions {actions} must have the shape [rows, width]."
        )
    return observations[0], observations[1], actions[1]


def read_dataset_info(path: Path) -> DatasetInfo:
    """What `read_dataset` tells besides the transitions, without reading them or the behaviour; it raises the same."""
    with open_hdf5(path) as file:
        return _dataset_info(read_attributes(file, path, "dataset"), {}, path)


@contextmanager
def written_rollouts(path: Path, attributes: dict[str, Any]) -> Iterator[Callable[[dict[str, NDArray[Any]]], None]]:
    """Stream imagined transitions to a file that is published when the block ends without an error.

    What it gives adds n rows: every column `[n, ...]` of the first call, among them ``uncertainty/<penalty>``.
    ``attributes`` describe how the rollouts were made; values are str, int, float, None or arrays. Where one of them
    is ``observation_offset``, observations are written with it added, in float64.
    """
    offset = attributes.get(OFFSET)
    with publish(path) as temporary, create(temporary, "rollouts", attributes) as file:

        def append(columns: dict[str, NDArray[Any]]) -> None:
            if len({len(column) for column in columns.values()}) != 1:
                raise ValueError("columns of different lengths")
            for name, column in columns.items():
                whole = column + offset if offset is not None and name in OBSERVATIONS else column
                file.append(name, whole, growing=True)

        yield append


def read_rollouts(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The columns (uncertainties as ``uncertainty/<penalty>``) and attributes of a rollout file.

    Those of an older file come under the names that they have now, and observations less the ``observation_offset``,
    if there is one. CorruptError when the file is damaged, InputError when it is absent or breaks the schema.
    """
    with open_hdf5(path) as file:
        attributes = read_attributes(file, path, "rollouts")
        penalties = [f"{UNCERTAINTY}/{name}" for name in stored_names(file, UNCERTAINTY)]
        network = _OLD_NETWORK if "network" not in file and _OLD_NETWORK in file else "network"
        stored = read_columns(file, [*COLUMNS, "step", network, *penalties])
    columns = {"network" if name == network else name: column for name, column in stored.items()}
    if (offset := attributes.get(OFFSET)) is not None:
        columns |= {name: _less(offset, columns[name], name, path) for name in OBSERVATIONS}
    transitions = _transitions(columns, {})
    check_columns(transitions, str(path))
    expected = _STEP_COLUMNS | dict.fromkeys(penalties, np.float32)
    for name, dtype in expected.items():
        if columns[name].shape != (len(transitions),) or columns[name].dtype != dtype:
            raise InputError(f"{path}: column {name} must have shape [{len(transitions)}] and type {np.dtype(dtype)}.")
    for name in penalties:
        require([finite(name, columns[name], str(path))])
    check_content(path, attributes, stored)
    attributes = {name: value for name, value in attributes.items() if name not in OF_FILE}
    return columns, present_names("rollout", attributes)


def _less(offset: Any, column: NDArray[Any], name: str, path: Path) -> NDArray[np.float32]:
    if column.ndim != 2 or column.dtype != np.float64:
        raise InputError(f"{path}: column {name} must be float64 and have two dimensions.")
    _check_offset(offset, column.shape[1], path)
    stored: NDArray[np.float32] = (column - offset).astype(np.float32)
    return stored


def _check_offset(offset: Any, obs_dim: int, path: Path) -> None:
    """InputError unless the offset of observations, if there is one, is finite, float64 and as wide as they are."""
    if offset is not None and not (
        isinstance(offset, np.ndarray)
        and (offset.dtype, offset.shape) == (np.float64, (obs_dim,))
        and np.isfinite(offset).all()
    ):
        raise InputError(f"{path}: attribute {OFFSET} is not {obs_dim} finite numbers of type float64.")


def _transitions(columns: dict[str, NDArray[Any]], infos: dict[str, NDArray[Any]]) -> Transitions:
    plain: dict[str, Any] = {name: columns[name] for name in COLUMNS}
    return Transitions(**plain, infos=infos)


def _dataset_info(attributes: dict[str, Any], behaviour: dict[str, NDArray[Any]], path: Path) -> DatasetInfo:
    attributes = _ABSENT | attributes
    for name in _JSON:
        if isinstance(attributes[name], str):
            try:
                attributes[name] = json.loads(attributes[name])
            except ValueError as error:
                raise InputError(f"{path}: attribute {name} is not JSON.") from error
    for name, types in _INFO_TYPES.items():
        if name not in attributes or not isinstance(attributes[name], types):
            raise InputError(f"{path}: attribute {name} is missing or of the wrong type.")
    for name in ("action_low", "action_high"):
        if attributes[name].dtype != np.float32:
            raise InputError(f"{path}: attribute {name} is of type {attributes[name].dtype}, not float32.")
    if not all(isinstance(entry, str) and entry for entry in attributes["obs_entries"]):
        raise InputError(f"{path}: attribute obs_entries is not a list of names.")
    if attributes["history"] < 1:
        raise InputError(f"{path}: attribute history is {attributes['history']}, not a number of steps.")
    attributes["obs_entries"] = tuple(attributes["obs_entries"])
    attributes["doubts"] = tuple(_doubt(document, path) for document in attributes["doubts"])
    return DatasetInfo(**{name: attributes[name] for name in _INFO_TYPES}, behaviour=behaviour)


def _doubt(document: Any, path: Path) -> Check:
    texts = {"column", "what", "fault", "hint", "warning"}
    if (
        not isinstance(document, dict)
        or set(document) != {*texts, "row"}
        or not all(isinstance(document[name], str) for name in texts)
        or type(document["row"]) not in (int, type(None))
    ):
        raise InputError(f"{path}: attribute doubts is not a list of checks.")
    return Check(**document)
