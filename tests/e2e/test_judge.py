"""From logs without a simulator to a verdict: who sees which episodes, what is said, and how a stop changes nothing."""

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from probes.runs import run_in, stop_at, unfinished
from safetensors.numpy import load_file

from mopo_cli.__main__ import main
from mopo_cli.data.held_out import judge_rows
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.evaluation import judgement
from mopo_cli.evaluation.clone import clone_of
from mopo_cli.evaluation.fitted_q import FqeSettings, FqeState, Log, start_fqe
from mopo_cli.report.console import Report
from mopo_cli.report.judgement import show_judgement
from mopo_cli.stages.analysis import evidence
from mopo_cli.stages.analysis import judge as module
from mopo_cli.stages.common import saving

TINY = """\
train-model: {networks: 2, hidden: 16, layers: 1, weight-decay: [1e-5, 1e-5], max-epochs: 2}
select-elites: {n: 1}
train-policy: {h: 2, epochs: 1, steps-per-epoch: 20, rollout-every: 20, rollout-batch: 50, hidden: 16, lam: 1}
"""
LINES = (
    "fetch-data --dataset ./plant.h5 --run run",
    "train-model --run run --config tiny.yaml --threads 1",
    "select-elites --run run --config tiny.yaml",
    "train-policy --run run --config tiny.yaml --threads 1 --name p",
)
JUDGE = "evaluate --run run --policy p --threads 1 --json"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "clone_of", partial(clone_of, steps=100))
    monkeypatch.setattr(module, "FQE", FqeSettings(critics=2, hidden=16, batch_size=16, first_steps=60, steps=90))


def plant(path: Path, change: Callable[[Any, Any], None] = lambda columns, held: None, env: bool = False) -> None:
    """Thirty episodes of twenty steps of x' = 0.9 x + 0.3 a, driven at random; `change` edits columns in place."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(30):
        x = rng.normal(size=2)
        for t in range(20):
            action = rng.uniform(-1, 1, 1)
            following = 0.9 * x + 0.3 * action + 0.05 * rng.normal(size=2)
            rows.append((x, action, -(x @ x), following, False, t == 19))
            x = following
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    columns = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    with h5py.File(path, "w") as file:
        change(columns, np.repeat(np.arange(30), 20))
        for name, values in columns.items():
            file[name] = values.astype(bool if name in ("terminals", "timeouts") else "f4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained policy of the plant. Not to be written to."""
    folder = tmp_path_factory.mktemp("judged")
    plant(folder / "plant.h5")
    return run_in(folder, LINES, TINY)


