"""What transitions must satisfy before anything is learnt from them, and their summary."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check, require
from mopo_cli.data.jumps import check_resets
from mopo_cli.data.transitions import (
    DatasetInfo,
    Floats,
    Transitions,
    episode_lengths,
    episode_returns,
)
from mopo_cli.data.values import check_rewards

_ACTION_TOLERANCE = 1e-5
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
_SHAPE, _ROWS, _FINITE = "shape and type", "rows", "finite"


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
    for check in checks(transitions, info):
        require([check])


def checks(transitions: Transitions, info: DatasetInfo) -> Iterator[Check]:
    """Everything that `validate` looks at, in its order; columns that do not fit together end it."""
    columns = list(_column_checks(transitions, info.dataset_id))
    yield from columns
    if not fit_together(columns):
        return
    bounds = check_bounds(info, transitions.act_dim)
    yield bounds
    if not bounds.fault:
        yield _check_actions(transitions.actions, info)
    yield _check_boundaries(transitions, info.dataset_id)
    yield check_resets(transitions, info.dataset_id)
    yield from doubts(transitions, info)


def doubts(transitions: Transitions, info: DatasetInfo) -> list[Check]:
    """Those of `checks` that warn: what was doubtful as the data were read, and rewards that tell little."""
    return [*info.doubts, *check_rewards(transitions, info.dataset_id)]


def fit_together(results: Iterable[Check]) -> bool:
    """Whether, by these checks, the columns are of shapes, types and a number that can be worked with."""
    return not any(check.fault and check.what in (_SHAPE, _ROWS) for check in results)


def check_columns(transitions: Transitions, where: str) -> None:
    """InputError unless shapes are `[N, O]`, `[N, A]`, `[N]`, N >= 2, types f4 and bool, all finite."""
    for check in _column_checks(transitions, where):
        require([check])


def finite(name: str, column: Floats, where: str, mend: str = "remove or repair these episodes") -> Check:
    """Whether ``column`` `[N, ...]` is free of NaN and infinities; ``mend``: what to do if it is not."""
    good = np.isfinite(column)
    if good.all():
        return Check(name, _FINITE)
    bad_rows = np.flatnonzero(~good.reshape(len(column), -1).all(axis=1))
    fault = f"{where}: column {name} holds NaN or infinity in row {bad_rows[0]} ({len(bad_rows)} such rows): {mend}."
    return Check(name, _FINITE, fault, int(bad_rows[0]))


def discontinuities(transitions: Transitions) -> NDArray[np.int64]:
    """Rows inside episodes whose next_observations is not the next row's observation, but for rounding."""
    t = transitions
    inside = ~(t.terminals | t.timeouts)[:-1]
    return np.flatnonzero(inside & _differs(t.next_observations[:-1], t.observations[1:])).astype(np.int64)


def _column_checks(transitions: Transitions, where: str) -> Iterator[Check]:
    t = transitions
    n = t.rewards.shape[0] if t.rewards.ndim else 0
    obs_dim, act_dim = (max(c.shape[1], 1) if c.ndim == 2 else 1 for c in (t.observations, t.actions))
    floats = {
        "observations": (t.observations, (n, obs_dim)),
        "actions": (t.actions, (n, act_dim)),
        "rewards": (t.rewards, (n,)),
        "next_observations": (t.next_observations, (n, obs_dim)),
    }
    floats |= {f"infos/{name}": (column, (n,)) for name, column in t.infos.items()}
    flags = {"terminals": (t.terminals, (n,)), "timeouts": (t.timeouts, (n,))}
    for name, (column, shape) in {**floats, **flags}.items():
        wanted = np.dtype(np.float32 if name in floats else np.bool_)
        fault = ""
        if column.shape != shape:
            fault = f"{where}: column {name} has shape {column.shape}, not {shape}."
        elif column.dtype != wanted:
            fault = f"{where}: column {name} is of type {column.dtype}, not {wanted}."
        yield Check(name, _SHAPE, fault)
    fault = (
        f"{where}: {n} transition{'s' * (n != 1)} {'is' if n == 1 else 'are'} not enough; at least 2 are needed."
        if n < 2
        else ""
    )
    yield Check("all", _ROWS, fault)
    for name, (column, _) in floats.items():
        yield finite(name, column, where)


def check_bounds(info: DatasetInfo, act_dim: int) -> Check:
    """Whether the action bounds are finite, ordered and as wide as the actions."""
    low, high = info.action_low, info.action_high
    fault = ""
    if low.shape != (act_dim,) or high.shape != (act_dim,):
        fault = (
            f"{info.dataset_id}: column actions has {act_dim} dimensions, but its bounds have the shapes {low.shape} "
            f"and {high.shape}."
        )
    elif not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        fault = f"{info.dataset_id}: the action bounds {low} and {high} must be finite, the lower below the upper."
    return Check("actions", "bounds", fault)


def _check_actions(actions: Floats, info: DatasetInfo) -> Check:
    outside = (actions < info.action_low - _ACTION_TOLERANCE) | (actions > info.action_high + _ACTION_TOLERANCE)
    bad_rows = np.flatnonzero(outside.any(axis=1))
    if not len(bad_rows):
        return Check("actions", "within bounds")
    row = bad_rows[0]
    dim = int(np.flatnonzero(outside[row])[0])
    bounds = f"[{info.action_low[dim]:g}, {info.action_high[dim]:g}]"
    place = f" of {info.env_id}" if info.env_id else ""
    fault = (
        f"{info.dataset_id}: column actions is outside the bounds{place} in {len(bad_rows)} of {len(actions)} "
        f"rows, first in row {row} (dimension {dim}: {actions[row, dim]:g}, bounds {bounds}): clip the "
        "actions if the environment did so, or give the environment in which they were logged."
    )
    return Check("actions", "within bounds", fault, int(row), "mopo fetch-data --dataset ./file.h5 --env ENV-ID")


def _check_boundaries(transitions: Transitions, where: str) -> Check:
    t = transitions
    inside = ~(t.terminals | t.timeouts)[:-1]
    rows = discontinuities(t)
    if not len(rows):
        return Check("next_observations", "equal to the next row")
    fault = (
        f"{where}: column next_observations differs from the next row's observations in {len(rows)} of "
        f"{int(inside.sum())} rows inside episodes, first in row {rows[0]}: if episodes end there, mark these rows "
        f"in terminals (the task ended) or timeouts (the recording ended). Now {int(t.terminals.sum())} terminals "
        f"and {int(t.timeouts.sum())} timeouts are marked."
    )
    return Check("next_observations", "equal to the next row", fault, int(rows[0]))


def _differs(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Rows that differ by more than rounding. Almost all are equal to the bit; only the rest is compared."""
    differs: NDArray[np.bool_] = (a != b).any(axis=1)
    rows = np.flatnonzero(differs)
    differs[rows] = ~np.isclose(a[rows], b[rows], rtol=_RELATIVE, atol=_ABSOLUTE).all(axis=1)
    return differs
