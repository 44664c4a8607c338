"""Tensors with their JSON in one safetensors file; nothing in it can run code."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.atomic import publish

_HEADER_KEY, _CONTENT = "mopo", "content_sha256"


def save_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Publish named tensors of any shape and device, and ``meta``, as one file.

    The same content gives the same bytes, whatever the order of the names. ``meta`` must be JSON; floats come
    back exactly, infinities included, and tuples come back as lists.
    """
    # safetensors refuses tensors that share memory, so each is given its own.
    copies = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    meta = json.loads(json.dumps(meta))  # keys as they come back
    # All in one entry: safetensors writes several in a random order.
    text = json.dumps(meta | {_CONTENT: _content_digest(copies, meta)}, sort_keys=True)
    content = save(copies, metadata={_HEADER_KEY: text})
    with publish(path) as temporary:
        temporary.write_bytes(content)


def read_meta(path: Path) -> dict[str, Any] | None:
    """The meta of a file from `save_tensors`, unchecked and without its tensors; None where it has none to read."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})[_HEADER_KEY])
    except (SafetensorError, OSError, LookupError, ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None


def load_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors on ``device`` and the meta of a file from `save_tensors`.

    InputError when it is absent or another program's, CorruptError when it is damaged.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            # A mapped tensor may be aligned otherwise than a fresh one, and then sums differ in the last bit.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CorruptError(f"{path} is damaged or not a safetensors file ({error}).") from error
    if _HEADER_KEY not in header:
        raise InputError(f"{path} was not written by mopo.")
    try:
        meta = json.loads(header[_HEADER_KEY])
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"The header of {path} is damaged ({error}).") from error
    if not isinstance(meta, dict):
        raise CorruptError(f"The header of {path} is damaged (not an object).")
    # Older versions wrote no digest.
    written = meta.pop(_CONTENT, None)
    if written is not None and written != _content_digest(tensors, meta):
        raise CorruptError(f"{path} is damaged or was edited: its content does not match its checksum.")
    return {name: tensor.to(device) for name, tensor in tensors.items()}, meta


def _content_digest(tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    """SHA-256 of the meta and of every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
