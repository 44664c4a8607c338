"""report: one HTML page about a run, from the files that its records name."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mopo_cli.data.history import newest_frames
from mopo_cli.data.ranges import column_names
from mopo_cli.data.statistics import dataset_statistics
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import InputError
from mopo_cli.policy.agreement import some_rows
from mopo_cli.policy.files import read_policy
from mopo_cli.report.dataset import with_names
from mopo_cli.report.page import HEAD_BYTES, MARK
from mopo_cli.report.run_page import run_page
from mopo_cli.report.run_page_contents import Actions, Contents, Curve
from mopo_cli.store.atomic import read_json, write_text
from mopo_cli.store.documents import EPOCH, read_lines
from mopo_cli.store.files import check_file
from mopo_cli.store.lineage import StageRecord, check_recorded, describe_files, read_lineage
from mopo_cli.store.run import RunFolder, check_run, folder_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The JSON files that a page shows: the stage's key in run.json, and the role of the file.
_DOCUMENTS = (
    (re.compile(r"train-model"), "description"),
    (re.compile(r"rollout/[^/]+/diagnosis"), "diagnosis"),
    (re.compile(r"evaluate/[^/]+"), "evaluation"),
    (re.compile(r"evaluate/[^/]+/ope"), "ope"),
    (re.compile(r"ablate/[^/]+"), "json"),
    (re.compile(r"ablate/[^/]+/rank[^/]*"), "json"),
)
_SEED = re.compile(r"(metrics|policy)/seed-(\d{1,19})")

Files = dict[tuple[str, str], Path]
"""The files to read, by the stage that wrote them and their role."""


def run_report(run: RunFolder, output: Path | None, *, force: bool) -> dict[str, Any]:
    """Write the page, RUN/report.html unless ``output`` says another place; returns the result object.

    InputError where the folder is no run, or another file than a page of mopo is at that place (unless ``force``);
    CorruptError where a file is not what its stage wrote. A file that is gone is left out, and the page says so.
    """
    check_run(run)
    path = output or run.root / "report.html"
    _check_place(path, force)
    records = dict(sorted(read_lineage(run).items(), key=lambda item: item[1].finished))
    text, sections = run_page(_contents(run, records))
    write_text(path, text)
    return {"run": str(run.root), "path": str(path), "sections": sections, "bytes": path.stat().st_size}


def _check_place(path: Path, force: bool) -> None:
    if not path.exists():
        return
    check_file(path, "The page ")
    with path.open("rb") as file:
        ours = MARK.encode() in file.read(HEAD_BYTES)
    if not (ours or force):
        raise InputError(
            f"{path} is there already and is not a page that mopo report made.",
            hint="--force writes over it, -o FILE.html takes another place",
        )


def _contents(run: RunFolder, records: Mapping[str, StageRecord]) -> Contents:
    wanted = {place: run.root / records[place[0]].outputs[place[1]]["path"] for place in _places(records)}
    files = {place: path for place, path in wanted.items() if path.is_file()}
    missing = [f"Not shown, as it is gone: {path}." for place, path in wanted.items() if place not in files]
    check_recorded(run, describe_files(run, {" ".join(place): path for place, path in files.items()}))
    documents = {key: read_json(path) for (key, role), path in files.items() if _is_document(key, role)}
    statistics, actions = None, dict[str, Actions]()
    if dataset := files.get(("fetch-data", "dataset")):
        transitions, info = read_dataset(dataset)
        newest = newest_frames(transitions, info)
        statistics = with_names(dataset_statistics(*newest), column_names(*newest))
        sha256 = records["fetch-data"].outputs["dataset"]["sha256"]
        for name, policies in _by_policy(files, "policy").items():
            made_from = records[f"train-policy/{name}"].inputs.get("dataset")
            if made_from and made_from["sha256"] == sha256:
                actions[name] = actions_in_data(policies, transitions, info)
            else:
                missing.append(f"What {name} does is not shown, as it was trained on other data.")
    return Contents(folder_name(run.root), records, statistics, documents, _curves(files), actions, missing)


def _places(records: Mapping[str, StageRecord]) -> Iterator[tuple[str, str]]:
    """Stage and role of each file that a page shows something of."""
    for key, record in records.items():
        for role in record.outputs:
            in_policy = key.startswith("train-policy/") and _SEED.fullmatch(role)
            if in_policy or (key, role) == ("fetch-data", "dataset") or _is_document(key, role):
                yield key, role


def _is_document(key: str, role: str) -> bool:
    return any(stage.fullmatch(key) and role == of for stage, of in _DOCUMENTS)


def _by_policy(files: Files, kind: str) -> dict[str, dict[int, Path]]:
    """The files of that kind ("metrics" or "policy") by the policy's name and seed."""
    paths: dict[str, dict[int, Path]] = {}
    for (key, role), path in files.items():
        if (match := _SEED.fullmatch(role)) and match[1] == kind:
            paths.setdefault(key.partition("/")[2], {})[int(match[2])] = path
    return {name: dict(sorted(seeds.items())) for name, seeds in paths.items()}


def _curves(files: Files) -> dict[str, Curve]:
    return {
        name: {seed: read_lines(path, EPOCH) for seed, path in seeds.items()}
        for name, seeds in _by_policy(files, "metrics").items()
    }


def actions_in_data(policies: Mapping[int, Path], transitions: Transitions, info: DatasetInfo) -> Actions:
    """What the seeds of a policy do in at most 1,000 states of the data, evenly spread; ``policies`` are their files.

    InputError or CorruptError where a file is not a policy that can be read.
    """
    rows: NDArray[np.int64] = some_rows(np.arange(len(transitions)))
    observations = transitions.observations[rows].astype(np.float64)
    if info.observation_offset is not None:
        observations += info.observation_offset
    names = column_names(transitions, info).get("action", [f"action[{d}]" for d in range(transitions.act_dim)])
    return Actions(
        names,
        info.action_low.astype(np.float64),
        info.action_high.astype(np.float64),
        transitions.actions[rows].astype(np.float64),
        {seed: read_policy(path)(observations).astype(np.float64) for seed, path in policies.items()},
    )
