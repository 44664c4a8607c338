"""--on local and --on slurm: what is trained elsewhere is the same, goes on, and is collected."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from probes.forks import forked_mopo

from mopo_cli.errors import InputError, SettingsError, Stopped
from mopo_cli.placing import by_submitit, slurm, submitted
from mopo_cli.placing.board import Board
from mopo_cli.placing.by_submitit import Submitit
from mopo_cli.placing.engine import Resources, epochs, job_folder
from mopo_cli.placing.queues import Local, slots
from mopo_cli.placing.resources import usual_resources
from mopo_cli.placing.slurm import Slurm, sbatch_parameters
from mopo_cli.placing.submitted import Work, last_saved, read_record, read_state, record_file
from mopo_cli.report import Report
from mopo_cli.store import packages
from mopo_cli.store.atomic import discard_leftovers, read_json, write_json

SAME = ("policy.safetensors", "metrics.jsonl", "cell.json", "table.json")
COMMON = "--config tiny.yaml --lam 1 --h 1 --seeds 1 --products mkl"


@pytest.fixture
def batches_kept(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[Path]]:
    """Gives the folders of all submissions of a run, none of which is removed."""
    monkeypatch.setattr(by_submitit, "_tidy", lambda jobs: None)
    return lambda run: sorted((run / "jobs/.submitit").iterdir())


def results(run: Path) -> dict[str, bytes]:
    paths = (run / "ablations").rglob("*")
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if path.name in SAME}


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come about")


def test_a_study_elsewhere_is_the_same_and_a_failed_job_does_not_stop_the_other(mopo: Any, tiny_run: Path) -> None:
    shutil.copytree(tiny_run, "runs/here")
    study = f"ablate {COMMON} --penalty none,max-var"
    assert mopo(f"{study} --run {tiny_run} --plan plan").code == 0
    first = Path(Path("plan").read_text().split()[2])
    checkpoint = job_folder(first) / ".state/ablate/job/checkpoint.safetensors"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"damaged")

    outcome = mopo(f"{study} --run {tiny_run} --on local")
    assert outcome.code == 7
    cells = {cell["cell"]: cell for cell in read_json(next(tiny_run.glob("ablations/*/table.json")))["cells"]}
    assert [name for name, cell in cells.items() if "failed" in cell] == ["mopo_none_h1"]
    assert str(checkpoint) in cells["mopo_none_h1"]["failed"]
    assert "waiting  mopo_none_h1 (seed 0)" not in outcome.err, "a damaged file stays damaged: no second attempt"
    assert f"failed   mopo_none_h1 (seed 0) on {os.uname().nodename}: {checkpoint}" in outcome.err

    assert len(list((tiny_run / "jobs/.submitit").iterdir())) == 2, "what a failed job wrote is kept"

    shutil.rmtree(job_folder(first))
    trained = {path: path.stat().st_mtime_ns for path in tiny_run.glob("ablations/*/cells/*/seed-0/policy.safetensors")}
    assert len(trained) == 1
    outcome = mopo(f"{study} --run {tiny_run} --on local")
    assert outcome.code == 0, outcome.err
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert "mopo_max-var_lam1_h1 (seed 0)" not in outcome.err, "finished jobs are not handed out"
    assert not list(tiny_run.glob("jobs/**/submitted.json"))
    assert not (tiny_run / "jobs/.submitit").exists()

    assert mopo(f"{study} --run runs/here --threads 1").code == 0
    assert len(results(tiny_run)) == 2 * 3 + 1
    assert results(tiny_run) == results(Path("runs/here"))


def test_jobs_outlive_the_driver_and_go_on_after_pre_emption(mopo: Any, tiny_run: Path, batches_kept: Any) -> None:
    shutil.copytree(tiny_run, "runs/here")
    study = f"ablate {COMMON} --penalty none,max-var --epochs 20 --eval-every 0"
    line = f"{study} --run {tiny_run} --on local --cpus-per-job 1"
    driver = forked_mopo(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def at_work() -> list[Path]:
        return [file for file in tiny_run.glob("jobs/*.json") if (epochs(job_folder(file)) or (0, None))[0] >= 2]

    one = wait_for(at_work)[0]
    driver.kill()
    driver.communicate(timeout=1)  # the jobs do not hold what it wrote to
    record = read_record(one)
    assert record is not None
    [batch] = [path for path in batches_kept(tiny_run) if path.name == record["batch"]]
    before = read_state(batch, one)
    assert before is not None and before["state"] == "running"
    os.kill(before["pid"], signal.SIGUSR2)
    after = wait_for(lambda: (state := read_state(batch, one)) and state["pid"] != before["pid"] and state)
    assert after["state"] in ("running", "ended")

    outcome = mopo(line)
    assert outcome.code == 0, outcome.err
    assert len(batches_kept(tiny_run)) == 2, "no job was submitted twice"
    rows = [text.split()[0] for text in (batch / f"{one.stem}.err").read_text().splitlines() if "/20 " in text]
    assert rows[-1] == "20/20" and int(rows[0].split("/")[0]) > 2, "the second process went on, it did not begin again"
    assert not record_file(one).exists()

    assert mopo(f"{study} --run runs/here --threads 1").code == 0
    assert results(tiny_run) == results(Path("runs/here"))


class Scripted:
    """A queue in which every submission ends at once: with the next exit code, after a checkpoint where it says so."""

    poll_seconds = 0.0
    why_waiting = ""

    def __init__(self, ends: dict[str, list[tuple[int, bool]]], room: int = 9, largest: int = 9) -> None:
        self.ends, self.places, self.largest = ends, room, largest
        self.submissions: list[list[str]] = []

    def room(self, in_use: Sequence[str | None], memory: Sequence[int]) -> list[str | None]:
        return [None] * (self.places - len(in_use))

    def submit(self, works: Sequence[Work]) -> list[str]:
        self.submissions.append([work.file.stem for work in works])
        for work in works:
            code, saves = self.ends[work.file.stem].pop(0)
            if saves:
                path = job_folder(work.file) / ".state/ablate/job/checkpoint.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"")
                os.utime(path, ns=(time.time_ns(), time.time_ns()))
            work._tell("ended", code, f"exit {code}")
        return [str(place) for place in range(len(works))]

    def is_gone(self, file: Path, batch: Path, record: Any) -> bool:
        return not batch.exists()


def job_files(folder: Path, *names: str) -> list[Path]:
    files = [folder / "jobs" / f"{name}.json" for name in names]
    for file in files:
        write_json(file, {})
    return files


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., tuple[Board, Scripted]]:
    """Places jobs on a scripted queue."""

    def place(ends: dict[str, list[tuple[int, bool]]], **queue: int) -> tuple[Board, Scripted]:
        engine = Submitit("local", Resources(), {})
        engine._queue = script = Scripted(ends, **queue)  # type: ignore[assignment]
        board = Board({name: name for name in ends}, Report())
        engine.place(job_files(tmp_path, *ends), board, lambda: False)
        return board, script

    return place


def test_a_job_that_was_killed_may_have_lacked_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", tmp_path / "mopo")
    (tmp_path / "mopo").write_text("#!/bin/sh\nkill -9 $$\n")
    (tmp_path / "mopo").chmod(0o755)
    work = Work(tmp_path / "one.json", tmp_path)
    why = work._why(work._carry_out([]))
    assert why == "its process was killed by SIGKILL, perhaps for lack of memory: fewer --cells-per-job need less"


def test_what_fails_is_tried_again_as_long_as_that_may_help(scripted: Any) -> None:
    fails, saves = (1, False), (1, True)
    board, script = scripted(
        {"a": [fails] * 3, "b": [fails, fails, saves, fails, fails], "c": [(4, False)], "d": [fails, (0, False)]}
    )
    assert board.failures() == {"a": "exit 1", "b": "exit 1", "c": "exit 4"}
    assert board.lines["d"].state == "done"
    assert script.submissions == [["a", "b", "c", "d"], ["a", "b", "d"], ["a", "b"], ["b"], ["b"]]


def test_why_jobs_wait_is_told_once(scripted: Any, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scripted, "why_waiting", "There is little memory.")
    scripted({name: [(0, False)] for name in "abc"}, room=1, largest=1)
    assert capsys.readouterr().err.count("There is little memory.") == 1
    scripted({"d": [(0, False)]}, room=1)
    assert "little memory" not in capsys.readouterr().err, "nothing waits"


def test_no_more_are_submitted_than_there_is_room_for(scripted: Any) -> None:
    _, script = scripted({name: [(0, False)] for name in "abcde"}, room=2, largest=1)
    assert script.submissions == [["a"], ["b"], ["c"], ["d"], ["e"]]
    _, script = scripted({name: [(0, False)] for name in "fghij"}, room=2)
    assert script.submissions == [["f", "g"], ["h", "i"], ["j"]]


def test_this_machine_takes_as_many_as_its_cpus_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert slots(Resources(2)) == [""] * 4
    assert slots(Resources(9)) == [""]
    assert slots(Resources(1, 1.0)) == ["2", "5", "7"]
    assert slots(Resources(4, 1.0)) == ["2", "5"]
    assert slots(Resources(1, 2.0)) == ["2,5"]
    assert slots(Resources(1, 0.5)) == ["2", "5", "7", "2", "5", "7"]
    assert slots(Resources(1, 1e-12)) == ["2", "5", "7", "2", "5", "7", "2", "5"]
    assert Local(Resources(1, 0.5)).room(["5", "2", "5"], [0]) == ["7", "2", "7"]
    with pytest.raises(SettingsError, match="has 3 GPUs"):
        slots(Resources(1, 4.0))


@pytest.mark.parametrize(
    ("memory", "in_use", "room"),
    [
        ([2, 3, 2], 0, 3),
        ([2, 3, 2], 2, 1),
        ([2, 3, 2], 4, 0),
        ([2, 30, 2], 1, 4),
        ([30], 0, 8),
        ([0], 0, 8),
        ([], 0, 8),
    ],
)
def test_this_machine_takes_as_many_as_its_memory_holds(
    monkeypatch: pytest.MonkeyPatch, memory: list[int], in_use: int, room: int
) -> None:
    """Of 11 GB; a job that does not fit at all says so itself and counts for nothing."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("mopo_cli.placing.queues.free_memory", lambda: 11 * 10**9)
    local, sizes = Local(Resources()), [size * 10**9 for size in memory]
    local.room([], sizes)
    assert local.room([""] * in_use, sizes) == [""] * room
    largest = max((size for size in memory if size <= 11), default=0)
    said = f"A job may take {largest} GB, and 11 GB are free: at most {11 // max(largest, 1)} run at once."
    assert local.why_waiting.startswith(said) == bool(local.why_waiting) == bool(largest)