@pytest.fixture
def trained(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MOPO_HOME", str(tmp_path / "work" / "cache"))
    return tmp_path / "work" / "run"


def test_neither_model_nor_policy_sees_the_judge_s_episodes(made: Path, tmp_path: Path) -> None:
    """The same training where the judge's episodes have quite other rewards; other rewards elsewhere change it."""
    data, _ = read_dataset(next((made / "cache").rglob("dataset.h5")))
    held = judge_rows(data, 0.2)
    assert held.sum() == 6 * 20 and all(len(set(some)) == 1 for some in held.reshape(30, 20))

    def tensors(name: str, rows: Any) -> list[Any]:
        (folder := tmp_path / name).mkdir()

        def change(columns: Any, _: Any) -> None:
            columns["rewards"][rows] *= 50

        plant(folder / "plant.h5", change)
        run_in(folder, LINES, TINY)
        files = ("model/ensemble.safetensors", "policies/p/seed-0/policy.safetensors")
        return [value for file in files for _, value in sorted(load_file(folder / "run" / file).items())]

    alike, other = tensors("alike", held), tensors("other", ~held)
    files = [
        load_file(made / "run" / file)
        for file in ("model/ensemble.safetensors", "policies/p/seed-0/policy.safetensors")
    ]
    expected = [value for file in files for _, value in sorted(file.items())]
    assert all(np.array_equal(one, two) for one, two in zip(expected, alike, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(expected, other, strict=True))


def test_without_an_environment_evaluate_judges(trained: Path, mopo: Any, capfd: Any) -> None:
    outcome = mopo(JUDGE)
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)["ope"]
    assert result == json.loads((trained / "evaluations/p-ope.json").read_text()) | {
        key: result[key] for key in ("stage", "run", "up_to_date", "outputs", "wall_seconds", "origins")
    }
    assert (result["unseen"], result["judge_share"], result["episodes"], result["transitions"]) == (True, 0.2, 6, 120)
    assert result["verdict"] in ("better", "worse", "not shown to be better")
    data, _ = read_dataset(next((trained.parent / "cache").rglob("dataset.h5")))
    held = judge_rows(data, 0.2)
    undiscounted = data.rewards[held].reshape(6, 20).sum(axis=1).mean()
    assert result["floor"]["undiscounted"]["value"] == pytest.approx(undiscounted, rel=1e-5)
    assert {*result["calibration"]} == {"all episodes", "worse third", "better third"}
    others = data.rewards[~held].reshape(24, 20).astype(float) @ 0.99 ** np.arange(20)
    in_the_log = {name: each["return"]["value"] for name, each in result["calibration"].items()}
    thirds = {"worse third": np.sort(others)[:8].mean(), "better third": np.sort(others)[-8:].mean()}
    assert in_the_log == pytest.approx({"all episodes": others.mean()} | thirds, rel=1e-5)
    records = data.rewards[held].reshape(6, 20).astype(float) @ 0.99 ** np.arange(20)
    show_judgement(result, Report("human"))
    shown = " ".join(capfd.readouterr().err.split())
    printed = re.search(r"episodes returned (\S+) \(.*logged behaviour's (\S+), (\S+) is in the log\.", shown)
    assert printed is not None, shown
    parts = undiscounted, result["floor"]["discounted"]["value"], records.mean()
    assert [float(number) for number in printed.groups()] == pytest.approx(parts, rel=0.01)
    rest = result["floor"]["discounted"]["value"] - records.mean()
    assert -(0.99**20) * 200 < rest < 0, "what follows the records, by the critics: costs without end"
    human = mopo(JUDGE.replace(" --json", ""))
    assert human.code == 0 and "evaluate/p/ope is up to date" in human.err
    assert human.out.strip() == result["sentence"]


def test_an_estimator_that_misses_what_the_log_knows_has_no_say(
    trained: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fitted Q says that the policy is far worse, and the model that it is far better: who is struck out decides."""
    original = judgement._estimates

    def estimates(*of: Any) -> dict[str, Any]:
        far = {"fqe": -1e6, "model": 1e6}
        shifted = {name: dict.fromkeys(("value", "low", "high"), value) for name, value in far.items()}
        return {name: each | shifted.get(name, {}) for name, each in original(*of).items()}

    monkeypatch.setattr(judgement, "_estimates", estimates)
    check = judgement._calibrated
    for struck, verdict in (("fqe", "better"), ("model", "worse"), ("", "not shown to be better")):

        def calibrated(*of: Any, struck: str = struck) -> dict[str, Any]:
            checks = check(*of)
            return checks | {name: checks[name] | {"misses_by": 1e9 * (name == struck)} for name in ("fqe", "model")}

        monkeypatch.setattr(judgement, "_calibrated", calibrated)
        result = json.loads(mopo(f"{JUDGE} --force").out)["ope"]
        assert (result["verdict"], result["struck_out"]) == (verdict, [struck] if struck else [])
        assert result["sentence"].lower().startswith(verdict)


def test_judging_that_is_stopped_and_killed_ends_with_the_same_bytes(
    trained: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, "whole")
    assert mopo(JUDGE.replace("--run run", "--run whole")).code == 0
    monkeypatch.setattr(saving, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(saving, "SAVE_SHARE", float("inf"))
    for look in (0, 0, 1):  # in the model, at its end, and among the critics
        with monkeypatch.context() as patch:
            stop_at(look, patch)
            assert mopo(JUDGE).code == 143
    taken = []
    for name in ("advance", "advance_fqe"):
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *of, name=name, take=original: (taken.append(name), take(*of)))
    assert "the judge's training goes on" in mopo(JUDGE.replace(" --json", "")).err
    assert taken == ["advance_fqe"], "what was done is not done again"
    name = "evaluations/p-ope.json"
    assert (trained / name).read_bytes() == Path("whole", name).read_bytes() and unfinished(trained) == []


def test_without_an_environment_ablate_ranks(trained: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "FQE", FqeSettings(critics=2, hidden=16, batch_size=16, first_steps=10, steps=20))
    ablate = "ablate --run run --config tiny.yaml --threads 1 --lam 1 --h 2 --seeds 1 --json"
    logs: list[Log] = []

    def noted(log: Log, *rest: Any) -> FqeState:
        logs.append(log)
        return start_fqe(log, *rest)

    monkeypatch.setattr(evidence, "start_fqe", noted)
    ranking = json.loads(mopo(ablate).out)["ranking"]
    data, _ = read_dataset(next((trained.parent / "cache").rglob("dataset.h5")))
    kept = data.rewards[judge_rows(data, 0.2)]
    assert np.array_equal(logs[0].reward.numpy(), kept), "critics of the judge's episodes alone"
    values = [[cell["values"][name] for name in ("joint", "fqe-low", "model-fqe")] for cell in ranking["cells"]]
    assert [row[0] for row in values] in ([1, 2], [1.5, 1.5]) and sum(values[0][1:]) >= sum(values[1][1:])
    assert ranking["criteria"]["fqe"]["spearman"] is None
    assert {cell["cell"] for cell in ranking["cells"]} == {"mopo_max-var_lam1_h2", "mopo_none_h2"}
    assert "ranking" not in json.loads(mopo(f"{ablate} --method bc").out), "there is no model to act in"
    assert json.loads(mopo(f"{ablate} --rank offline").out)["ranking"]["rank"] == "offline"


def test_where_the_policy_has_seen_everything_it_is_said(trained: Path, mopo: Any) -> None:
    for stage in LINES[1:]:
        extra = "--judge-share 0" if "train-model" in stage else ""
        assert mopo(f"{stage} {extra}").code == 0
    outcome = mopo(JUDGE.replace(" --json", ""))
    assert outcome.code == 0 and "The policy has seen the judge's episodes" in outcome.err
    result = json.loads((trained / "evaluations/p-ope.json").read_text())
    assert (result["unseen"], result["episodes"]) == (False, 15)


def test_too_few_episodes_are_not_judged(trained: Path, mopo: Any) -> None:
    """A single record: evaluate says why there is no number, and --ope refuses."""
    plant(Path("long.h5"), lambda columns, _: columns.update({name: rows[:20] for name, rows in columns.items()}))
    for line in LINES:
        assert mopo(line.replace("plant.h5", "long.h5").replace("--run run", "--run long")).code == 0
    line = "evaluate --run long --threads 1"
    alone = mopo(line)
    said = "long.h5 names no environment to play the policy in and has too few episodes to judge it by (1 of 4); "
    assert alone.code == 0 and alone.out.startswith(said)
    refused = mopo(f"{line} --ope")
    assert refused.code == 4 and "long.h5 has 1 episode, a judge needs 4." in refused.err


def test_shares_that_do_not_fit_are_refused(trained: Path, mopo: Any) -> None:
    other = mopo(f"{LINES[3].replace('--name p', '--name q')} --judge-share 0.5")
    assert other.code == 4 and "The model was trained with --judge-share 0.2, not 0.5." in other.err
    few = mopo(f"{LINES[1]} --judge-share 0.001")
    assert few.code == 3 and "--judge-share 0.001 of 30 episodes leaves none on one side." in few.err
    assert "--judge-share 0.2, or 0 for no judge" in few.err
    assert mopo(f"{LINES[3].replace('--name p', '--name q')} --method bc --judge-share 0.5").code == 0
    assert json.loads(mopo(JUDGE.replace("-policy p", "-policy q")).out)["ope"]["episodes"] == 15


@pytest.mark.parametrize("rule", [None, "step >= 20"])
def test_a_model_that_does_not_know_where_the_task_ends_has_no_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Any, rule: str | None
) -> None:
    """It would let the task go on for ever, and its check on the log, whose records end, cannot show it."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)

    def ended(columns: Any, held: Any) -> None:
        columns["terminals"], columns["timeouts"] = columns["timeouts"], columns["terminals"]

    plant(Path("plant.h5"), ended)
    for line in LINES:
        arguments = line.split() + (["--termination", rule] if rule and line.startswith("fetch-data") else [])
        assert main(arguments) == 0
    outcome = mopo(JUDGE.replace("--json", ""))
    result = json.loads(Path("run/evaluations/p-ope.json").read_text())
    assert result["knows_ends"] == (rule is not None)
    assert ("model" in result["struck_out"]) >= (rule is None)
    assert ("its rule does not end the task where the log does" in " ".join(outcome.err.split())) == (rule is None)


def test_seeds_that_diverged_are_named_beside_the_others(trained: Path, mopo: Any) -> None:
    """As training leaves it where one of two seeds diverges: the record names it, and there is no file of it."""
    run = json.loads((trained / "run.json").read_text())
    run["stages"]["train-policy/p"]["extra"]["diverged"] = ["seed 1"]
    (trained / "run.json").write_text(json.dumps(run))
    outcome = mopo(JUDGE)
    assert outcome.code == 0 and json.loads(outcome.out)["ope"]["diverged_seeds"] == ["seed 1"]
    assert "as they diverged in training: seed 1" in " ".join(outcome.err.split())


def test_without_a_discount_records_must_end_with_the_task(trained: Path, mopo: Any, refuses: Any) -> None:
    line = "train-policy --run run --method iql --epochs 1 --steps-per-epoch 20 --threads 1"
    assert mopo(f"{line} --gamma 1 --name undiscounted").code == 0
    refuses(JUDGE.replace("--policy p", "--policy undiscounted"), 3, "gamma 1 gives no finite value to what follows")
