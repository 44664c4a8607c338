"""Whole episodes that a model and a policy are not shown, for a judge that is fair to both."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mopo_cli.data.transitions import Bools, Transitions, episode_lengths
from mopo_cli.errors import SettingsError

USUAL_SHARE = 0.2
"""Where the data name no environment to play policies in."""
_LEAST_EPISODES = 10  # to hold some out without being asked to
LEAST_TO_JUDGE = 4
"""Episodes: two to judge by, and two whose return the judge must know."""


def can_judge(evaluation: Mapping[str, Any]) -> bool:
    """Whether the result of an evaluation calls for a judge: no environment, and enough episodes."""
    return bool(evaluation.get("skipped")) and evaluation["dataset_episodes"] >= LEAST_TO_JUDGE


def judge_share(wanted: float | None, env_id: str | None, episodes: int) -> float:
    """The share of episodes to hold out: `wanted`, else `USUAL_SHARE` where there is no environment, else 0."""
    if wanted is not None:
        return wanted
    return USUAL_SHARE if env_id is None and episodes >= _LEAST_EPISODES else 0.0


def judge_rows(transitions: Transitions, share: float) -> Bools:
    """The rows `[N]` of the episodes held out: of every data set always the same ones.

    SettingsError where there are too few episodes for this share.
    """
    lengths = episode_lengths(transitions)
    count = round(share * len(lengths))
    if share and not 0 < count < len(lengths):
        fits = next((usual for usual in (USUAL_SHARE, 0.5) if 0 < round(usual * len(lengths)) < len(lengths)), 0)
        raise SettingsError(
            f"--judge-share {share:g} of {len(lengths)} episodes leaves none on one side.",
            hint=f"--judge-share {fits:g}" + (", or 0 for no judge" if fits else ""),
        )
    held = np.zeros(len(lengths), bool)
    held[np.random.default_rng(0).permutation(len(lengths))[:count]] = True
    return np.repeat(held, lengths)
