"""What values tell: from which ones nothing can be learnt, as they stay the same or lie far outside.

And of actions, where no environment tells it, whether they are continuous and how far they go.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.transitions import Floats, Transitions

Named = Iterable[tuple[str, Floats]]
"""Columns `[N]`, each with the name that people are told."""

# Distance from the median, in spreads of the rest of the column: what is odd, and what no float32 sum survives. Where
# the rest is dust, rounding about zero, the distance itself must be large as well.
_FAR, _SWAMPS = 50, 1e6
_NINES = 99  # and more nines, which are written for a missing value
_SINGLE = 3  # as many such values; more of them are no slip, as outcomes among small rewards
_LARGE = 1e6
# Of actions: as few values may be choices; a bound of 1 is near, the margin beyond others; what many rows hold.
_FEW, _ROWS_EACH = 20, 50
_NEAR, _MARGIN = 0.9, 0.05
_HELD_ROWS, _HELD_SHARE = 2, 0.001
_NAMED = 12
_SHOWN = 10
_WITHIN, _VARIES, _SIZE = "no value far outside", "varies", "not too large"


def dimensions(name: str, column: Floats) -> Iterator[tuple[str, Floats]]:
    """The dimensions of a column `[N, width]` as ``name[0]``, ...; one `[N]`, or of width 1, under its plain name."""
    if column.ndim == 1 or column.shape[1] == 1:
        yield name, column.reshape(len(column))
    else:
        yield from ((f"{name}[{i}]", column[:, i]) for i in range(column.shape[1]))


def check_far_values(columns: Named, where: str) -> list[Check]:
    """The values far outside the rest of their column: a fault where float32 sums would keep nothing of the rest."""
    checks = [
        check for name, column in columns if (check := _far(name, column, where) or _fill_in(name, column, where))
    ]
    faults, warnings = ([c for c in checks if bool(c.fault) == is_fault] for is_fault in (True, False))
    return [*faults[:_SHOWN], *warnings[:_SHOWN]] or [Check("all", _WITHIN)]


def check_actions_vary(actions: Named, where: str) -> list[Check]:
    """A warning for each action that never changes, where its bounds are given and a policy could move it."""
    return [
        Check(
            name,
            _VARIES,
            row=0,
            warning=f"{where}: column {name} is {column[0]:g} in every row (0 to {len(column) - 1}), so nothing is "
            "known of what this action does, and a policy may take it anywhere within its bounds: leave it out, or log "
            "it at other values.",
        )
        for name, column in actions
        if len(column) > 1 and (column == column[0]).all()
    ][:_SHOWN]


def check_rewards(transitions: Transitions, where: str) -> list[Check]:
    """Warnings for rewards that never change, and for rewards so large that the model's error stays flat."""
    rewards = transitions.rewards.astype(np.float64)
    if (rewards == rewards[0]).all():
        learns = "only the length of an episode" if transitions.terminals.any() else "nothing"
        warning = (
            f"{where}: column rewards is {rewards[0]:g} in every row (0 to {len(rewards) - 1}): {learns} distinguishes "
            "a good policy from a bad one. Use another column as the reward."
        )
        return [Check("rewards", _VARIES, row=0, warning=warning)]
    mean, spread = float(rewards.mean()), float(rewards.std())
    if max(abs(mean), spread) < _LARGE:
        return [Check("rewards", _SIZE)]
    largest = int(np.abs(rewards).argmax())
    power = int(np.floor(np.log10(max(abs(mean), spread))))
    warning = (
        f"{where}: column rewards has mean {mean:.3g} and standard deviation {spread:.3g}, the largest in row "
        f"{largest} ({rewards[largest]:.3g}): too large for the model to learn. Divide the rewards, here by "
        f"1e{power}; the best policy stays the same."
    )
    return [Check("rewards", _SIZE, row=largest, warning=warning)]


