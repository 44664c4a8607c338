"""The files that hold policies: safetensors as mopo trains them, and what `mopo export` makes of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mopo_cli.data.files.npz import npz_names, read_npz
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.policy.onnx_file import read_onnx, write_onnx
from mopo_cli.policy.policy import Policy
from mopo_cli.policy.weights import Weights, weights_of
from mopo_cli.store.arrays import HEADER_KEY, load_arrays
from mopo_cli.store.documents import checked
from mopo_cli.store.headers import HEADERS

FORMAT = 1
"""The version of the layout of exported files."""


def read_policy(path: Path) -> Policy:
    """Read a policy from a file of any kind: see `mopo_cli.load_policy`."""
    readers = {".safetensors": _from_safetensors, ".npz": _from_npz, ".onnx": _from_onnx}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path} is not a policy file: these end in .safetensors, .npz or .onnx.")
    return readers[path.suffix.lower()](path)


def read_weights(path: Path) -> tuple[Weights, dict[str, Any]]:
    """The weights and the header of a policy.safetensors; InputError for other files, CorruptError for damaged ones."""
    arrays, meta = load_arrays(path)
    if meta.get("kind") != "policy":
        raise InputError(f"{path} is not a policy but a {meta.get('kind', 'file of another kind')}.")
    header = checked(path, HEADERS["policy"], meta)
    return weights_of(path, arrays, header), header


def write_npz(path: Path, weights: Weights, about: dict[str, Any]) -> None:
    """Write arrays w0, b0, w1, ..., low, high and offset as `Weights` has them, and ``about`` as JSON text."""
    arrays = {
        f"{name}{i}": part for i, layer in enumerate(weights.layers) for name, part in zip("wb", layer, strict=True)
    }
    arrays |= {"low": weights.low, "high": weights.high, "offset": weights.offset}
    with path.open("wb") as file:
        np.savez(file, **arrays, **{HEADER_KEY: np.array(_text(about))})  # type: ignore[arg-type]


WRITERS: dict[str, tuple[str, Callable[[Path, Weights, dict[str, Any]], None]]] = {
    "onnx": (".onnx", lambda path, weights, about: write_onnx(path, weights, {HEADER_KEY: _text(about)})),
    "numpy": (".npz", write_npz),
}
"""The ending and the writer of each kind of exported file."""


def _text(about: dict[str, Any]) -> str:
    return json.dumps(about, sort_keys=True, ensure_ascii=False, allow_nan=False)


def _from_safetensors(path: Path) -> Policy:
    weights, header = read_weights(path)
    return Policy(path, header, weights.act)


def _from_npz(path: Path) -> Policy:
    names = npz_names(path)
    if HEADER_KEY not in names:
        raise InputError(f"{path} was not written by mopo export.")
    arrays = read_npz(path, names, text=(HEADER_KEY,))
    header = _header(path, str(arrays.pop(HEADER_KEY).reshape(-1)[0]))
    return Policy(path, header, weights_of(path, arrays, header).act)


def _from_onnx(path: Path) -> Policy:
    act, texts = read_onnx(path)
    if HEADER_KEY not in texts:
        raise InputError(f"{path} was not written by mopo export.")
    return Policy(path, _header(path, texts[HEADER_KEY]), act)


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"The header of {path} is damaged ({error}).") from error
    if isinstance(about, dict) and isinstance(about.get("format"), int) and about["format"] > FORMAT:
        raise InputError(f"{path} has format {about['format']}; this version of mopo reads format {FORMAT}.")
    header: dict[str, Any] = checked(path, HEADERS["export"], about)
    return header