def test_beside_jobs_of_an_earlier_command_none_begins_that_would_fit_once_they_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 11 GB a job of 6 GB that was at work already has taken 6: another is to wait for it, not to be refused."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    free = [5 * 10**9]
    monkeypatch.setattr("mopo_cli.placing.queues.free_memory", lambda: free[0])
    local, sizes = Local(Resources()), [6 * 10**9, 10**9, 30 * 10**9]
    assert local.room([""], sizes) == []
    free[0] = 11 * 10**9
    assert local.room([], sizes) == [""]
    assert local.room([""], sizes) == []


@pytest.mark.parametrize(
    ("asked", "device", "gets"),
    [
        ((None, None), "auto", (5, 1.0)),
        ((None, None), "cpu", (1, 0.0)),
        ((None, 0.5), "cuda", (2, 0.5)),
        ((None, 2.0), "auto", (8, 2.0)),
        ((None, 0.0), "auto", (1, 0.0)),
        ((3, None), "auto", (3, 1.0)),
    ],
)
def test_a_job_gets_a_gpu_where_there_is_one_and_its_share_of_the_cpus(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[int | None, float | None], device: str, gets: tuple[int, float]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert usual_resources(*asked, device) == Resources(*gets)


@pytest.mark.parametrize("visible", ["", "-1", "0,1"])
def test_without_a_gpu_here_a_job_has_one_cpu(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    """Whatever is said to be visible. On other machines there may be one, where a device is named."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert usual_resources(None, None, "auto") == Resources(1, 0.0)
    assert usual_resources(None, None, "cuda") == Resources(1, 1.0)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of commands of a Slurm that only notes what it is asked, in calls, and answers from files there."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name, script in {
        "sbatch": 'cp "$1" $HERE/script; env > $HERE/env; cat $HERE/refusal >&2 && exit 1; echo Submitted batch job 42',
        "squeue": "cat $HERE/queue",
        "sacct": "cat $HERE/accounts",
        "srun": "exit 1",
    }.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nHERE={folder}\necho {name} "$@" >> $HERE/calls\n{script}\n')
        path.chmod(0o755)
    path = folder / "sbatch"
    path.write_text(
        path.read_text()
        .replace(" 2>/dev/null\n", "\n")
        .replace("cat $HERE/refusal", "test -f $HERE/refusal && cat $HERE/refusal")
    )
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    for name in ("_ASK_SECONDS", "_SETTLES_SECONDS"):
        monkeypatch.setattr(slurm, name, 0.0)
    monkeypatch.setattr(Slurm, "poll_seconds", 0.0)
    (folder / "queue").write_text("")
    (folder / "accounts").write_text("JobID|State|NodeList\n")
    yield folder


def on_cluster(
    tmp_path: Path, options: dict[str, str], resources: Resources, looks: int = 1
) -> tuple[Board, list[Path]]:
    """Place two jobs with Slurm; stopped after so many looks."""
    files = job_files(tmp_path, "one", "two")
    board = Board({file.stem: file.stem for file in files}, Report())
    stops = iter([False] * (looks - 1) + [True])
    Submitit("slurm", resources, options).place(files, board, lambda: next(stops))
    return board, files


def test_a_submission_to_slurm_is_an_array_with_what_was_asked_for(
    cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_CONF", "SBATCH_ACCOUNT"):
        monkeypatch.setenv(name, "7")
    options = {"partition": "gpu", "reservation": "for_us", "time": "1-00:00:00", "setup": "module load cuda"}
    options |= {"array_parallelism": "1", "exclusive": "true", "mail_user": "me@here"}
    board, files = on_cluster(tmp_path, options, Resources(6, 2.0))
    lines = (cluster / "script").read_text().splitlines()
    given = [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")]
    for line in ("array=0-1%1", "cpus-per-task=6", "gpus-per-node=2", "partition=gpu", "reservation=for_us"):
        assert line in given
    for line in ("time=1-00:00:00", "exclusive", "mail-user=me@here", "job-name=mopo", "open-mode=append"):
        assert line in given
    assert "module load cuda" in lines
    assert len(given) == len({line.split("=")[0] for line in given}), "no option twice"
    assert [record["id"] for file in files if (record := read_record(file))] == ["42_0", "42_1"]
    assert board.count("waiting") == 2
    environment = (cluster / "env").read_text().splitlines()
    assert {"SLURM_CONF=7", "SBATCH_ACCOUNT=7"} <= set(environment) and "SLURM_JOB_ID=7" not in environment


def test_what_waits_or_runs_in_slurm_is_not_submitted_again(cluster: Path, tmp_path: Path) -> None:
    on_cluster(tmp_path, {}, Resources())
    (cluster / "queue").write_text("42_0 PENDING\n42_1 RUNNING\n")
    _, files = on_cluster(tmp_path, {}, Resources(), looks=3)
    assert (cluster / "calls").read_text().count("sbatch") == 1
    for file in files:
        record = read_record(file)
        assert record is not None
        batch = file.parent / ".submitit" / record["batch"]
        assert (batch / f"{record['id']}_submitted.pkl").is_file()
        submitted.Work(file, batch)._tell("running")
    board, _ = on_cluster(tmp_path, {}, Resources(), looks=2)
    assert [board.lines[name].state for name in ("one", "two")] == ["waiting", "running"], "one was pre-empted"
    with pytest.raises(SettingsError, match="submitted with --on slurm and has not reported its end"):
        engine = Submitit("local", Resources(), {})
        engine.place(files, board, lambda: True)


def test_slurm_says_why_a_job_is_gone(cluster: Path, tmp_path: Path) -> None:
    (cluster / "accounts").write_text(
        "JobID|State|NodeList\n42_0|OUT_OF_MEMORY|a\n42_1|CANCELLED by 7|b\n42|TIMEOUT|a\n"
    )
    board, _ = on_cluster(tmp_path, {}, Resources(), looks=9)
    assert board.lines["two"].why == "it was cancelled in Slurm"
    assert board.lines["one"].why == "Slurm says TIMEOUT"
    assert board.count("failed") == 2
    assert (cluster / "calls").read_text().count("sbatch") == 3, "what a person cancelled is not submitted again"


@pytest.mark.parametrize(
    ("job", "state", "log", "why"),
    [
        (501, "OUT_OF_MEMORY", "", "Slurm ended it for lack of memory: --slurm mem=SIZE gives a job more"),
        (502, "FAILED", "slurmstepd-n1: error: Exceeded job memory limit", "Slurm ended it for lack of memory"),
        (
            503,
            "FAILED",
            "slurmstepd: error: Detected 1 oom_kill event in StepId=9.0.",
            "Slurm ended it for lack of memory",
        ),
        (504, "FAILED", "srun: error: n1: task 0: Killed", "Slurm says FAILED"),
        (505, "COMPLETED", "ModuleNotFoundError: No module named 'x'", "ModuleNotFoundError: No module named 'x'"),
    ],
)
def test_what_slurm_ended_for_lack_of_memory_is_told(
    cluster: Path, tmp_path: Path, job: int, state: str, log: str, why: str
) -> None:
    """The numbers differ, as submitit remembers what became of each."""
    (cluster / "accounts").write_text(f"JobID|State|NodeList\n{job}|{state}|a\n")
    (tmp_path / f"{job}_0_log.err").write_text(log)
    record: Any = {"engine": "slurm", "id": str(job), "batch": "b", "devices": None, "at": 1.0}
    said, wanted = Slurm(Resources(), {}).why_gone(tmp_path, record)
    assert said.startswith(why) and not wanted


def test_slurm_may_refuse(cluster: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster / "refusal").write_text("sbatch: unrecognized option '--flavour=x'\nTry \"sbatch --help\" for more\n")
    with pytest.raises(SettingsError, match=r"^sbatch refused the jobs: unrecognized option '--flavour=x'\.$"):
        on_cluster(tmp_path, {"flavour": "x"}, Resources())
    assert not (tmp_path / "jobs/.submitit").exists()
    (cluster / "refusal").write_text("sbatch: error: Batch job submission failed: Invalid partition\n")
    with pytest.raises(SettingsError, match=r"jobs: Batch job submission failed: Invalid partition\.$"):
        on_cluster(tmp_path, {"partition": "x"}, Resources())
    with pytest.raises(SettingsError, match="whole GPUs"):
        on_cluster(tmp_path, {}, Resources(1, 0.5))
    with pytest.raises(SettingsError, match="--slurm output is set by mopo"):
        sbatch_parameters(Resources(), {"output": "x"})
    with pytest.raises(SettingsError, match="--slurm nodes must be a whole number, not 'two'"):
        sbatch_parameters(Resources(), {"nodes": "two"})


def test_without_slurm_nothing_is_begun(refuses: Any, tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    refuses(f"ablate {COMMON} --run {tiny_run} --penalty none --on slurm", 3, "needs Slurm's command sbatch")
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    refuses(f"ablate {COMMON} --run {tiny_run} --penalty none --on local", 3, "needs the package submitit")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    files = job_files(tmp_path, "one")
    (tmp_path / "jobs/.submitit").write_text("a file")
    board = Board({"one": "one"}, Report())
    with pytest.raises(InputError, match=r"\.submitit is a file, not a folder\."):
        Submitit("local", Resources(), {}).place(files, board, lambda: False)


def test_a_folder_that_a_job_removes_meanwhile_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def glob(self: Path, pattern: str) -> Iterator[Path]:
        raise FileNotFoundError(pattern)

    monkeypatch.setattr(Path, "glob", glob)
    assert epochs(tmp_path) is None
    assert last_saved(tmp_path / "one.json") == 0
    discard_leftovers(tmp_path)


def test_after_a_signal_the_jobs_are_said_to_go_on() -> None:
    assert Stopped(signal.SIGINT, jobs_go_on=True).message == "Stopped by SIGINT; the jobs that were submitted go on."
    assert Stopped(signal.SIGINT, jobs_go_on=True).hint == "run the same command again to collect them"


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jobs/one.json"
    write_json(record_file(file), {"engine": "local", "id": "1", "batch": "../../..", "devices": "", "at": 1.0})
    with pytest.raises(Exception, match=r"submitted\.json is damaged or was edited: field batch"):
        read_record(file)


def test_a_slurm_that_does_not_answer_is_not_waited_for(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cluster / "squeue").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(slurm, "_ANSWER_SECONDS", 0.2)
    start = time.monotonic()
    assert Slurm(Resources(), {})._ask() is None
    assert time.monotonic() - start < 30