def _far(name: str, column: Floats, where: str) -> Check | None:
    if len(column) < 2 or not np.isfinite(column).all():
        return None
    values: NDArray[np.float64] = column.astype(np.float64)
    middle = float(np.median(values))
    distances = np.abs(values - middle)
    count = len(values) - max(1, len(values) // 1000)
    near = distances <= np.partition(distances, count - 1)[count - 1]
    rest = values[near]
    spread = float(rest.max() - rest.min()) or max(abs(middle), 1.0)
    rows = np.flatnonzero(distances > _FAR * spread)
    swamping = np.flatnonzero(distances > max(_SWAMPS * spread, _LARGE))
    if not len(swamping) and not 0 < len(rows) <= _SINGLE:
        return None
    rows = swamping if len(swamping) else rows
    row = int(rows[distances[rows].argmax()])
    text = (
        f"{where}: column {name} holds {values[row]:.4g} in row {row}, where the rest lies between {rest.min():.4g} "
        f"and {rest.max():.4g}"
    )
    if len(swamping):
        return Check(
            name, _WITHIN, f"{text}: beside it, the rest would be lost in rounding. Remove or repair this episode.", row
        )
    return Check(name, _WITHIN, row=row, warning=f"{text}: if it is an error of the log, remove or repair its episode.")


def _fill_in(name: str, column: Floats, where: str) -> Check | None:
    """A warning for -999 and the like, in any number of rows, farther from the rest than that is wide."""
    for value in (column.min(), column.max()) if len(column) else ():
        if abs(value) < _NINES or {*f"{abs(value):g}"} != {"9"}:
            continue
        rows, rest = np.flatnonzero(column == value), column[column != value]
        if not len(rest) or not np.abs(rest - value).min() > rest.max() - rest.min() > 0:
            continue
        warning = (
            f"{where}: column {name} is {value:g} in {len(rows)} row{'s' * (len(rows) > 1)} (first row {rows[0]}), "
            f"where the rest lies between {rest.min():.4g} and {rest.max():.4g}: if it stands for a missing value, "
            "leave these cells empty, and say with --missing what to do with them."
        )
        return Check(name, _WITHIN, row=int(rows[0]), warning=warning)
    return None


def check_continuous(columns: Mapping[str, NDArray[np.generic]], kinds: Mapping[str, str], where: str) -> Check:
    """Whether the action columns, as they are stored, can be quantities and not the number of a choice.

    It fails where all are integers or booleans, and one has few different values beside its rows (at most 20, or
    numbers that follow one another without a gap, at most one for 50 rows), or all together have a single 1 in every
    row. Floating-point numbers (in CSV: any cell with a decimal point or an exponent) are always taken for quantities,
    and so are columns of the kind "quantity".
    """
    whole = [name for name, column in columns.items() if _is_whole(column) and kinds.get(name) != "quantity"]
    if not whole or len(whole) < len(columns):
        return Check(next(iter(columns)), "continuous")
    together = np.concatenate([columns[name].reshape(len(columns[name]), -1) for name in whole], axis=1)
    together = together[~np.isnan(together).any(axis=1)] if together.dtype.kind == "f" else together
    single_ones = np.isin(together, (0, 1)).all(axis=1) & (together.sum(axis=1) == 1)
    one_hot = together.shape[1] > 1 and bool(single_ones.all())
    for name in whole:
        values = np.unique(columns[name][~np.isnan(columns[name].astype(np.float64))])
        if len(values) and (one_hot or _are_choices(values, len(columns[name]))):
            shown = ", ".join(str(int(value)) for value in values.ravel()[:_NAMED])
            shown += f", ..., {int(values[-1])}" if len(values) > _NAMED else ""
            what = "one of several choices (a single 1 in every row)" if one_hot else "discrete actions"
            fault = (
                f"{where}: column {name} holds {what}: {len(values)} different whole numbers in {len(columns[name])} "
                f"rows ({shown}); mopo learns continuous actions. If they are amounts, write action={name}:quantity in "
                "--columns. If they are choices, use a method for discrete actions."
            )
            return Check(name, "continuous", fault)
    return Check(whole[0], "continuous")


def _is_whole(column: NDArray[Any]) -> bool:
    """Whether numbers are stored as whole ones; beside missing values they are read as float64."""
    if column.dtype.kind in "iub":
        return True
    present = column[~np.isnan(column)]
    return len(present) < column.size and bool((present == np.round(present)).all())


def _are_choices(values: NDArray[np.generic], rows: int) -> bool:
    span = int(values[-1]) - int(values[0]) + 1
    return len(values) <= _FEW or (len(values) == span and len(values) * _ROWS_EACH <= rows)


def bounds_of(actions: Floats, names: list[str], where: str) -> tuple[Floats, Floats, list[Check]]:
    """Bounds `[A]` from the data `[N, A]`: how far each dimension goes, and a little further.

    A dimension that stays within [-1, 1] and comes near both has [-1, 1]. Others have their least and greatest value
    and a margin beyond it, but not across 0, as a valve does not go below shut, and not beyond a value that many rows
    hold, which is a bound. A dimension that never changes fails its check: nothing is known of what it does, so a
    policy must not move it.
    """
    checks = [
        Check(
            name,
            "varies",
            f"{where}: column {name} is {column[0]:g} in every row, so its effect is unknown: leave it out, or give "
            "its bounds (action_low and action_high in a --columns YAML file, or --env ENV-ID)."
            if len(column) and (column == column[0]).all()
            else "",
        )
        for name, column in zip(names, actions.T, strict=True)
    ]
    bounds = [_bounds(column) if len(column) else (np.inf, -np.inf) for column in actions.T]
    low, high = np.array(bounds, np.float32).reshape(-1, 2).T
    return low, high, checks


def bounds_in_words(actions: Floats, low: Floats, high: Floats, names: list[str]) -> str:
    """What `bounds_of` made of the actions `[N, A]`, with the margins."""
    parts = []
    for i, name in enumerate(names[:_NAMED] if len(actions) else []):
        column = actions[:, i]
        below, above = low[i] < column.min(), high[i] > column.max()
        if _is_plain(column):
            margin = "the data come near both"
        elif below and above:
            margin = "with a margin of up to 5 % of the range on both sides"
        elif below or above:
            margin = f"with a margin of up to 5 % of the range {'below' if below else 'above'}"
        else:
            margin = "without a margin"
        parts.append(f"{name} from {low[i]:g} to {high[i]:g}, {margin}")
    more = f" (and {len(names) - _NAMED} more)" if len(names) > _NAMED else ""
    return f"no environment named: action bounds taken from the data: {', '.join(parts)}{more}"


def _bounds(column: Floats) -> tuple[float, float]:
    least, greatest = float(column.min()), float(column.max())
    if _is_plain(column):
        return -1.0, 1.0
    margin = _MARGIN * (greatest - least)
    low = least if _is_held(column, least) else least - margin
    high = greatest if _is_held(column, greatest) else greatest + margin
    return (max(low, 0.0) if least >= 0 else low), (min(high, 0.0) if greatest <= 0 else high)


def _is_plain(column: Floats) -> bool:
    return bool(-1 <= column.min() <= -_NEAR and _NEAR <= column.max() <= 1)


def _is_held(column: Floats, value: float) -> bool:
    """Whether so many rows have exactly this value that it must be a bound."""
    return int((column == value).sum()) >= max(_HELD_ROWS, _HELD_SHARE * len(column))
