"""What a metrics sink is made from, and what all of them share."""

import hashlib
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mopo_cli.store.atomic import write_text
from mopo_cli.store.files import read_text

Values = Mapping[str, float]
"""Finite numbers by name."""

_IDENTITY = "identity.txt"


@dataclass(frozen=True)
class Curves:
    """What a sink shows: the members that a stage trains in the run folder ``root``.

    ``stage`` is as in run.json; names of members are relative paths, such as "seed-0".
    """

    root: Path
    stage: str
    members: Sequence[str]

    @property
    def project(self) -> str:
        """The name of the run folder, in letters that every library takes."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", self.root.resolve().name) or "mopo"

    def name(self, member: str) -> str:
        """What a member is called: "train-policy/mopo_max-var_lam1_h5/seed-0"."""
        return f"{self.stage}/{member}"


class Sink(Protocol):
    """A library that shows metrics, made from a folder for its files and the curves that it will get.

    It starts empty: when training resumes, the epochs that the checkpoint holds are logged again, so what an earlier
    attempt has logged of the members is replaced. Whatever it raises is told and ends the logging, not the training.
    """

    library: str
    """The package to import, which the extra of the sink's name installs."""
    where: str
    """How the user sees the metrics, e.g. a command."""

    def __init__(self, folder: Path, curves: Curves) -> None: ...

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        """Take the values of one member by epoch, in the order of the epochs."""

    def close(self) -> None:
        """No more will be logged."""


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among an epoch's values; those of the model are by seed and network.

    ``{"nll": {"0": [1.5, 2.0]}}`` gives ``{"nll/seed-0/network-0": 1.5, "nll/seed-0/network-1": 2.0}``.
    """
    numbers: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            numbers |= scalars({f"{name}/seed-{seed}": inner for seed, inner in value.items()})
        elif isinstance(value, Sequence):
            numbers |= scalars({f"{name}/network-{network}": inner for network, inner in enumerate(value)})
        elif value is not None and math.isfinite(value):
            numbers[name] = float(value)
    return numbers


def identity(folder: Path, name: str) -> str:
    """16 hexadecimal digits for a member of this name whose metrics go to the folder; the same in every attempt.

    Another folder has others, so libraries that keep runs of many folders together do not confuse them.
    """
    path = folder / _IDENTITY
    if not path.is_file():
        write_text(path, secrets.token_hex(16))
    return hashlib.sha256(f"{read_text(path, 100)}/{name}".encode()).hexdigest()[:16]
