"""A policy as users call it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mopo_cli.data.history import frame_width, steps_text
from mopo_cli.errors import InputError
from mopo_cli.policy.weights import numbers, offset_of


@dataclass(frozen=True, eq=False)
class Policy:
    """A trained policy: `action = policy(observation)`, both in the units of the data.

    Actions are the policy's mean actions, and lie within the bounds of actions; nothing is drawn at random. An
    observation with NaN, an infinite number or one that is too large for float32 has NaN for its actions.
    Observations are as the data have them: scaling and offsets are part of the policy. Where the data were fetched with
    --history, an observation is the last steps side by side, the newest first: `stack` makes it.

    ``path`` is the file, ``about`` all that its header says.
    """

    path: Path
    about: dict[str, Any] = field(repr=False)
    _act: Callable[[NDArray[np.float64]], NDArray[Any]] = field(repr=False)

    def __call__(self, observation: ArrayLike) -> NDArray[np.float32]:
        """The action `[A]` f4 for an observation `[O]`, or the actions `[N, A]` for `[N, O]`; InputError if not so."""
        rows, one = self._rows(observation)
        actions = self._act(rows).astype(np.float32)
        return actions[0] if one else actions

    def inside(self, observation: ArrayLike) -> NDArray[np.bool_]:
        """Which numbers of an observation `[O]`, or of several `[N, O]`, lie between their extremes in the data.

        NaN lies nowhere. InputError for another width, or where the file does not say how the data ranged.
        """
        rows, one = self._rows(observation)
        if "observation_range" not in self.about:
            raise InputError(
                f"{self.path} does not say how the observations of the data ranged: an older version of mopo made it.",
                hint="mopo train-policy --force",
            )
        # As the data have them: a number that float32 rounds is not outside for that.
        offset, of_data = offset_of(self.about), self.about["observation_range"]
        low, high = ((np.array(of_data[name]) - offset).astype(np.float32) for name in ("min", "max"))
        with np.errstate(over="ignore"):  # what float32 cannot hold is outside
            stored = (rows - offset).astype(np.float32)
        inside: NDArray[np.bool_] = (stored >= low) & (stored <= high)
        return inside[0] if one else inside

    def stack(self, observations: ArrayLike, actions: ArrayLike) -> NDArray[np.float64]:
        """The observation `[O]` of the latest step of an episode, for policies of data with a history of H steps.

        ``observations`` `[t + 1, F]` are those of the single steps and ``actions`` `[t, A]` those between them, oldest
        first, in the data's units; only the last H and H - 1 matter. Where the episode has fewer, its first observation
        is repeated and actions are 0 in [-1, 1], as in the data. InputError for other shapes, and for more actions than
        lie between so few observations.
        """
        steps, act_dim = self.history, self.act_dim
        frame = frame_width(self.obs_dim, act_dim, steps)
        frames, given = (numbers(values, f"The policy {self.path} takes") for values in (observations, actions))
        # No action at all has no width, and of actions of one number some write a plain list.
        taken = given.reshape(-1, act_dim) if given.ndim == 1 and (not given.size or act_dim == 1) else given
        last = len(frames) - 1 if frames.ndim == 2 and frames.shape[1] == frame else -1
        fits = last >= 0 and taken.ndim == 2 and taken.shape[1] == act_dim
        if not (fits and (len(taken) == last or len(taken) >= steps - 1 <= last)):
            raise InputError(
                f"The policy takes the last {steps_text(steps)}: observations [t + 1, {frame}] and actions [t, "
                f"{act_dim}], not {list(frames.shape)} and {list(given.shape)}."
            )
        low, high = (bound.astype(np.float64) for bound in self.bounds)
        taken = 2 * (taken - low) / (high - low) - 1
        past = [taken[-k] if k <= last else np.zeros(act_dim) for k in range(1, steps)]
        return np.concatenate([*(frames[max(last - k, 0)] for k in range(steps)), *past])

    @property
    def obs_dim(self) -> int:
        """O, how many numbers an observation has."""
        return int(self.about["obs_dim"])

    @property
    def act_dim(self) -> int:
        """A, how many numbers an action has."""
        return int(self.about["act_dim"])

    @property
    def history(self) -> int:
        """Of how many steps an observation is."""
        return int(self.about.get("history", 1))

    @property
    def bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The least and the greatest action, `[A]` f4 each."""
        low, high = (np.array(self.about[name], np.float32) for name in ("action_low", "action_high"))
        return low, high

    @property
    def columns(self) -> dict[str, list[str]]:
        """What the numbers of an "observation" and of an "action" are called; what the data do not name is missing."""
        return {name: list(entries) for name, entries in self.about.get("columns", {}).items()}

    def _rows(self, observation: ArrayLike) -> tuple[NDArray[np.float64], bool]:
        rows = numbers(observation, f"The policy {self.path} takes")
        if rows.ndim not in (1, 2) or rows.shape[-1] != self.obs_dim:
            raise InputError(
                f"The policy {self.path} takes observations [{self.obs_dim}] or [N, {self.obs_dim}], not "
                f"{list(rows.shape)}."
            )
        return np.atleast_2d(rows), rows.ndim == 1
