"""Logs of episodes whose rows all differ, to see what observations of several steps are made of."""

from collections.abc import Sequence

import numpy as np

from mopo_cli.data.transitions import DatasetInfo, Transitions

LOW, HIGH = np.array([-2.0, 0.0], "f4"), np.array([2.0, 10.0], "f4")


def log_of(lengths: Sequence[int], terminal: bool = True) -> tuple[Transitions, DatasetInfo]:
    """Episodes of these lengths: observations (episode, step, noise), two actions; every second one ends as a task."""
    draw, rows = np.random.default_rng(0), sum(lengths)
    episode = np.repeat(np.arange(len(lengths)), lengths)
    step = np.concatenate([np.arange(length) for length in lengths])
    noise = draw.normal(size=rows + 1)
    observations = np.stack([episode, step, noise[:-1]], axis=1).astype("f4")
    following = np.stack([episode, step + 1, noise[1:]], axis=1).astype("f4")
    last = np.cumsum(lengths) - 1
    following[last, 2] = 77  # in no other row
    ends = np.zeros(rows, np.bool_)
    ends[last] = True
    terminals = ends & (episode % 2 == 0) & terminal
    actions = draw.uniform(LOW, HIGH, (rows, 2)).astype("f4")
    transitions = Transitions(observations, actions, noise[:-1].astype("f4"), following, terminals, ends & ~terminals)
    return transitions, DatasetInfo("log", None, "a test", LOW, HIGH, "none")
