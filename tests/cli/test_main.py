"""Every fault ends in one sentence, the command to try next, and its exit code."""

import errno
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from mopo_cli.dynamics.penalties import PENALTIES
from mopo_cli.errors import (
    CorruptError,
    DivergedError,
    InputError,
    LockedError,
    MopoError,
    NetworkError,
    SettingsError,
    Stopped,
    UsageError,
)


def let_stage_raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run_fetch_data(*_: Any) -> None:
        raise error

    module = ModuleType("mopo_cli.stages.fetch_data")
    module.run_fetch_data = run_fetch_data  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MopoError("what"), 1),
        (UsageError("what"), 2),
        (SettingsError("what"), 3),
        (InputError("what"), 4),
        (CorruptError("what"), 5),
        (LockedError("what"), 6),
        (DivergedError("what"), 7),
        (NetworkError("what"), 8),
        (Stopped(2), 130),
        (Stopped(15), 143),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(shell: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int) -> None:
    let_stage_raise(monkeypatch, error)
    assert shell("fetch-data --dataset hopper-medium") == code
    assert shell.out == ""
    assert "Traceback" not in shell.err
    if isinstance(error, MopoError):
        assert error.message in shell.err


def test_a_second_signal_keeps_its_code(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    let_stage_raise(monkeypatch, SystemExit(143))
    with pytest.raises(SystemExit) as caught:
        shell("fetch-data --dataset hopper-medium")
    assert caught.value.code == 143


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train-policy --lamda 1", "--lam"),
        ("train-policy --penalty max-vr", f"--penalty must be {', '.join(map(repr, PENALTIES))}, 'oracle' or 'none'"),
        ("train-policy --lam", "--lam"),
        ("train-policy --lam much", "--lam must be a valid number, not 'much'"),
        ("train-policy --h 0 --epochs -1", "--epochs must be greater than or equal to 1"),
        ("select-elites --metric mae", "--metric must be 'mse' or 'nll'"),
        ("train-model --device gpu", "--device must be auto, cpu, cuda"),
        ("train-model --threads 0", "--threads must be at least 1"),
        ("train-model --preset nope --dataset hopper-medium", "There is no preset 'nope'"),
        ("train-policy --engine fast", "--engine must be auto, eager, cudagraph or compile, not 'fast'"),
        ("train-policy --name ../x", "--name must contain only letters"),
        ("fetch-data", "--dataset is missing"),
        ("run", "PRESET-OR-DATA-SET"),
        ("trainmodel", "No such command 'trainmodel'"),
        ("evaluate leftover", "leftover"),
        ("presets", "Missing command"),
    ],
)
def test_usage_errors_exit_2_with_a_sentence_and_a_hint(shell: Any, line: str, said: str) -> None:
    assert shell(line) == 2
    assert shell.out == ""
    assert shell.err.startswith("Error: ")
    assert said in shell.err
    assert shell.calls == []
    assert list(Path().iterdir()) == []


def test_bad_values_in_a_file_exit_3_and_a_missing_file_4(shell: Any) -> None:
    Path("bad.yaml").write_text("train-model:\n  networks: many\n")
    assert shell("train-model --dataset hopper-medium --config bad.yaml") == 3
    assert "bad.yaml: train-model: networks must be a valid integer, not 'many'" in shell.err
    assert shell("train-model --dataset hopper-medium --config nope.yaml") == 4
    assert shell.calls == []


def test_a_bug_is_told_as_ours_with_its_traceback_in_a_file(
    shell: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    let_stage_raise(monkeypatch, ZeroDivisionError("by nought"))
    assert shell("fetch-data --dataset hopper-medium") == 1
    assert "bug in mopo: ZeroDivisionError" in shell.err
    assert "Traceback" not in shell.err
    (file,) = tmp_path.glob("mopo-*.txt")
    assert str(file) in shell.err
    assert "by nought" in file.read_text()

    monkeypatch.setenv("MOPO_DEBUG", "1")
    assert shell("fetch-data --dataset hopper-medium") == 1
    assert "Traceback" in shell.err
    assert len(list(tmp_path.glob("mopo-*.txt"))) == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "dataset.h5"), 4, "The disk is full (dataset.h5)."),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 300), 4, "aaa cannot be used: File name too long."),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "a\x1bb"), 4, r"'a\x1bb' cannot be used: Too many"),
        (OSError(errno.EFBIG, "File too large"), 4, "A file would be larger than the system lets it be."),
        (OSError(errno.EIO, "Input/output error", 3), 4, "The disk cannot be read or written (3)."),
        (UnicodeEncodeError("utf-8", "runs/a\udcffb", 6, 7, "surrogates not allowed"), 4, r"'runs/a\udcffb'"),
        (ValueError("embedded null byte"), 4, "NUL character"),
        (ImportError("libx.so: no file", name="h5py"), 4, "A package that mopo needs cannot be imported: libx.so"),
        (MemoryError(), 3, "There is not enough memory for this."),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), 3, "not enough memory on the GPU"),
        (RecursionError("maximum recursion depth exceeded"), 4, "nested too deeply"),
    ],
)
def test_what_the_machine_or_the_input_does_not_allow_is_no_bug(
    shell: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
) -> None:
    let_stage_raise(monkeypatch, error)
    assert shell("fetch-data --dataset hopper-medium") == code
    assert said in shell.err and "bug" not in shell.err and "Traceback" not in shell.err


def test_a_bug_is_told_where_no_file_can_be_written(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    let_stage_raise(monkeypatch, ZeroDivisionError("by nought"))

    def nowhere(*_: Any, **__: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", nowhere)
    assert shell("fetch-data --dataset hopper-medium") == 1
    expected = "ZeroDivisionError; its traceback could not be written (No usable temporary directory found)."
    assert expected in shell.err and "MOPO_DEBUG=1" in shell.err


INTERRUPTED_IMPORT = """\
import sys
from mopo_cli.__main__ import main

class Interrupt:
    def find_spec(self, name, *_):
        if name == sys.argv[1]:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.exit(main(["presets", "ls"]))
"""


@pytest.mark.parametrize("module", ["typer", "mopo_cli.cli.app", "mopo_cli.report.console"])
def test_ctrl_c_while_modules_are_imported_is_no_traceback(module: str) -> None:
    outcome = subprocess.run([sys.executable, "-c", INTERRUPTED_IMPORT, module], capture_output=True, text=True)
    assert (outcome.returncode, outcome.stderr) == (130, "")
