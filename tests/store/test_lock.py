"""Two processes on one run: the second is refused."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mopo_cli.errors import InputError, LockedError
from mopo_cli.store.lock import run_lock

HOLD = (
    "import sys, time; from pathlib import Path; from mopo_cli.store.lock import run_lock\n"
    "with run_lock(Path(sys.argv[1])):\n"
    "    print('held', flush=True); sys.stdin.read()"
)


@contextmanager
def held_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_held_by_another_process_is_refused_in_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with held_by_another_process(folder):
        started = time.monotonic()
        with pytest.raises(LockedError) as caught, run_lock(folder):
            pytest.fail("the body must not run")
        assert 2 < time.monotonic() - started < 60
    assert caught.value.exit_code == 6
    assert str(folder) in caught.value.message and "--run" in caught.value.hint


def test_a_killed_holder_leaves_the_folder_free(tmp_path: Path) -> None:
    with held_by_another_process(tmp_path) as process:
        process.kill()
        process.wait()
        with run_lock(tmp_path):
            pass


def test_a_process_may_take_its_own_lock_again(tmp_path: Path) -> None:
    with run_lock(tmp_path), run_lock(tmp_path):
        pass
    with held_by_another_process(tmp_path):
        pass


def test_a_new_folder_in_which_nothing_was_stored_goes_again(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with pytest.raises(InputError), run_lock(folder):
        assert folder.is_dir()
        raise InputError("bad input")
    assert list(tmp_path.iterdir()) == []


def test_a_new_folder_with_content_stays_and_so_does_an_old_empty_one(tmp_path: Path) -> None:
    with run_lock(tmp_path / "new"):
        (tmp_path / "new" / "run.json").write_text("{}")
    assert (tmp_path / "new" / "run.json").exists()
    (tmp_path / "old").mkdir()
    with run_lock(tmp_path / "old"):
        pass
    assert (tmp_path / "old").is_dir()


def test_a_place_that_cannot_be_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"), run_lock(tmp_path / "file"):
        pytest.fail("the body must not run")
