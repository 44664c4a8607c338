"""Which of torch's operations have a CUDA kernel, by the list that every build of torch brings."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@cache
def _native() -> dict[str, str]:
    """What torch says of each of its operations, by name and overload."""
    spec = find_spec("torchgen")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "packaged/ATen/native/native_functions.yaml").read_text()
    blocks = re.split(r"^- func: ", text, flags=re.MULTILINE)[1:]
    return {block[: block.index("(")]: block for block in blocks}


def has_kernel(func: Any) -> bool:
    """Whether torch computes it on CUDA: by a kernel of its own, or by other operations."""
    overload = "" if func._overloadname == "default" else f".{func._overloadname}"
    name = func._schema.name.removeprefix("aten::") + overload
    block = _native().get(name)
    if block is None:  # written by torch itself beside the others: their variants with out=, and the like
        return any(re.search(rf"autogen:.*\b{re.escape(name)}\b", other) for other in _native().values())
    if delegate := re.search(r"structured_delegate: (\S+)", block):
        block = _native()[delegate[1]]
    return "dispatch:" not in block or re.search(r"^ +[\w, ]*(CUDA|Composite)[\w, ]*:", block, re.MULTILINE) is not None
