"""--log and export-logs on whole trainings: each epoch once, whatever stops them, and the same bytes as without."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes.runs import stop_at
from probes.sinks import Memory, numbers, tensorboard_rows

MODEL = "train-model --config tiny.yaml --threads 1 --max-epochs 3 --patience 9 --seeds 2 --force"
POLICY = "train-policy --config tiny.yaml --threads 1 --name p --seeds 2 --epochs 3 --steps-per-epoch 25"
ABLATE = "ablate --config tiny.yaml --threads 1 --name grid --penalty max-var,none --epochs 2 --steps-per-epoch 25"
CELLS = ("mopo_max-var_lam1_h2/seed-0", "mopo_none_h2/seed-0")
CURVES = {
    MODEL: ("train-model", {"model": "model"}),
    POLICY: ("train-policy/p", {f"seed-{seed}": f"policies/p/seed-{seed}" for seed in (0, 1)}),
    ABLATE: ("ablate/grid", {cell: f"ablations/grid/cells/{cell}" for cell in CELLS}),
}


def published(contents: Any, run: Path) -> dict[str, bytes]:
    """The files that depend on what was computed alone."""
    volatile = ("run.json", "timing.json", ".state", "logs", "table.md", "table.csv")
    return {name: content for name, content in contents(run).items() if not any(part in name for part in volatile)}


@pytest.mark.parametrize("line", CURVES)
def test_a_sink_gets_what_metrics_jsonl_has(line: str, tiny_run: Path, mopo: Any, sinks: list[Memory]) -> None:
    outcome = mopo(f"{line} --log memory --json")
    assert outcome.code == 0 and outcome.err == "" and json.loads(outcome.out)
    stage, members = CURVES[line]
    (sink,) = sinks
    assert (sink.curves.stage, list(sink.curves.members)) == (stage, list(members))
    assert sink.closed and sink.folder == tiny_run / "logs/memory"
    for member, place in members.items():
        assert sink.of(member) == numbers(tiny_run / place / "metrics.jsonl")
    assert "memory" not in (tiny_run / "run.json").read_text()


@pytest.mark.parametrize(("line", "look"), [(MODEL, 1), (POLICY, 1)])
def test_after_a_stop_every_epoch_is_there_once(
    line: str, look: int, tiny_run: Path, mopo: Any, sinks: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(look, patch)
        assert mopo(f"{line} --log memory").code == 143
    assert mopo(f"{line.removesuffix(' --force')} --log memory").code == 0
    first, second = sinks
    for member, place in CURVES[line][1].items():
        all_epochs = numbers(tiny_run / place / "metrics.jsonl")
        before = first.of(member)
        assert 0 < len(before) < len(all_epochs) and before.items() <= all_epochs.items()
        assert second.of(member) == all_epochs


def test_a_longer_training_begins_with_the_epochs_that_were_there(
    tiny_run: Path, mopo: Any, sinks: list[Memory]
) -> None:
    assert mopo(POLICY).code == 0 and sinks == []
    assert mopo(f"{POLICY.replace('--epochs 3', '--epochs 4')} --log memory").code == 0
    assert sinks[0].of("seed-1") == numbers(tiny_run / "policies/p/seed-1/metrics.jsonl")
    assert len(sinks[0].of("seed-1")) == 4


@pytest.mark.parametrize("line", [MODEL, POLICY])
def test_a_failing_sink_changes_no_byte(
    line: str, tiny_run: Path, mopo: Any, contents: Any, sinks: list[Memory]
) -> None:
    assert mopo(line).code == 0
    before = published(contents, tiny_run)
    outcome = mopo(f"{line} --force --log failing,memory,failing".replace("--force --force", "--force"))
    assert outcome.code == 0 and outcome.err.count("Warning: failing gets no more metrics") == 1
    assert len(sinks) == 2 and published(contents, tiny_run) == before


def test_it_is_no_part_of_what_is_up_to_date(tiny_run: Path, mopo: Any, sinks: list[Memory]) -> None:
    outcome = mopo("train-model --config tiny.yaml --threads 1 --log memory")
    assert "train-model is up to date" in outcome.err and sinks == []


@pytest.mark.parametrize("command", ["train-model", "train-policy", "ablate", "run quickstart"])
def test_a_missing_library_is_told_before_anything_is_done(
    command: str, tiny_run: Path, refuses: Any, sinks: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Memory, "library", "no_such_library")
    refuses(f"{command} --log memory", 3, "pip install no_such_library")
    refuses(f"{command} --log tensorbord", 2, "--log must be one of tensorboard, trackio, wandb, mlflow, memory")


def test_export_logs_sends_the_model_and_all_policies(tiny_run: Path, mopo: Any, sinks: list[Memory]) -> None:
    assert mopo(ABLATE).code == 0
    (tiny_run / "variants/other/model").mkdir(parents=True)
    (tiny_run / "variants/other/run.json").write_text("{}")
    (tiny_run / "variants/other/model/metrics.jsonl").write_text('{"epoch": 4, "nll": {"3": [0.5]}}\n')
    outcome = mopo("export-logs runs/tiny --to memory --json")
    assert outcome.code == 0 and outcome.err == ""
    epochs = json.loads(outcome.out)["epochs"]
    policy = "mopo_max-var_lam1_h2"
    curves = dict((CURVES[MODEL], CURVES[ABLATE]))
    curves |= {f"train-policy/{policy}": {"seed-0": f"policies/{policy}/seed-0"}}
    curves |= {"variants/other/train-model": {"model": "variants/other/model"}}
    assert {sink.curves.stage: list(sink.curves.members) for sink in sinks} == {
        stage: list(members) for stage, members in curves.items()
    }
    for sink in sinks:
        assert sink.closed and sink.folder == tiny_run / "logs/memory"
        for member, place in curves[sink.curves.stage].items():
            logged = numbers(tiny_run / place / "metrics.jsonl")
            assert sink.of(member) == logged and epochs[sink.curves.name(member)] == len(logged)
    sinks.clear()
    assert mopo("export-logs runs/tiny --to memory -o elsewhere").out.endswith("in memory\n")
    assert {sink.folder for sink in sinks} == {Path("elsewhere")}
    for folder in ("policies", "ablations", "variants"):
        shutil.rmtree(tiny_run / folder)
    logged = epochs["train-model/model"]
    assert mopo("export-logs runs/tiny --to memory").out == f"1 curve, {logged} epochs in all: in memory\n"


def test_export_logs_refuses_what_it_cannot_send(
    tiny_run: Path, refuses: Any, sinks: list[Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses("export-logs runs/tiny --to csv", 2, "--to must be one of tensorboard, trackio, wandb, mlflow")
    refuses("export-logs runs --to memory", 4, "runs is not a run folder")
    refuses("export-logs runs/tiny --to memory -o tiny.yaml", 4, "The folder tiny.yaml is a file")
    refuses("export-logs runs/tiny --to failing", 4, "train-model: ValueError: the second epoch is too much.")
    monkeypatch.setattr(Memory, "library", "no_such_library")
    refuses("export-logs runs/tiny --to memory", 3, "pip install no_such_library")


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_event_files_have_every_epoch_once_after_a_death(signum: int, tiny_run: Path, child: Any) -> None:
    pytest.importorskip("tensorboard")
    line = "train-policy --config tiny.yaml --threads 1 --name p --epochs 3 --log tensorboard"
    assert child(Path.cwd(), line, fatal=20, signum=signum).code in (-signal.SIGKILL, 143)
    logs = tiny_run / "logs/tensorboard"
    before = tensorboard_rows(logs)["train-policy/p/seed-0"]
    assert child(Path.cwd(), line).code == 0
    (rows,) = tensorboard_rows(logs).values()
    logged = numbers(tiny_run / "policies/p/seed-0/metrics.jsonl")
    expected = {(epoch, tag, float(np.float32(v))) for epoch, values in logged.items() for tag, v in values.items()}
    assert len(rows) == len(expected) and set(rows) == expected and len(logged) == 3
    assert set(before) < expected
