"""A study handed out as jobs: wherever and in whatever pieces it is trained, the files are those of one local run."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from probes.runs import stop_at

from mopo_cli.cli.elsewhere import tell_plan
from mopo_cli.placing.board import Board
from mopo_cli.report import Report
from mopo_cli.stages.jobs import hand_out as handing
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder

GRID = "--config tiny.yaml --threads 1 --penalty max-var,none --lam 2 --h 1,2 --name grid"
ABLATE = f"ablate {GRID}"
TWO = ABLATE.replace("--h 1,2", "--h 1")
"""As `ABLATE` with two cells instead of four."""
TRAIN = "train-policy --config tiny.yaml --threads 1 --lam 3 --seeds 3 --name three"


def lines(plan: str = "plan.txt") -> list[str]:
    """The commands of a plan, without the name of the program."""
    commands = Path(plan).read_text().splitlines()
    assert all(command.startswith("mopo job ") for command in commands)
    return [command.removeprefix("mopo ") for command in commands]


def carry_out(mopo: Any, commands: Sequence[str]) -> None:
    for command in commands:
        assert mopo(command).code == 0, command


def files(folder: Path) -> dict[str, bytes]:
    """All that is published, but for times and what is drawn from them."""
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    timed = ("timing.json", "table.md", "table.csv", "table.png")
    return {name: path.read_bytes() for name, path in names.items() if not name.endswith(timed)}


@pytest.fixture
def other_run(tiny_run: Path) -> Path:
    """The same data and model, to do the same in as one."""
    shutil.copytree(tiny_run, "runs/other")
    return Path("runs/other")


class Here:
    """An engine that carries out jobs in this process, one after the other, but for those that it is to refuse."""

    jobs_go_on = False

    def __init__(self, mopo: Any, refuse: Callable[[Path], bool] = lambda file: False) -> None:
        self.mopo, self.refuse = mopo, refuse
        self.placed: list[str] = []
        self.stages: list[str] = []
        self.shown: list[str] = []

    def place(self, files: Sequence[Path], board: Board, should_stop: Callable[[], bool]) -> None:
        for file in files:
            self.placed.append(file.stem)
            self.shown.append(board.lines[file.stem].what)
            self.stages.append(json.loads(file.read_text())["stage"])
            board.change(file.stem, "running", "here")
            code = 1 if self.refuse(file) else self.mopo(f"job {file}").code
            board.change(file.stem, *(("done",) if code == 0 else ("failed",)), why="" if code == 0 else "no luck")


def on(monkeypatch: pytest.MonkeyPatch, engine: Any) -> Any:
    monkeypatch.setattr("mopo_cli.cli.elsewhere._engine", lambda *_: engine)
    return engine


def test_a_plan_carried_out_and_collected_is_the_ablation(tiny_run: Path, other_run: Path, mopo: Any) -> None:
    planned = mopo(f"{ABLATE} --run {tiny_run} --plan plan.txt --json")
    assert json.loads(planned.out) == {"plan": "plan.txt", "jobs": 4}
    assert not (tiny_run / "ablations").exists()
    carry_out(mopo, lines()[::-1])
    assert mopo(f"{ABLATE} --run {tiny_run} --collect").code == 0
    assert mopo(f"{ABLATE} --run {other_run}").code == 0
    assert files(tiny_run / "ablations") == files(other_run / "ablations")
    assert not (tiny_run / "jobs").exists()
    assert "is up to date" in mopo(f"{ABLATE} --run {tiny_run}").err


def test_a_job_runs_in_any_folder_and_the_current_run_stays(tiny_run: Path, mopo: Any, tmp_path: Path) -> None:
    assert mopo(f"{ABLATE} --run {tiny_run} --plan plan.txt --cells-per-job 3 --seeds 2").code == 0
    stacks = [len(json.loads(Path(line.split()[1]).read_text())["settings"]) for line in lines()]
    assert sorted(stacks) == [1, 3]
    current = Path("runs/current").read_text()
    elsewhere = tmp_path / "empty"
    assert mopo(f"{lines()[0]} --run {elsewhere}").code == 0
    assert len(list(elsewhere.glob("ablations/job/cells/*/seed-0/policy.safetensors"))) == stacks[0]
    assert Path("runs/current").read_text() == current
    again = mopo(f"{lines()[0]} --run {elsewhere} --json")
    assert again.code == 0 and json.loads(again.out)["up_to_date"]


def test_a_job_tells_the_memory_that_it_takes(tiny_run: Path, mopo: Any) -> None:
    """Most of it are pools: per seed, so many rollouts of h steps, kept for so many epochs, in float32.

    A row has observation, action, reward, next observation, terminal and the uncertainty, of an inverted pendulum.
    """
    memory = []
    for batch, seeds in ((10_000, 1), (60_000, 1), (60_000, 2)):
        more = f"--rollout-batch {batch} --pool-epochs 4 --seeds {seeds} --cells-per-job 1"
        assert mopo(f"{TWO.replace('max-var,none', 'max-var')} --run {tiny_run} --plan plan.txt {more}").code == 0
        memory.append(json.loads(Path(lines()[0].split()[1]).read_text())["memory"])
    row = 4 * (4 + 1 + 1 + 4 + 1 + 1)
    pool = 50_000 * 1 * 4 * row
    assert memory[0] > 2e8, "Python and torch"
    assert pool <= memory[1] - memory[0] <= 2 * pool + 5e6
    assert 60_000 * 4 * row <= memory[2] - memory[1] <= 2 * 60_000 * 4 * row
    assert mopo(f"{TWO} --run {tiny_run} --plan plan.txt --gpus-per-job 1").code == 0
    assert json.loads(Path(lines()[0].split()[1]).read_text())["memory"] == 0


@pytest.mark.parametrize(("asked", "given"), [("cuda:1", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_a_job_counts_the_gpus_that_it_is_given(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch, asked: str, given: str
) -> None:
    devices = []

    def refuse(file: Path) -> bool:
        devices.append(json.loads(file.read_text())["execution"]["device"])
        return True

    on(monkeypatch, Here(mopo, refuse))
    assert mopo(f"{TWO} --run {tiny_run} --on local --cells-per-job 2 --device {asked}").code == 7
    assert devices == [given]
    assert mopo(f"{TWO} --run {tiny_run} --plan plan.txt --cells-per-job 2 --device {asked}").code == 0
    assert json.loads(Path(lines()[0].split()[1]).read_text())["execution"]["device"] == asked


def test_a_part_is_collected_with_a_word_on_the_rest_and_only_that_is_planned_again(tiny_run: Path, mopo: Any) -> None:
    nothing = mopo(f"{ABLATE} --run {tiny_run} --collect")
    assert nothing.code == 4 and "None of the jobs has finished yet" in nothing.err
    mopo(f"{ABLATE} --run {tiny_run} --plan plan.txt")
    carry_out(mopo, lines()[:1])
    assert mopo(f"{ABLATE} --run {tiny_run} --collect").code == 0
    table = json.loads((tiny_run / "ablations/grid/table.json").read_text())
    assert [cell.get("failed", "") for cell in table["cells"]].count("not trained yet") == 3
    mopo(f"{ABLATE} --run {tiny_run} --plan again.txt")
    assert set(lines("again.txt")) == set(lines()[1:])


def test_an_interrupted_job_goes_on_to_the_same_bytes(
    tiny_run: Path, other_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mopo(f"{ABLATE} --run {tiny_run} --plan plan.txt --epochs 6 --steps-per-epoch 25")
    with monkeypatch.context() as patch:
        stop_at(3, patch)
        assert mopo(lines()[0]).code == 128 + signal.SIGTERM
    assert "training goes on at gradient step" in (outcome := mopo(lines()[0])).err and outcome.code == 0
    carry_out(mopo, lines()[1:])
    for run, how in ((tiny_run, "--collect"), (other_run, "")):
        assert mopo(f"{ABLATE} --run {run} --epochs 6 --steps-per-epoch 25 {how}").code == 0
    assert files(tiny_run / "ablations") == files(other_run / "ablations")


def test_seeds_of_a_policy_by_jobs_are_those_of_one_training(
    tiny_run: Path, other_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = on(monkeypatch, Here(mopo))
    assert mopo(f"{TRAIN} --run {tiny_run} --on local --cpus-per-job 2").code == 0
    assert len(engine.placed) == 2
    assert mopo(f"{TRAIN} --run {other_run}").code == 0
    assert files(tiny_run / "policies/three") == files(other_run / "policies/three")
    here, there = (read_lineage(RunFolder(run))["train-policy/three"] for run in (tiny_run, other_run))
    assert here.settings == there.settings and here.inputs == there.inputs
    assert {role: file["sha256"] for role, file in here.outputs.items()} == {
        role: file["sha256"] for role, file in there.outputs.items()
    }
    for name in ("returns", "model_seeds", "diverged"):
        assert here.extra[name] == there.extra[name]
    assert mopo(f"evaluate --config tiny.yaml --run {tiny_run} --policy three").code == 0


def test_what_fails_is_marked_and_tried_again_by_the_next_start(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def has_penalty(file: Path) -> bool:
        return json.loads(file.read_text())["settings"][0]["penalty"] == "max-var"

    engine = on(monkeypatch, Here(mopo, has_penalty))
    outcome = mopo(f"{TWO} --run {tiny_run} --on local")
    assert outcome.code == 7 and "A cell could not be trained; mopo_max-var_lam2_h1: no luck" in outcome.err
    table = json.loads((tiny_run / "ablations/grid/table.json").read_text())
    assert [bool(cell["returns"]) for cell in table["cells"]] == [False, True]
    engine.refuse = lambda file: False
    engine.placed.clear()
    assert mopo(f"{TWO} --run {tiny_run} --on local").code == 0
    assert len(engine.placed) == 1


def test_force_trains_all_anew(tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = on(monkeypatch, Here(mopo))
    for more, placed in (("", 2), ("", 0), ("--force", 2)):
        engine.placed.clear()
        assert mopo(f"{TWO} --run {tiny_run} --on local {more}").code == 0
        assert len(engine.placed) == placed


def test_a_table_has_its_models_trained_by_jobs_before_the_cells_that_need_them(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets = "generate:InvertedPendulum-v5:random,generate:Pendulum-v1:random"
    command = f"ablate --table mopo-3 --datasets {sets} --only MOPO,MBPO --config tiny.yaml --threads 1 --seeds 1"
    engine = on(monkeypatch, Here(mopo))
    assert mopo(f"{command} --run papers --on local").code == 0
    runs = [f"generate-{name}-random" for name in ("InvertedPendulum-v5", "Pendulum-v1")]
    jobs = ("model", "mopo_lam1_h2 (seed 0)", "mbpo_h2 (seed 0)")
    assert sorted(engine.shown) == sorted(f"{job} of {run}" for job in jobs for run in runs)
    assert engine.stages == ["train-model"] * 2 + ["train-policy"] * 4
    assert mopo(f"{command} --run alone").code == 0
    mine, theirs = (json.loads(Path(root, "mopo-3.json").read_text())["lines"] for root in ("papers", "alone"))
    assert mine == theirs and all(line["last"] for line in mine if line["method"])
    for model in Path("alone").glob("*/model/ensemble.safetensors"):
        assert model.read_bytes() == Path("papers", *model.parts[1:]).read_bytes()


def edited(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def test_a_job_that_cannot_be_carried_out_says_why(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    mopo(f"{ABLATE} --run {tiny_run} --plan plan.txt")
    file = Path(lines()[0].split()[1])
    refuses("job nowhere.json", 4, "nowhere.json")
    document = file.read_text()
    edited(file, mopo="9.9.9")
    refuses(lines()[0], 4, "was made by mopo 9.9.9, and this is mopo")
    file.write_text("{}")
    refuses(lines()[0], 5, "is damaged or was edited")
    file.write_text(document[:-9])
    refuses(lines()[0], 5, "is not valid JSON")
    file.write_text(document)
    content = json.loads(document)
    content["inputs"]["model"]["sha256"] = "0" * 64
    file.write_text(json.dumps(content))
    refuses(lines()[0], 4, "is not the one that the job was made for")
    content["inputs"]["model"]["path"] = "/nowhere/model.safetensors"
    file.write_text(json.dumps(content))
    refuses(lines()[0], 4, "which does not exist on this machine")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--on local --plan plan.txt", "Use either --on or --plan."),
        ("--plan plan.txt --collect", "Use either --plan or --collect."),
        ("--plan plan.txt --log tensorboard", "--log cannot be used with --plan."),
        ("--cpus-per-job 2", "--cpus-per-job needs --on ENGINE or --plan FILE."),
        ("--on local --cpus-per-job 0", "--cpus-per-job must be more than 0"),
        ("--on local --gpus-per-job nan", "--gpus-per-job must be more than 0 and finite, not nan"),
        ("--plan plan.txt --gpus-per-job inf", "--gpus-per-job must be more than 0 and finite, not inf"),
        ("--on local --slurm partition=gpu", "--slurm needs --on slurm."),
        ("--on slurm --slurm gpu", "--slurm takes KEY=VALUE, not 'gpu'."),
        ("--on kubernetes", "--on must be one of local, slurm, ray, ray://HOST:PORT, not 'kubernetes'."),
    ],
)
def test_options_that_exclude_each_other(tiny_run: Path, refuses: Any, flags: str, said: str) -> None:
    refuses(f"{ABLATE} {flags}", 2, said)
    refuses(f"{TRAIN} {flags}", 2, said)


def test_a_signal_while_others_train_stops_and_keeps_what_is_finished(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(Here):
        def place(self, files: Sequence[Path], board: Board, should_stop: Callable[[], bool]) -> None:
            super().place(files[:1], board, should_stop)
            signal.raise_signal(signal.SIGTERM)
            assert should_stop()

    engine = on(monkeypatch, Stopping(mopo))
    outcome = mopo(f"{ABLATE} --run {tiny_run} --on local")
    assert outcome.code == 128 + signal.SIGTERM and "Traceback" not in outcome.err
    on(monkeypatch, engine := Here(mopo))
    assert mopo(f"{ABLATE} --run {tiny_run} --on local").code == 0
    assert len(engine.placed) == 3
    assert handing.PLANNED not in (tiny_run / "ablations/grid/table.json").read_text()


def test_seeds_of_a_cell_may_be_jobs_of_their_own(tiny_run: Path, other_run: Path, mopo: Any) -> None:
    study = f"{TWO} --seeds 3"
    assert json.loads(mopo(f"{study} --run {tiny_run} --plan plan.txt --json").out)["jobs"] == 6
    assert json.loads(mopo(f"{study} --run {tiny_run} --plan two.txt --cpus-per-job 2 --json").out)["jobs"] == 4
    carry_out(mopo, lines())
    assert mopo(f"{study} --run {tiny_run} --collect").code == 0
    assert mopo(f"{study} --run {other_run}").code == 0
    assert files(tiny_run / "ablations") == files(other_run / "ablations")


@pytest.mark.parametrize("command", [TWO, TRAIN])
def test_a_job_that_ends_without_results_is_not_handed_out_for_ever(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    class Idle(Here):
        def place(self, files: Sequence[Path], board: Board, should_stop: Callable[[], bool]) -> None:
            assert not self.placed, "a second time"
            self.placed += [file.stem for file in files]
            for file in files:
                board.change(file.stem, "done")

    on(monkeypatch, Idle(mopo))
    outcome = mopo(f"{command} --run {tiny_run} --on local")
    assert outcome.code == 7 and "its job ended, but its results are missing" in outcome.err


def test_a_damaged_policy_of_a_job_is_no_seed_of_the_policy(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mopo(f"{TRAIN} --run {tiny_run} --plan plan.txt")
    carry_out(mopo, lines())
    damaged = next(tiny_run.glob("jobs/*/ablations/job/cells/*/seed-1/policy.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert mopo(f"{TRAIN} --run {tiny_run} --collect").code == 0
    assert {path.name for path in (tiny_run / "policies/three").iterdir()} == {"seed-0", "seed-2"}


def test_the_command_that_carries_out_a_plan_can_have_spaces_in_its_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a plan").mkdir()
    files = [Path("my logs/one.json"), Path("it's/two.json")]
    tell_plan(Report(), handing.HandOut(plan=Path("a plan/jobs.txt"), jobs={file: ("", []) for file in files}))
    command = capfd.readouterr().err.split("Next: ")[1].split(", then")[0].replace("\n", " ")
    Path("mopo").write_text('#!/bin/sh\nprintf "%s %s\\n" "$1" "$2" >> done\n')
    Path("mopo").chmod(0o755)
    subprocess.run(command, shell=True, check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert sorted(Path("done").read_text().splitlines()) == sorted(f"job {file}" for file in files)
