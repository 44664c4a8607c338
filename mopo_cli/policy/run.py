"""What a run folder holds, as users list it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mopo_cli.store.atomic import read_json
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import check_run, named_run

_POLICY = re.compile(r"policy/seed-(\d{1,19})")


@dataclass(frozen=True)
class Run:
    """The finished parts of a run: ``path`` is its folder.

    ``policies`` are the files by the policy's name, in the order in which they were trained, and seed: for
    `load_policy`. ``dataset`` is the HDF5 file of the data and ``model`` the file for `load_model`, None where there is
    none yet. ``evaluations`` are the contents of evaluations/NAME.json by NAME.
    """

    path: Path
    dataset: Path | None
    model: Path | None
    policies: dict[str, dict[int, Path]]
    evaluations: dict[str, Any]


def read_run(path: Path) -> Run:
    """List a run: see `mopo_cli.open_run`."""
    run = named_run(path)
    check_run(run)
    records = read_lineage(run)
    outputs = {key: {role: run.root / file["path"] for role, file in r.outputs.items()} for key, r in records.items()}
    trained = sorted((key for key in records if key.startswith("train-policy/")), key=lambda key: records[key].finished)
    evaluations = sorted((run.root / "evaluations").glob("*.json"))
    return Run(
        run.root,
        outputs.get("fetch-data", {}).get("dataset"),
        outputs.get("train-model", {}).get("model"),
        {key.removeprefix("train-policy/"): _by_seed(outputs[key]) for key in trained},
        {file.stem: read_json(file) for file in evaluations},
    )


def _by_seed(outputs: dict[str, Path]) -> dict[int, Path]:
    files = {int(match[1]): path for role, path in outputs.items() if (match := _POLICY.fullmatch(role))}
    return dict(sorted(files.items()))
