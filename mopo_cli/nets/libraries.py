"""Which library multiplies matrices on a CPU: by itself, as run.json names it without loading torch.

Like torch's number of threads the choice holds for the process; those forked from it have it too.
"""

from collections.abc import Mapping
from typing import Literal, get_args

Library = Literal["mkl", "onednn"]
"""`torch.mm`, which on Intel's and AMD's processors is MKL for float32; and oneDNN's linear layer."""

Kind = Literal[
    "float32 small", "float32 layer", "float32 gradient", "bfloat16 layer", "bfloat16 gradient", "bfloat16 silu"
]
"""Products that one library is chosen for.

Those of a layer's outputs or of the gradient by its inputs; of the gradient by its weights, whose left factor is
transposed, which oneDNN copies first; in float32 the small ones, where the call itself counts; and a layer with its
SiLU at once, which only oneDNN has. More kinds would be chosen on less: within one the ratio of the libraries' speeds
differs little.
"""

KINDS: tuple[Kind, ...] = get_args(Kind)
LIBRARIES: tuple[Library, ...] = get_args(Library)

Choice = Mapping[Kind, Library]

to_onednn: frozenset[Kind] | None = None
"""The kinds that oneDNN multiplies in this process; None before `use`."""


def use(choice: Choice | None) -> None:
    """Multiply by these libraries from now on; a kind that is not named, by MKL. None: as before the first choice."""
    global to_onednn
    to_onednn = None if choice is None else frozenset(kind for kind in KINDS if choice.get(kind) == "onednn")


def in_use() -> Choice | None:
    """The choice of this process, None where none has been made."""
    if to_onednn is None:
        return None
    return {kind: "onednn" if kind in to_onednn else "mkl" for kind in KINDS}


def all_by(library: Library) -> Choice:
    """One library for all products."""
    return dict.fromkeys(KINDS, library)


def named(choice: Choice) -> str:
    """The choice in words: "mkl", or "float32: small mkl, layer onednn, …; bfloat16: …"."""
    if len(libraries := set(choice.values())) == 1:
        return str(libraries.pop())
    types: dict[str, list[str]] = {}
    for kind, library in choice.items():
        dtype, what = kind.split()
        types.setdefault(dtype, []).append(f"{what} {library}")
    return "; ".join(f"{dtype}: {', '.join(parts)}" for dtype, parts in types.items())
