"""Which axis of arrays `[first, second, width]` is time: that of environments' steps, or that of padded episodes'."""

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.files.stack import Stack, is_mask
from mopo_cli.errors import InputError

# The mean difference of neighbours, in standard deviations: 1.13 where they are independent draws.
_INDEPENDENT = 0.75
_RATHER = 1.0
_GOES_ON = 0.5
# More rows than these tell no more.
_ENOUGH = 300
# Of so few neighbours, those that climb steadily look like independent draws.
_FEW = 4
# As many times longer, the other axis is rather time than so many environments.
_LONG = 10
# How often chance may put all flags into last steps.
_CHANCE = 1e-3
# How far, in standard deviations of a fair coin's, more steps after flags than before them are larger.
_JUMPS = 2.5


def is_time_first(stack: Stack) -> bool:
    """Whether arrays `[first, second, ...]` have time along the first axis. InputError where neither axis is clear.

    The first thing that is seen along one of them more than along the other tells; else it is how observations go on.
    """
    swapped = stack.time_first()
    if not swapped.names("observations"):
        return False
    for seen in (_has_lengths, _has_last_states, _is_alone, _has_mask, _follow, _is_filled, _has_ends, _jumps):
        if (along_first := seen(swapped)) != (along_second := seen(stack)):
            return along_first > along_second
    return _by_smoothness(stack, swapped)


def _has_lengths(stack: Stack) -> bool:
    return stack.lengths_name() is not None


def _has_last_states(stack: Stack) -> bool:
    """Whether there is a row of observations more than there are actions."""
    return any(stack.shapes[name][1] > stack.steps for name in stack.names("observations"))


def _is_alone(stack: Stack) -> bool:
    """Whether there is a single environment, as in a buffer of Stable-Baselines3, `[size, 1, width]`."""
    return stack.count == 1 and stack.steps > 1


def _has_mask(stack: Stack) -> bool:
    """Whether a mask ends, or rows that are not NaN; of episodes sorted by length they end along both axes."""
    mask = stack.mask
    if mask is None:
        mask = ~_nothing(stack, "observations")
        if not mask.all():  # a lack of observations alone is no padding
            mask |= ~_nothing(stack, "actions", "rewards")
    return is_mask(mask)


def _nothing(stack: Stack, *columns: str) -> NDArray[np.bool_]:
    """Whether all of these columns are NaN `[count, steps]`."""
    return np.asarray(np.isnan(stack.together(*stack.names(*columns))).all(axis=2))


def _follow(stack: Stack) -> int:
    """How often the next row's observations are the next observations, and others than those of the row itself."""
    observations, following = _values(stack, "observations"), _values(stack, "next_observations")
    if following.shape != observations.shape:
        return 0
    moved = (following != observations).any(axis=2)[:, :-1]
    return int((moved & (following[:, :-1] == observations[:, 1:]).all(axis=2)).sum())


def _is_filled(stack: Stack) -> bool:
    """Whether observations after the last step of each episode are alike, and some are shorter."""
    lengths = _lengths(stack)
    padding = np.arange(stack.steps) >= lengths[:, None]
    if not padding.any():
        return False
    observations = np.nan_to_num(stack.together(*stack.names("observations")))
    alike = (observations == observations[:, -1:]).all(axis=2)
    return bool(alike[padding].all())


def _has_ends(stack: Stack) -> float:
    """The share of episodes that end in a flag; 0 where flags mark other steps, or chance may have it so."""
    if not (flags := stack.flags).any():
        return 0.0
    lengths = np.maximum(_lengths(stack), 1)
    steps = np.arange(stack.steps)
    others = flags & (steps < lengths[:, None] - 1)
    ended = (flags & (steps == lengths[:, None] - 1)).any(axis=1)
    return float(ended.mean()) if not others.any() and (1.0 / lengths[ended]).prod() < _CHANCE else 0.0


def _jumps(stack: Stack) -> float:
    """How surely steps after flags are larger than those before them, as resets are; 0 where it is not sure."""
    observations, flags = _values(stack, "observations"), stack.flags
    deviations = np.nanstd(observations, axis=(0, 1))
    sizes = (np.abs(np.diff(observations, axis=1)) / np.where(deviations > 0, deviations, 1)).sum(axis=2)
    alone = flags[:, 1:-1] & ~flags[:, :-2] & ~flags[:, 2:]
    larger = np.sign(sizes[:, 1:] - sizes[:, :-1])[alone]
    larger = larger[np.isfinite(larger)]
    surely = float(larger.sum() / np.sqrt(max(len(larger), 1)))
    return surely if surely > _JUMPS else 0.0


def _lengths(stack: Stack) -> NDArray[np.int64]:
    """The steps of each episode `[count]`; 0 where they cannot be seen."""
    try:
        return stack.lengths[0]
    except InputError:
        return np.zeros(stack.count, np.int64)


def _by_smoothness(stack: Stack, swapped: Stack) -> bool:
    """By the axis along which observations go on, as along that of environments or episodes they do not.

    Where that is not clear, a flag that is set before one that is not, along the second axis, says that the first is
    time. InputError where nothing does.
    """
    if not _roughness(_values(stack, "observations")) > _INDEPENDENT:
        return False
    flags = stack.flags
    resets = bool((flags[:, :-1] & ~flags[:, 1:]).any())
    roughness, is_short = _roughness(_values(swapped, "observations")), stack.steps <= _FEW
    if roughness >= _RATHER:
        unclear = resets or (stack.count <= _FEW and stack.steps <= _LONG * stack.count)
    elif roughness >= _GOES_ON:
        unclear = not (resets or flags.any())
    else:
        unclear = is_short and not flags[:, :-1].any()
    if unclear:
        first, second = stack.count, stack.steps
        raise InputError(
            f"{stack.file}: arrays {[first, second]} may be {first} steps of {second} environments side by side, or "
            f"{first} episodes of {second} steps.",
            hint="--layout vector for environments, --layout padded for episodes",
        )
    return roughness < _GOES_ON or (roughness < _RATHER and resets)


def _values(stack: Stack, column: str) -> NDArray[np.float64]:
    """The arrays of a column `[count, steps, width]`; what is padding is NaN."""
    values = stack.together(*stack.names(column))
    if (mask := stack.mask) is not None:
        values[~mask] = np.nan
    return values


def _roughness(values: NDArray[np.float64]) -> float:
    """The mean difference of neighbours along the steps `[count, steps, width]`, of the smoothest column.

    In standard deviations along the steps; NaN where no column has one. Padding (NaN) does not count.
    """
    values = values[:_ENOUGH, :_ENOUGH]
    with np.errstate(invalid="ignore"):  # what is not finite is refused once it is read
        differences = np.abs(np.diff(values, axis=1))
    means = np.ma.masked_invalid(differences).mean(axis=(0, 1)).filled(0)
    deviations = np.ma.masked_invalid(values).std(axis=1, ddof=1).mean(axis=0)
    moving = means > 0  # a deviation of equal numbers may be a rounding error
    return float((means[moving] / deviations[moving]).min()) if moving.any() else np.nan
