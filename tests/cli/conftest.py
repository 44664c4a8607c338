"""A working directory of its own, and stages that only note how they were called."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mopo_cli.__main__ import main
from mopo_cli.report import Report
from mopo_cli.stages.common.options import Options
from mopo_cli.store.lineage import StageRecord, describe_files, record_stage
from mopo_cli.store.run import RunFolder, remember_run

STAGES = ("fetch-data", "train-model", "select-elites", "rollout", "train-policy", "evaluate", "ablate")
NAMED = {"rollout": "file_name", "train-policy": "policy_name", "ablate": "table_name"}
EVALUATION = {
    "environment": "Toy-v0",
    "dataset_return_mean": 10.0,
    "dataset_return_max": 40.0,
    "return_mean": 900.0,
    "return_per_seed": {"0": 880.0, "1": 920.0},
}


@dataclass
class Called:
    """One call of a stage; `cells` and `parts` are those of ablate."""

    stage: str
    run: Path
    settings: Any
    options: Options
    cells: list[Any] = field(default_factory=list)
    parts: list[Path] = field(default_factory=list)


@dataclass
class Shell:
    """Runs ``mopo`` in-process; keeps the calls of the stages."""

    capsys: pytest.CaptureFixture[str]
    calls: list[Called] = field(default_factory=list)
    out: str = ""
    err: str = ""

    def __call__(self, line: str) -> int:
        code = main(line.split())
        self.out, self.err = self.capsys.readouterr()
        return code

    @property
    def stages(self) -> list[str]:
        return [call.stage for call in self.calls]


def stub(shell: Shell, stage: str) -> Callable[..., dict[str, Any]]:
    def run_stage(
        run: RunFolder, settings: Any, options: Options, report: Report, hand_out: None = None
    ) -> dict[str, Any]:
        shell.calls.append(Called(stage, run.root, settings, options))
        report.say(f"{stage} at work")
        report.hint(f"after {stage}")
        output = run.root / f"{stage}.out"
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(stage)
        name = f"/{getattr(settings, NAMED[stage])()}" if stage in NAMED else ""
        record = StageRecord(
            settings=settings.model_dump(mode="json"),
            inputs={},
            outputs=describe_files(run, {"dataset": output}),
            versions={"mopo": "0"},
            wall_seconds=1.0,
            finished=f"2026-01-01T00:00:{len(shell.calls):02}+00:00",
            extra={"origins": options.origins},
        )
        record_stage(run, stage + name, record)
        remember_run(run)
        return {"stage": stage, "run": str(run.root), **(EVALUATION if stage == "evaluate" else {})}

    def run_ablate(
        run: RunFolder,
        settings: Any,
        cells: Any,
        options: Options,
        report: Report,
        parts: Any = (),
        hand_out: None = None,
    ) -> dict[str, Any]:
        result = run_stage(run, settings, options, report)
        shell.calls[-1].cells, shell.calls[-1].parts = list(cells), list(parts)
        return result

    return run_ablate if stage == "ablate" else run_stage


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    for name in ("MOPO_RUN", "MOPO_DEBUG", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    shell = Shell(capsys)
    for stage in STAGES:
        name = stage.replace("-", "_")
        module = ModuleType(f"mopo_cli.stages.{name}")
        setattr(module, f"run_{name}", stub(shell, stage))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    # What imports the stages by name does so anew, for this test alone.
    model = "mopo_cli.stages.jobs.model"
    monkeypatch.setitem(sys.modules, model, ModuleType(model))  # and is as before afterwards
    del sys.modules[model]
    import_module(model)
    return shell


@pytest.fixture
def modelled(shell: Shell) -> Shell:
    """The shell, with a run that has a model and elites."""
    assert shell("train-model --dataset hopper-mixed --run runs/hopper-medium-replay") == 0
    assert shell("select-elites") == 0
    shell.calls.clear()
    return shell


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
