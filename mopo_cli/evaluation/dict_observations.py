"""Observations that are Dicts, as one row of numbers: their entries side by side, in an order that is recorded."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from mopo_cli.errors import InputError

Leaves = Mapping[str, gym.Space[Any]]
"""The entries of a Dict by their paths, such as ``achieved_goal/microwave``."""


class FlatObservations(gym.ObservationWrapper[Any, Any, Any]):
    """An environment whose Dict observations become `[O]`: ``entries`` side by side, each in C order.

    Without ``entries`` they are all, in the order of `gymnasium.spaces.flatten`. Raises what `check_entries` does.
    """

    def __init__(self, environment: gym.Env[Any, Any], entries: Sequence[str], what: str) -> None:
        super().__init__(environment)
        space = environment.observation_space
        assert isinstance(space, gym.spaces.Dict)
        leaves = leaves_of(what, space)
        self.entries = tuple(entries or leaves)
        boxes = check_entries(what, leaves, self.entries)
        low, high = (np.concatenate([getattr(box, end).ravel() for box in boxes]) for end in ("low", "high"))
        self.observation_space = gym.spaces.Box(low, high, dtype=low.dtype.type)

    def observation(self, observation: Any) -> NDArray[Any]:
        """One observation `[O]`."""
        return np.concatenate([np.ravel(entry_of(observation, path)) for path in self.entries])


def leaves_of(what: str, space: gym.spaces.Dict) -> dict[str, gym.Space[Any]]:
    """The entries of a Dict and of the Dicts in it, in the order of `gymnasium.spaces.flatten`.

    InputError, about ``what`` has the space, where there are none or a name has a slash, which stands between names.
    """
    leaves: dict[str, gym.Space[Any]] = {}
    for key, inner in space.spaces.items():
        if "/" in str(key):
            raise InputError(f"{what} has the observation entry {key!r}: a name must not contain a slash.")
        if isinstance(inner, gym.spaces.Dict):
            leaves |= {f"{key}/{path}": leaf for path, leaf in leaves_of(what, inner).items()}
        else:
            leaves[str(key)] = inner
    if not leaves:
        raise InputError(f"{what} has observations without entries.")
    return leaves


def check_entries(what: str, leaves: Leaves, entries: Iterable[str]) -> list[gym.spaces.Box]:
    """The boxes of the entries, in order. InputError, naming the entry, for one that is absent or not of such numbers.

    Numbers must be floating-point, of any shape.
    """
    boxes = []
    for path in entries:
        space = leaves.get(path)
        if space is None:
            raise InputError(f"{what} has no observation entry {path!r}; its entries are {', '.join(leaves)}.")
        if not is_usable(space):
            kind = f"{space.dtype} numbers" if isinstance(space, gym.spaces.Box) else f"the space {space}"
            raise InputError(
                f"{what} has {kind} in the observation entry {path!r}; only floating-point boxes can be used."
            )
        assert isinstance(space, gym.spaces.Box)
        boxes.append(space)
    return boxes


def entries_in(environment: gym.Env[Any, Any]) -> tuple[str, ...]:
    """The entries of the `FlatObservations` around an environment; none where there is no such wrapper."""
    while isinstance(environment, gym.Wrapper):
        if isinstance(environment, FlatObservations):
            return environment.entries
        environment = environment.env
    return ()


def is_usable(space: gym.Space[Any]) -> bool:
    """Whether an entry is a box of floating-point numbers."""
    return isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating)


def entry_of(observation: Any, path: str) -> Any:
    """What lies at a path of nested mappings."""
    for key in path.split("/"):
        observation = observation[key]
    return observation


def in_order(entries: Iterable[str]) -> str:
    """The entries for people: ``observations = achieved_goal + desired_goal + observation``."""
    return f"observations = {' + '.join(entries)}"
