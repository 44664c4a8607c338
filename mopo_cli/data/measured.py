"""Returns of a policy that were measured elsewhere, in a CSV file with a row per episode."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.csv_tables import open_csv
from mopo_cli.data.files.layout import Wanted
from mopo_cli.errors import InputError

_RETURN, _SEED, _EPISODE, _LENGTH = "return", "seed", "episode", "length"
_COLUMNS = (_RETURN, _SEED, _EPISODE, _LENGTH)
_SHOWN = 60


@dataclass(frozen=True)
class Measured:
    """Per seed, in their order: undiscounted returns f8, the episodes' numbers and, where they are known, lengths.

    All `[episodes]`; every seed has as many episodes.
    """

    returns: dict[str, NDArray[np.float64]]
    episodes: dict[str, NDArray[np.int64]]
    lengths: dict[str, NDArray[np.int64]] | None


def read_measured(path: Path, policy: str, seeds: Collection[str]) -> Measured:
    """Read the columns return and, where they are there, seed, episode and length; rows may be in any order.

    Without seeds all rows are of the policy's only one; without episodes they are numbered. InputError, with the column
    and the row (counted from 0), for other columns, a number that is none, a seed that the policy does not have, an
    episode that is there twice, or seeds with more episodes than others. It raises what `open_csv` does.
    """
    log = open_csv(path)
    _check_columns(path, log.names)
    whole = [name for name in (_SEED, _EPISODE, _LENGTH) if name in log.names]
    columns = log.read(Wanted(numbers=(_RETURN,), words=whole, missing=True))
    returns = np.asarray(columns[_RETURN], np.float64)
    if not len(returns):
        raise InputError(f"{path.name} holds no returns: it has a heading and no rows.")
    if len(bad := np.flatnonzero(~np.isfinite(returns))):
        raise InputError(f"{path.name}: column {_RETURN}, row {bad[0]}: the return is missing or not finite.")
    seed = _seeds(path, columns.get(_SEED), policy, seeds, len(returns))
    rows = {each: np.flatnonzero(seed == each) for each in seeds if each in seed}
    _check_counts(path, {each: len(places) for each, places in rows.items()})
    if _EPISODE in columns:
        episode = _whole_numbers(path, _EPISODE, columns[_EPISODE], 0)
        rows = {each: places[np.argsort(episode[places], kind="stable")] for each, places in rows.items()}
        _check_once(path, episode, rows)
        episodes = {each: episode[places] for each, places in rows.items()}
    else:
        episodes = {each: np.arange(len(places)) for each, places in rows.items()}
    lengths = None
    if _LENGTH in columns:
        length = _whole_numbers(path, _LENGTH, columns[_LENGTH], 1)
        lengths = {each: length[places] for each, places in rows.items()}
    return Measured({each: returns[places] for each, places in rows.items()}, episodes, lengths)


def _check_columns(path: Path, names: list[str]) -> None:
    allowed = f"the heading names {_RETURN} and, if you have them, {_SEED}, {_EPISODE} and {_LENGTH}"
    if others := [name for name in names if name not in _COLUMNS]:
        raise InputError(f"{path.name} has the unknown column {others[0][:_SHOWN]!r}: {allowed}.")
    if _RETURN not in names:
        raise InputError(f"{path.name} has no column {_RETURN}: {allowed}.")


def _seeds(path: Path, column: Any, policy: str, seeds: Collection[str], rows: int) -> NDArray[np.str_]:
    """The seed of every row, as text; InputError where it is not one of ``seeds``."""
    have = ", ".join(seeds)
    if column is None:
        if len(seeds) > 1:
            raise InputError(
                f"{path.name} does not say which seed was measured, and the policy {policy} has the seeds {have}: add "
                f"a column {_SEED}."
            )
        return np.repeat(np.array(list(seeds), np.str_), rows)
    for row, seed in enumerate(column):
        if seed not in seeds:
            raise InputError(
                f"{path.name}: column {_SEED}, row {row}: {seed[:_SHOWN]!r} is no seed of the policy {policy}, which "
                f"has {have}."
            )
    return np.asarray(column)


def _whole_numbers(path: Path, name: str, column: Any, least: int) -> NDArray[np.int64]:
    for row, cell in enumerate(column):
        if not (cell.isascii() and cell.isdecimal() and len(cell) < 19 and int(cell) >= least):
            raise InputError(
                f"{path.name}: column {name}, row {row}: {cell[:_SHOWN]!r} is not a whole number from {least} upwards."
            )
    return np.array([int(cell) for cell in column], np.int64)


def _check_counts(path: Path, counts: dict[str, int]) -> None:
    (least, fewer), (most, more) = (choose(counts.items(), key=lambda item: item[1]) for choose in (min, max))
    if fewer != more:
        raise InputError(
            f"{path.name} has {more} episodes of seed {most}, but {fewer} of seed {least}: all seeds need as many, so "
            "that they count alike."
        )


def _check_once(path: Path, episode: NDArray[np.int64], rows: dict[str, NDArray[np.int64]]) -> None:
    """InputError where a seed has an episode twice; ``rows`` are in the order of the episodes."""
    for seed, places in rows.items():
        if len(again := np.flatnonzero(np.diff(episode[places]) == 0)):
            row = places[again[0] + 1]
            raise InputError(
                f"{path.name}: column {_EPISODE}, row {row}: episode {episode[row]} of seed {seed} is there twice."
            )
