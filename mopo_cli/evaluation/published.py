"""What the papers report for a dataset.

`published-results.csv` holds the tables of four papers and one benchmark:

- MOPO-v1, MOPO-v2: Yu et al. 2020, "MOPO: Model-based Offline Policy Optimization", first and final version;
- COMBO: Yu et al. 2021, "COMBO: Conservative Offline Model-Based Policy Optimization";
- DROP: Shen et al. 2021, "Model-based Offline Policy Optimization with Distribution Correcting
  Regularization";
- OfflineRL-Kit-README: the benchmark table of github.com/yihaosun1124/OfflineRL-Kit.

Values are as printed, mistakes included; `note` says where a printed value is known to be wrong or disputed.
"""

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from math import isnan, nan
from typing import Any

DEFAULT_VERSION = "v2"
"""The version meant by a D4RL name that states none."""

_SETTING = "hyperparameter:"


@dataclass(frozen=True)
class PublishedResult:
    """One number of one table; `mean` is NaN where the table prints N/A.

    `version` is the D4RL version it was measured on ("v0", "v2"; empty: not D4RL, or the source does not
    say). `std` is the printed ± value (a 95 % interval where `unit` says so), None where none is printed.
    """

    paper: str
    table: str
    dataset: str
    version: str
    method: str
    mean: float
    std: float | None
    unit: str
    note: str


def published(dataset_id: str) -> list[PublishedResult]:
    """Every published result for a dataset's family, those of the asked D4RL version first.

    `mixed` is `medium-replay`; no version means v2. Results of other versions are kept because the papers
    have no others, but they are not the same data: show `version`. Empty for generated, Minari and local
    datasets, and for names that no paper uses.
    """
    version = data_version(dataset_id)
    results = [result for result in _results() if result.dataset == family(dataset_id) and not isnan(result.mean)]
    return sorted(results, key=lambda result: result.version != version)


def in_print(dataset_id: str, paper: str, table: str, method: str) -> PublishedResult | None:
    """What one table prints for a method, N/A included, on whatever version of the data; None where it has no cell."""
    wanted = (paper, table, method, family(dataset_id))
    return next((r for r in _results() if (r.paper, r.table, r.method, r.dataset) == wanted), None)


def chosen_pair(dataset_id: str, paper: str) -> tuple[int, float] | None:
    """The horizon h and the penalty's weight lam that a paper names for MOPO on a dataset's family."""
    settings = {
        row["unit"]: float(row["mean"])
        for row in _rows()
        if (row["paper"], row["method"], row["dataset"]) == (paper, "MOPO", family(dataset_id))
        and row["unit"].startswith(_SETTING)
    }
    if not settings:
        return None
    return int(settings[f"{_SETTING}rollout_length"]), settings[f"{_SETTING}penalty_coef"]


def family(dataset_id: str) -> str:
    """A dataset's name without its version, as the tables have it."""
    return re.sub(r"-mixed$", "-medium-replay", _split_version(dataset_id)[0])


def published_factor(dataset_id: str, env_kwargs: dict[str, Any]) -> float:
    """What a return in the dataset's environment is to be multiplied by to compare it with `published` returns.

    1 but for hiv: MOPO's Table 5 does not print its unit, but a thousandth of the raw reward fits (no drug then
    returns 6946, full doses 18787, the data's mean episode 6747, online SAC 25716).
    """
    return 1e-3 / float(env_kwargs.get("reward_unit", 1e-6)) if dataset_id == "hiv" else 1.0


def data_version(dataset_id: str) -> str:
    """The version that a D4RL name means: that of its end, else v2."""
    return _split_version(dataset_id)[1]


def _split_version(dataset_id: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+)-(v\d+)", dataset_id)
    return (match[1], match[2]) if match else (dataset_id, DEFAULT_VERSION)


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with files("mopo_cli.evaluation").joinpath("published-results.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


@cache
def _results() -> tuple[PublishedResult, ...]:
    return tuple(_result(row) for row in _rows() if not row["unit"].startswith(_SETTING))


def _result(row: dict[str, Any]) -> PublishedResult:
    mean = nan if row["mean"] == "N/A" else float(row["mean"])
    return PublishedResult(**{**row, "mean": mean, "std": float(row["std"]) if row["std"] else None})
