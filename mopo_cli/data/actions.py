"""What logged actions tell where no environment does: whether they are continuous, and how far they go."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.transitions import Floats

_FEW, _ROWS_EACH = 20, 50
_NEAR, _MARGIN = 0.9, 0.05
_HELD_ROWS, _HELD_SHARE = 2, 0.001
_SHOWN = 12


def check_continuous(columns: Mapping[str, NDArray[np.generic]], kinds: Mapping[str, str], where: str) -> Check:
    """Whether the action columns, as they are stored, can be quantities and not the number of a choice.

    It fails where all are integers or booleans, and one has few different values beside its rows (at most 20, or
    numbers that follow one another without a gap, at most one for 50 rows), or all together have a single 1 in every
    row. Floating-point numbers (in CSV: any cell with a decimal point or an exponent) are always taken for quantities,
    and so are columns of the kind "quantity".
    """
    whole = [name for name, column in columns.items() if column.dtype.kind in "iub" and kinds.get(name) != "quantity"]
    if not whole or len(whole) < len(columns):
        return Check(next(iter(columns)), "continuous")
    together = np.concatenate([columns[name].reshape(len(columns[name]), -1) for name in whole], axis=1)
    single_ones = np.isin(together, (0, 1)).all(axis=1) & (together.sum(axis=1) == 1)
    one_hot = together.shape[1] > 1 and bool(single_ones.all())
    for name in whole:
        values = np.unique(columns[name])
        if len(values) and (one_hot or _are_choices(values, len(columns[name]))):
            shown = ", ".join(str(int(value)) for value in values.ravel()[:_SHOWN])
            shown += f", ..., {int(values[-1])}" if len(values) > _SHOWN else ""
            what = "one of several choices (a single 1 in every row)" if one_hot else "discrete actions"
            fault = (
                f"{where}: column {name} holds {what}: {len(values)} different whole numbers in {len(columns[name])} "
                f"rows ({shown}); mopo learns continuous actions. If they are amounts, write action={name}:quantity in "
                "--columns. If they are choices, use a method for discrete actions."
            )
            return Check(name, "continuous", fault)
    return Check(whole[0], "continuous")


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
    for i, name in enumerate(names[:_SHOWN] if len(actions) else []):
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
    more = f" (and {len(names) - _SHOWN} more)" if len(names) > _SHOWN else ""
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
