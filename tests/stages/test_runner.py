"""The envelope of a stage: records, up to date, resume, locks and signals."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from probes.forks import Process, forked

from mopo_cli.errors import STOP_SIGNALS, CorruptError, InputError, MopoError, SettingsError, Stopped
from mopo_cli.report.console import Report
from mopo_cli.stages.common.inputs import check_lineage
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.common.same_settings import changed_settings
from mopo_cli.stages.runner import Stage, stage_envelope
from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder, resolve_run

KEY = "train-policy/p"
SETTINGS = {"lam": 1.0, "seeds": 1, "seed_list": (0, 1), "learning_rate": 0.1}


class Recorder:
    """Stands in for Report: keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warned: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warned.append(text)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MOPO_RUN", raising=False)
    Path("dataset.h5").write_bytes(b"data")


@pytest.fixture
def run() -> RunFolder:
    return RunFolder(Path("runs/demo"))


def stage(
    run: RunFolder,
    body: Callable[[Any], object] = lambda stage: None,
    settings: dict[str, Any] = SETTINGS,
    report: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """A stage that writes one file after ``body``."""
    inputs = {"dataset": Path("dataset.h5")}
    report = Recorder() if report is None else report
    with stage_envelope(run, KEY, settings, inputs, Options(**options), report) as current:
        if current.up_to_date:
            return current.result()
        body(current)
        output = run.policy("p", 0)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(str(settings))
        return current.finish({"policy": output}, {"return": 5.0})


def stage_that_fails(run: RunFolder, settings: dict[str, Any] = SETTINGS, force: bool = False) -> None:
    """A stage that fails after it has saved a checkpoint."""

    def save_then_fail(current: Any) -> None:
        assert current.load_state() is None
        current.save_state({"w": torch.ones(2)}, {"step": 7})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage(run, save_then_fail, settings, force=force)


def test_a_finished_stage_is_recorded_with_what_made_it(run: RunFolder) -> None:
    result = stage(run, origins={"lam": "flag"})
    record = read_lineage(run)[KEY]
    assert record.settings == {**SETTINGS, "seed_list": [0, 1]}
    assert record.inputs["dataset"]["sha256"] == hashlib.sha256(b"data").hexdigest()
    assert record.outputs["policy"] == {
        "path": "policies/p/seed-0/policy.safetensors",
        "sha256": hashlib.sha256(run.policy("p", 0).read_bytes()).hexdigest(),
    }
    # Files of the package index leave out what torch says of its build, as in 2.6.0+cu124.
    assert record.versions["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert record.extra == {"return": 5.0, "origins": {"lam": "flag"}} and 0 <= record.wall_seconds < 60
    assert result == {
        "stage": KEY,
        "run": "runs/demo",
        "return": 5.0,
        "origins": {"lam": "flag"},
        "up_to_date": False,
        "outputs": {"policy": "runs/demo/policies/p/seed-0/policy.safetensors"},
        "wall_seconds": record.wall_seconds,
    }
    assert resolve_run(None, None).root == run.root


def test_an_unchanged_stage_does_nothing_and_says_so(run: RunFolder, contents: Any) -> None:
    first = stage(run)
    before = contents(run.root)
    report = Recorder()
    again = stage(run, body=lambda _: pytest.fail("must not run"), report=report)
    assert again == {**first, "up_to_date": True}
    assert contents(run.root) == before
    assert "up to date" in report.said[0] and KEY in report.said[0]


@pytest.mark.parametrize("change", ["settings", "input", "output", "force"])
def test_whatever_changed_runs_again(run: RunFolder, change: str) -> None:
    stage(run)
    if change == "input":
        Path("dataset.h5").write_bytes(b"other")
    if change == "output":
        run.policy("p", 0).write_text("edited")
    settings = {**SETTINGS, "lam": 2.0} if change == "settings" else SETTINGS
    assert not stage(run, settings=settings, force=change == "force")["up_to_date"]


@pytest.mark.parametrize(("gamma", "up_to_date"), [(0.99, True), (0.9, False)])
def test_a_setting_newer_than_the_record_counts_with_its_default(
    run: RunFolder, gamma: float, up_to_date: bool
) -> None:
    stage(run)
    assert stage(run, settings={**SETTINGS, "gamma": gamma})["up_to_date"] is up_to_date


NOW, BEFORE = {**SETTINGS, "penalty_networks": "all"}, {**SETTINGS, "penalty_members": "all"}


def test_a_stage_recorded_under_a_setting_s_old_name_is_up_to_date(run: RunFolder) -> None:
    stage(run, settings=BEFORE, origins={"penalty_members": "flag"})
    assert "penalty_members" in run.lineage.read_text()
    result = stage(run, settings=NOW)
    assert result["up_to_date"] and result["origins"] == {"penalty_networks": "flag"}
    assert read_lineage(run)[KEY].settings["penalty_networks"] == "all"
    assert not stage(run, settings={**NOW, "penalty_networks": "elite"})["up_to_date"]


def test_an_unfinished_stage_goes_on_from_a_setting_s_old_name(run: RunFolder) -> None:
    stage_that_fails(run, BEFORE)
    with pytest.raises(SettingsError, match="penalty-networks all -> elite"):
        stage(run, lambda current: current.load_state(), settings={**NOW, "penalty_networks": "elite"})
    states: list[Any] = []
    stage(run, lambda current: states.append(current.load_state()), settings=NOW)
    assert states[0][1] == {"step": 7}


def test_policies_of_an_old_name_are_the_same() -> None:
    assert not changed_settings("train-policy", BEFORE, NOW)
    assert changed_settings("train-policy", BEFORE, {**NOW, "penalty_networks": "elite"})


def test_a_missing_input_names_the_command_and_changes_nothing(run: RunFolder, contents: Any) -> None:
    Path("dataset.h5").unlink()
    with pytest.raises(InputError, match=r"dataset\.h5") as caught:
        stage(run)
    assert caught.value.hint.startswith("mopo fetch-data")
    assert contents(Path()) == {}


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_body_changes_nothing(run: RunFolder, existing: bool, contents: Any) -> None:
    if existing:
        stage(run)
    before = contents(Path())

    def fail(_: Any) -> None:
        raise InputError("does not fit")

    with pytest.raises(InputError, match="does not fit"):
        stage(run, fail, settings={**SETTINGS, "lam": 9.0})
    assert contents(Path()) == before


def test_leftovers_of_a_killed_process_are_removed(run: RunFolder) -> None:
    leftover = run.root / "rollouts" / ".a.0123abcd.mopo-tmp.h5"
    leftover.parent.mkdir(parents=True)
    leftover.write_text("half")
    stage(run)
    assert not leftover.exists()


def test_state_comes_back_to_the_same_command_and_goes_when_finished(run: RunFolder) -> None:
    stage_that_fails(run)
    results: list[Any] = []
    stage(run, lambda current: results.append(current.load_state()))
    tensors, meta = results[0]
    assert tensors["w"].tolist() == [1, 1] and meta == {"step": 7}
    assert not (run.root / ".state").exists()
    assert run.root.exists()


def test_another_stages_state_survives(run: RunFolder) -> None:
    other = run.state("train-policy/other") / "checkpoint.safetensors"
    other.parent.mkdir(parents=True)
    other.write_text("kept")
    stage(run, lambda current: current.save_state({}, {}))
    assert other.exists() and not run.state(KEY).exists()


def test_wall_time_of_another_attempt_is_counted_once_and_that_of_this_one_never_twice(run: RunFolder) -> None:
    def save(current: Any) -> None:
        assert current.load_state() is None
        current._started -= 1000
        current.save_state({}, {})
        assert current.load_state() is not None
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage(run, save)
    saved = stage(run, lambda current: (current.load_state(), current.load_state()))
    assert 1000 < saved["wall_seconds"] < 1100


def test_a_stage_is_up_to_date_only_where_all_that_it_made_is(run: RunFolder) -> None:
    def again(whole: bool) -> tuple[bool, str]:
        report: Any = Recorder()
        with stage_envelope(run, KEY, SETTINGS, {}, Options(), report, lambda current: whole) as current:
            if not current.up_to_date:
                current.finish({}, {})
            return current.result()["up_to_date"], " ".join(report.said)

    assert again(True)[0] is False
    assert again(True) == (True, f"{KEY} is up to date")
    assert again(False) == (False, "")


def test_resuming_with_other_settings_lists_every_difference(run: RunFolder, contents: Any) -> None:
    stage_that_fails(run)
    before = contents(run.root)
    changed = {**SETTINGS, "lam": 5.0, "learning_rate": 0.2, "gamma": 0.9, "tau": 0.005, "new": 1}
    with pytest.raises(SettingsError) as caught:
        stage(run, lambda current: current.load_state(), settings=changed)
    message = caught.value.message
    assert "lam 1.0 -> 5.0" in message and "learning-rate 0.1 -> 0.2" in message and "new None -> 1" in message
    assert "seeds" not in message and "seed-list" not in message
    # Settings that did not exist then count with their default.
    assert "gamma 0.99 -> 0.9" in message and "tau" not in message
    assert "--force" in caught.value.hint
    assert contents(run.root) == before
    results: list[Any] = []
    stage(run, lambda current: results.append(current.load_state()), settings=changed, force=True)
    assert results == [None]


def test_resuming_on_other_data_names_both_hashes(run: RunFolder) -> None:
    stage_that_fails(run)
    Path("dataset.h5").write_bytes(b"other")
    with pytest.raises(InputError) as caught:
        stage(run, lambda current: current.load_state())
    for content in (b"data", b"other"):
        assert hashlib.sha256(content).hexdigest() in caught.value.message


def test_a_damaged_state_is_told_with_the_way_out(run: RunFolder) -> None:
    stage_that_fails(run)
    (run.state(KEY) / "checkpoint.safetensors").write_bytes(b"damaged")
    with pytest.raises(CorruptError) as caught:
        stage(run, lambda current: current.load_state())
    assert "--force" in caught.value.hint


def test_check_lineage_refuses_other_data_unless_allowed(run: RunFolder) -> None:
    report: Any = Recorder()
    current = Stage(run, KEY, SETTINGS, {"dataset": {"path": "d", "sha256": "b" * 64}}, Options(), report)
    check_lineage(current, "the model m", "b" * 64)
    with pytest.raises(InputError) as caught:
        check_lineage(current, "the model m", "a" * 64)
    assert "a" * 64 in caught.value.message and "b" * 64 in caught.value.message
    assert "--allow-mismatch" in caught.value.hint and report.warned == []
    check_lineage(replace(current, options=Options(allow_mismatch=True)), "the model m", "a" * 64)
    assert len(report.warned) == 1


def test_a_signal_during_a_body_that_finishes_is_not_lost(run: RunFolder) -> None:
    with pytest.raises(Stopped) as caught:
        stage(run, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert caught.value.exit_code == 143
    assert KEY in read_lineage(run)


def test_the_handlers_from_before_come_back(run: RunFolder) -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    stage(run)
    stage_that_fails(run, force=True)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def work(deaf: bool) -> None:
    """A stage that takes twenty seconds, and tells that it works and, where it is deaf to signals, that one came."""
    inputs = {"dataset": Path("dataset.h5")}
    with stage_envelope(RunFolder(Path("runs/demo")), "train-model", {}, inputs, Options(), Report()) as stage:
        resumed = stage.load_state()
        step = resumed[1]["step"] if resumed else 0
        print("working", step)
        while step < 2000:
            time.sleep(0.01)
            step += 1
            if not deaf and stage.should_stop():
                stage.save_state({}, {"step": step})
                raise Stopped(stage.signal)
            if deaf and stage.signal:
                print("heard")


def start(deaf: bool = False) -> Process:
    def in_a_process() -> int:
        try:
            work(deaf)
        except MopoError as error:
            print(error.message, error.hint, file=sys.stderr)
            return error.exit_code
        return 0

    return forked(in_a_process, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def line(process: Process) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_saves_exits_and_the_next_start_goes_on(signum: int, code: int, run: RunFolder) -> None:
    with start() as process:
        assert line(process) == "working 0"
        process.send_signal(signum)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors and "same command" in errors
    assert resolve_run(None, None).root == run.root
    with start() as process:
        word, step = line(process).split()
        process.kill()
    assert word == "working" and 0 < int(step) < 2000


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_the_second_signal_quits_at_once(signum: int, code: int) -> None:
    with start(deaf=True) as process:
        assert line(process) == "working 0"
        process.send_signal(signum)
        assert line(process) == "heard"
        time.sleep(0.4)
        process.send_signal(signum)
        process.communicate(timeout=5)
    assert process.returncode == code
    assert not Path("runs").exists()


def test_a_signal_that_comes_twice_as_of_timeout_is_one(run: RunFolder) -> None:
    """`timeout` signals the command, and at once all of its process group; the handler has run in between."""
    with start(deaf=True) as process:
        assert line(process) == "working 0"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "heard"
        process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert line(process) == "heard" and process.poll() is None
        process.kill()


def test_a_second_process_on_the_run_is_locked_out() -> None:
    with start() as process:
        assert line(process) == "working 0"
        with start() as second:
            _, errors = second.communicate(timeout=30)
        process.kill()
    assert second.returncode == 6
    assert "runs/demo" in errors and "Traceback" not in errors


@pytest.mark.parametrize(("force", "hint"), [(False, "go on from here"), (True, "starts from the beginning")])
def test_who_is_stopped_learns_what_the_same_command_does_next(run: RunFolder, force: bool, hint: str) -> None:
    stage(run)

    def stop(at_work: Stage) -> Any:
        at_work.signal = signal.SIGTERM
        raise Stopped(at_work.signal)

    with pytest.raises(Stopped) as caught:
        stage(run, settings={**SETTINGS, "lam": 2.0}, body=stop, force=force)
    assert caught.value.hint.endswith(hint)
