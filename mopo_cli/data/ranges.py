"""What a policy's file says of its data: the range of each number of an observation, and the names of the columns."""

import numpy as np

from mopo_cli.data.transitions import DatasetInfo, Transitions

_POINTS = {"min": 0.0, "p1": 0.01, "p99": 0.99, "max": 1.0}


def observation_range(transitions: Transitions, info: DatasetInfo) -> dict[str, list[float]]:
    """The extremes and the 1 % and 99 % quantiles of each number of an observation, in the data's units, `[O]` each."""
    offset = np.zeros(transitions.obs_dim) if info.observation_offset is None else info.observation_offset
    places = list(_POINTS.values())
    columns = [np.quantile(column.astype(np.float64), places) for column in transitions.observations.T]
    points = np.array(columns).T + offset
    return dict(zip(_POINTS, points.tolist(), strict=True))


def column_names(transitions: Transitions, info: DatasetInfo) -> dict[str, list[str]]:
    """What the numbers of an observation and of an action are called, where the data name all of them."""
    names = {
        "observation": (info.names.get("obs", []), transitions.obs_dim),
        "action": (info.names.get("action", []), transitions.act_dim),
    }
    return {name: list(entries) for name, (entries, width) in names.items() if len(entries) == width}
