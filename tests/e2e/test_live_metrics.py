"""Metrics while training runs: lines appear epoch by epoch, and what is published stays until the stage is done."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from probes.runs import unfinished

from mopo_cli.stages.common import policy_stack
from mopo_cli.stages.runner import Stage

MODEL = "train-model --config tiny.yaml --threads 1 --max-epochs 4 --patience 9 --seeds 2 --force"
POLICY = "train-policy --config tiny.yaml --threads 1 --name p --seeds 2 --epochs 4"
ABLATE = "ablate --config tiny.yaml --threads 1 --name grid --penalty max-var,none --epochs 4"
LINES = {
    MODEL: {"train-model/live/model": "model"},
    POLICY: {f"train-policy/p/seeds-0-1/live/seed-{seed}": f"policies/p/seed-{seed}" for seed in (0, 1)},
    ABLATE: {
        f"ablate/grid/live/{cell}/seed-0": f"ablations/grid/cells/{cell}/seed-0"
        for cell in ("mopo_max-var_lam1_h2", "mopo_none_h2")
    },
}


@pytest.mark.parametrize("line", LINES)
def test_they_grow_line_by_line(line: str, tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[bytes]] = []
    should_stop = Stage.should_stop

    def look(stage: Stage) -> bool:
        seen.append([(tiny_run / ".state" / place / "metrics.jsonl").read_bytes() for place in LINES[line]])
        return should_stop(stage)

    monkeypatch.setattr(Stage, "should_stop", look)
    outcome = mopo(line)
    assert outcome.code == 0
    assert unfinished(tiny_run) == []
    for member, place in enumerate(LINES[line].values()):
        final = (tiny_run / place / "metrics.jsonl").read_bytes()
        first = 0 if line == MODEL else 1
        assert [json.loads(text)["epoch"] for text in final.splitlines()] == list(range(first, first + 4))
        grown = [b"".join(final.splitlines(keepends=True)[:epochs]) for epochs in range(5)]
        # train-policy looks before an epoch is logged, train-model after.
        assert list(dict.fromkeys(contents[member] for contents in seen)) in (grown[:4], grown[1:])
    shown = next(text for text in outcome.err.splitlines() if "tail -F" in text)
    pattern = shown.partition("tail -F ")[2]
    assert all(Path(f"runs/tiny/.state/{place}/metrics.jsonl").match(pattern) for place in LINES[line])


def test_what_is_published_stays_while_it_is_trained_again(
    tiny_run: Path, mopo: Any, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mopo(POLICY).code == 0
    before = {name: content for name, content in contents(tiny_run).items() if ".state" not in name}
    stop = iter(range(1000))

    def interrupt(stage: Stage) -> bool:
        now = {name: content for name, content in contents(tiny_run).items() if ".state" not in name}
        assert now == before
        stage.signal = signal.SIGTERM if next(stop) == 8 else 0
        return bool(stage.signal)

    longer = POLICY.replace("--epochs 4", "--epochs 9")
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "should_stop", interrupt)
        assert mopo(longer).code == 143
    live = tiny_run / ".state/train-policy/p/seeds-0-1/live/seed-0/metrics.jsonl"
    assert live.read_bytes().count(b"\n") == 8, "it stays with the checkpoint"
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "should_stop", interrupt)
        assert mopo(f"{longer} --force").code == 0
    assert (tiny_run / "policies/p/seed-0/metrics.jsonl").read_bytes().count(b"\n") == 9


def test_metrics_of_a_member_that_diverged_are_not_published(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_epoch = policy_stack._record_epoch

    def second_is_lost(trained: Any, means: Any) -> Any:
        epoch = record_epoch(trained, means)
        trained.diverged[1] = epoch.lost[1] = epoch.number > 1
        return epoch

    monkeypatch.setattr(policy_stack, "_record_epoch", second_is_lost)
    outcome = mopo(POLICY)
    assert outcome.code == 7 and "seed 1" in outcome.err
    assert (tiny_run / "policies/p/seed-0/metrics.jsonl").read_bytes().count(b"\n") == 4
    assert not (tiny_run / "policies/p/seed-1").exists() and unfinished(tiny_run) == []
