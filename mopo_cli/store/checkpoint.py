"""Tensors with their JSON in one safetensors file; nothing in it can run code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mopo_cli.errors import InputError
from mopo_cli.store.arrays import CONTENT, HEADER_KEY, check_digest, content_digest, not_tensors, read_header
from mopo_cli.store.atomic import publish


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
    text = json.dumps(meta | {CONTENT: _content_digest(copies, meta)}, sort_keys=True)
    content = save(copies, metadata={HEADER_KEY: text})
    with publish(path) as temporary:
        temporary.write_bytes(content)


def read_meta(path: Path) -> dict[str, Any] | None:
    """The meta of a file from `save_tensors`, unchecked and without its tensors; None where it has none to read."""
    try:
        with safe_open(path, framework="pt") as file:
            meta = json.loads((file.metadata() or {})[HEADER_KEY])
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
        raise not_tensors(path, error) from error
    meta, written = read_header(path, header)
    check_digest(path, written, _content_digest(tensors, meta))
    return {name: tensor.to(device) for name, tensor in tensors.items()}, meta


def _content_digest(tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    parts = {
        name: (f"{tensor.dtype} {list(tensor.shape)}", tensor.reshape(-1).view(torch.uint8).numpy().data)
        for name, tensor in tensors.items()
    }
    return content_digest(parts, meta)
