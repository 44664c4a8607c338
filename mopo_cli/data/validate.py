"""What transitions must satisfy before anything is learnt from them, and their summary."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.transitions import (
    DatasetInfo,
    Floats,
    Transitions,
    episode_lengths,
    episode_returns,
)
from mopo_cli.errors import InputError

_ACTION_TOLERANCE = 1e-5
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6


@dataclass(frozen=True)
class Summary:
    """Counts, undiscounted episode returns and mean episode length in steps."""

    transitions: int
    episodes: int
    return_mean: float
    return_std: float
    return_p90: float
    return_max: float
    length_mean: float
    terminals: int
    timeouts: int


def summarise(transitions: Transitions) -> Summary:
    """The summary of at least one transition; the standard deviation is the population's."""
    returns, lengths = episode_returns(transitions), episode_lengths(transitions)
    return Summary(
        transitions=len(transitions),
        episodes=len(returns),
        return_mean=float(returns.mean()),
        return_std=float(returns.std()),
        return_p90=float(np.quantile(returns, 0.9)),
        return_max=float(returns.max()),
        length_mean=float(lengths.mean()),
        terminals=int(transitions.terminals.sum()),
        timeouts=int(transitions.timeouts.sum()),
    )


def validate(transitions: Transitions, info: DatasetInfo) -> None:
    """Check columns, actions and episode boundaries.

    Raises InputError naming the dataset, the column and the first bad row, and what mends it.
    """
    check_columns(transitions, info.dataset_id)
    check_bounds(info, transitions.act_dim)
    _check_actions(transitions.actions, info)
    _check_boundaries(transitions, info.dataset_id)


def check_columns(transitions: Transitions, where: str) -> None:
    """InputError unless shapes are `[N, O]`, `[N, A]`, `[N]`, N >= 2, types f4 and bool, all finite."""
    t = transitions
    n = t.rewards.shape[0] if t.rewards.ndim else 0
    obs_dim, act_dim = (max(c.shape[1], 1) if c.ndim == 2 else 1 for c in (t.observations, t.actions))
    floats = {
        "observations": (t.observations, (n, obs_dim)),
        "actions": (t.actions, (n, act_dim)),
        "rewards": (t.rewards, (n,)),
        "next_observations": (t.next_observations, (n, obs_dim)),
    }
    flags = {"terminals": (t.terminals, (n,)), "timeouts": (t.timeouts, (n,))}
    for name, (column, shape) in {**floats, **flags}.items():
        if column.shape != shape:
            raise InputError(f"{where}: column {name} has shape {column.shape}, where {shape} is needed.")
        wanted = np.dtype(np.float32 if name in floats else np.bool_)
        if column.dtype != wanted:
            raise InputError(f"{where}: column {name} is of type {column.dtype}, where {wanted} is needed.")
    if n < 2:
        raise InputError(f"{where}: {n} transition{'s' * (n != 1)} cannot be learnt from, 2 are needed.")
    for name, (column, _) in floats.items():
        check_finite(name, column, where)


def check_finite(name: str, column: Floats, where: str) -> None:
    """Raises InputError naming the first row of ``column`` `[N, ...]` with a NaN or an infinity."""
    good = np.isfinite(column)
    if good.all():
        return
    bad_rows = np.flatnonzero(~good.reshape(len(column), -1).all(axis=1))
    raise InputError(
        f"{where}: column {name} is not finite in row {bad_rows[0]} ({len(bad_rows)} such rows): "
        "remove or repair their episodes."
    )


def check_bounds(info: DatasetInfo, act_dim: int) -> None:
    """Raises InputError unless the action bounds are finite, ordered and as wide as the actions."""
    low, high = info.action_low, info.action_high
    if low.shape != (act_dim,) or high.shape != (act_dim,):
        raise InputError(
            f"{info.dataset_id}: column actions is {act_dim} wide, its bounds have shapes {low.shape} and {high.shape}."
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise InputError(f"{info.dataset_id}: the action bounds {low} and {high} are not finite and ordered.")


def _check_actions(actions: Floats, info: DatasetInfo) -> None:
    outside = (actions < info.action_low - _ACTION_TOLERANCE) | (actions > info.action_high + _ACTION_TOLERANCE)
    bad_rows = np.flatnonzero(outside.any(axis=1))
    if not len(bad_rows):
        return
    row = bad_rows[0]
    dim = int(np.flatnonzero(outside[row])[0])
    bounds = f"[{info.action_low[dim]:g}, {info.action_high[dim]:g}]"
    place = f" of {info.env_id}" if info.env_id else ""
    raise InputError(
        f"{info.dataset_id}: column actions leaves the bounds{place} in {len(bad_rows)} of {len(actions)} "
        f"rows, first in row {row} (dimension {dim}: {actions[row, dim]:g}, bounds {bounds}): clip the "
        "actions if the environment did so, or name the environment they were logged in.",
        hint="mopo fetch-data --dataset ./file.h5 --env ENV-ID",
    )


def _check_boundaries(transitions: Transitions, where: str) -> None:
    t = transitions
    inside = ~(t.terminals | t.timeouts)[:-1]
    broken = inside & _differs(t.next_observations[:-1], t.observations[1:])
    rows = np.flatnonzero(broken)
    if not len(rows):
        return
    raise InputError(
        f"{where}: column next_observations differs from the next row's observations in {len(rows)} of "
        f"{int(inside.sum())} rows inside episodes, first in row {rows[0]}: if episodes end there, mark it "
        f"in terminals (the task ended) or timeouts (the record ended), where now {int(t.terminals.sum())} "
        f"and {int(t.timeouts.sum())} rows are marked."
    )


def _differs(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Rows that differ by more than rounding. Almost all are equal to the bit; only the rest is compared."""
    differs: NDArray[np.bool_] = (a != b).any(axis=1)
    rows = np.flatnonzero(differs)
    differs[rows] = ~np.isclose(a[rows], b[rows], rtol=_RELATIVE, atol=_ABSOLUTE).all(axis=1)
    return differs
