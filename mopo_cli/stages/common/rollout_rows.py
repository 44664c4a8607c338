"""Rows drawn from a rollout file, to analyse the uncertainties stored in it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mopo_cli.data.transition_files import UNCERTAINTY, read_rollouts
from mopo_cli.dynamics.penalties import UNCERTAINTIES

Columns = dict[str, NDArray[Any]]


def draw_rows(path: Path, most: int, generator: torch.Generator) -> tuple[Columns, NDArray[np.int64], int]:
    """At most so many rows of a rollout file in random order, their places in it, and how many it holds."""
    columns, _ = read_rollouts(path)
    stored = len(columns["rewards"])
    drawn = torch.randperm(stored, generator=generator)[:most].numpy()
    return {name: values[drawn] for name, values in columns.items()}, drawn, stored


def uncertainties_of(columns: Columns) -> Columns:
    """The uncertainties among the columns, by name: the ensemble's in the order of `UNCERTAINTIES`, then others."""
    prefix = f"{UNCERTAINTY}/"
    held = {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}
    names = [name for name in UNCERTAINTIES if name in held]
    return {name: held[name] for name in [*names, *(held.keys() - names)]}
