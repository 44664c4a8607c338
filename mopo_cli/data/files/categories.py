"""Columns of categories as numbers: one column of 0 and 1 for each value."""

import numpy as np
from numpy.typing import NDArray

from mopo_cli.data.checks import Check
from mopo_cli.data.files.arrow_values import NOTHING

_MOST = 100
_WHAT = "categories"


def one_hot(words: NDArray[np.str_], name: str, where: str) -> tuple[NDArray[np.float32], list[str], Check]:
    """Text `[N]` as `[N, values]`, in the order of the values, and the names of these columns, such as sex=F.

    An empty cell, or a word such as NA, is missing (NaN). The check fails where there is no value, or too many for
    categories.
    """
    values = sorted(value for value in set(words.tolist()) if value.lower() not in NOTHING)
    if len(values) > _MOST:
        fault = f"{where}: column {name} has {len(values)} different values; :onehot takes at most {_MOST}."
        return np.zeros((len(words), 1), np.float32), [name], Check(name, _WHAT, fault)
    if not values:
        fault = f"{where}: column {name} holds no value in any row: leave it out."
        return np.zeros((len(words), 1), np.float32), [name], Check(name, _WHAT, fault)
    columns = np.stack([words == value for value in values], axis=1).astype(np.float32)
    columns[~np.isin(words, values)] = np.nan
    return columns, [f"{name}={value}" for value in values], Check(name, _WHAT)
