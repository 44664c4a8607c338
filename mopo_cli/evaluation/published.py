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
from typing import Any

DEFAULT_VERSION = "v2"
"""The version meant by a D4RL name that states none."""


@dataclass(frozen=True)
class PublishedResult:
    """One number of one table.

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
    name, version = _split_version(dataset_id)
    family = re.sub(r"-mixed$", "-medium-replay", name)
    found = [result for result in _results() if result.dataset == family]
    return sorted(found, key=lambda result: result.version != version)


def published_factor(dataset_id: str, env_kwargs: dict[str, Any]) -> float:
    """What a return in the dataset's environment is to be multiplied by to compare it with `published` returns.

    1 but for hiv: MOPO's Table 5 does not print its unit, but a thousandth of the raw reward fits (no drug then
    returns 6946, full doses 18787, the data's mean episode 6747, online SAC 25716).
    """
    return 1e-3 / float(env_kwargs.get("reward_unit", 1e-6)) if dataset_id == "hiv" else 1.0


def _split_version(dataset_id: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.+)-(v\d+)", dataset_id)
    return (match[1], match[2]) if match else (dataset_id, DEFAULT_VERSION)


@cache
def _results() -> tuple[PublishedResult, ...]:
    with files("mopo_cli.evaluation").joinpath("published-results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return tuple(_result(row) for row in rows if _is_result(row))


def _is_result(row: dict[str, str]) -> bool:
    return row["mean"] != "N/A" and not row["unit"].startswith("hyperparameter:")


def _result(row: dict[str, str]) -> PublishedResult:
    return PublishedResult(
        paper=row["paper"],
        table=row["table"],
        dataset=row["dataset"],
        version=row["version"],
        method=row["method"],
        mean=float(row["mean"]),
        std=float(row["std"]) if row["std"] else None,
        unit=row["unit"],
        note=row["note"],
    )
