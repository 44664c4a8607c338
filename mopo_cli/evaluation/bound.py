"""The bound of MOPO, measured: what one policy returns in the real environment, in the model and in the penalised one.

Where u is an admissible error estimator and lambda is as in the theorem, eta_M(pi) >= eta_M~(pi) for every policy
(MOPO section 4.2): the penalised model promises nothing that the real environment does not keep. Whether u and lambda
are so cannot be told from data; whether the inequality held for a policy can be measured where there is a simulator.
"""

from collections.abc import Mapping
from math import hypot, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mopo_cli.evaluation.play import EpisodeResults
from mopo_cli.evaluation.stats import mean_std

REAL, MODEL, PENALISED = WHERE = ("real", "model", "penalised")
"""The places: the environment, the plain model and the penalised model."""


def summary(played: Mapping[str, Mapping[str, EpisodeResults]]) -> dict[str, Any]:
    """What the episodes say, per seed and over seeds; ``played`` has what was played by seed and by place.

    A return is a mean with its standard error (of a single episode there is none). ``gap`` is eta_M - eta_M~, both
    discounted, and ``held`` whether it is not negative; over seeds, how often it held.
    """
    seeds = {seed: _of_seed(places) for seed, places in played.items()}
    places = [where for where in WHERE if all(where in each for each in seeds.values())]
    overall = {
        where: {
            kind: dict(
                zip(("mean", "std"), mean_std([each[where][kind]["mean"] for each in seeds.values()]), strict=True)
            )
            for kind in ("discounted", "undiscounted")
        }
        for where in places
    }
    held = [each["held"] for each in seeds.values() if each["held"] is not None]
    return {"seeds": seeds, "over_seeds": overall, "held": sum(held) if held else None, "compared": len(held)}


def _of_seed(places: Mapping[str, EpisodeResults]) -> dict[str, Any]:
    result: dict[str, Any] = {
        where: {
            "discounted": _estimate(episodes.discounted),
            "undiscounted": _estimate(episodes.returns),
            "length": float(episodes.lengths.mean()),
            "episodes": len(episodes.lengths),
        }
        for where, episodes in places.items()
    }
    result |= {"gap": None, "held": None}
    if REAL in places:
        real, penalised = (result[where]["discounted"] for where in (REAL, PENALISED))
        gap = real["mean"] - penalised["mean"]
        error = hypot(real["standard_error"], penalised["standard_error"])
        result |= {"gap": {"mean": gap, "standard_error": error}, "held": gap >= 0 if isfinite(gap) else None}
    return result


def _estimate(values: NDArray[np.float64]) -> dict[str, float]:
    error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return {"mean": float(values.mean()), "standard_error": float(error)}
