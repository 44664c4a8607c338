"""The arrays and the JSON of a safetensors file, read by numpy alone: what `store.checkpoint` wrote."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.files import check_file

HEADER_KEY, CONTENT = "mopo", "content_sha256"


def load_arrays(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays and the meta of a file from `save_tensors`, whose types numpy must have.

    InputError when it is absent or another program's, CorruptError when it is damaged.
    """
    check_file(path)
    try:
        with safe_open(path, framework="np") as file:
            meta, written = read_header(path, file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:  # the last for types that numpy does not have
        raise not_tensors(path, error) from error
    parts = {name: (f"torch.{array.dtype} {list(array.shape)}", array.tobytes()) for name, array in arrays.items()}
    check_digest(path, written, content_digest(parts, meta))
    return arrays, meta


def not_tensors(path: Path, error: Exception) -> CorruptError:
    """What to tell of a file that the safetensors library cannot read."""
    return CorruptError(f"{path} is damaged or not a safetensors file ({error}).")


def read_header(path: Path, header: Mapping[str, str]) -> tuple[dict[str, Any], str | None]:
    """The meta in a file's header, and the digest of its content, which older versions did not write.

    InputError where another program wrote the file, CorruptError where the header is damaged.
    """
    if HEADER_KEY not in header:
        raise InputError(f"{path} was not written by mopo.")
    try:
        meta = json.loads(header[HEADER_KEY])
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"The header of {path} is damaged ({error}).") from error
    if not isinstance(meta, dict):
        raise CorruptError(f"The header of {path} is damaged (not an object).")
    return meta, meta.pop(CONTENT, None)


def check_digest(path: Path, written: str | None, present: str) -> None:
    """CorruptError where the content has another digest than was written, if one was."""
    if written is not None and written != present:
        raise CorruptError(f"{path} is damaged or was edited: its content does not match its checksum.")


def content_digest(parts: Mapping[str, tuple[str, Any]], meta: dict[str, Any]) -> str:
    """SHA-256 of the meta and, by name, of every tensor's type and shape ("torch.float32 [2, 3]") and bytes."""
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name, (form, content) in sorted(parts.items()):
        digest.update(f"{name} {form}".encode())
        digest.update(content)
    return digest.hexdigest()
