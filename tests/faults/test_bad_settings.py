"""Flags and settings files with faults: each is told with its name, and nothing on disk changes."""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train-polcy", "train-policy"),
        ("train-policy --penlty max-var", "--penlty"),
        ("train-policy --penalty max-vra", "penalty"),
        ("train-policy --lam -1", "lam"),
        ("train-policy --lam nan", "lam"),
        ("train-policy --h 0", "h "),
        ("train-policy --seed-list 1,1", "seed-list"),
        ("train-policy --seed-list 1,x", "seed-list"),
        ("train-policy --name ../escape", "name"),
        ("train-policy --epochs", "--epochs"),
        ("train-policy --log-std-min 3", "log-std-min"),
        ("train-policy --device gpu", "--device"),
        ("train-policy --threads 0", "--threads"),
        ("train-policy --threads many", "--threads"),
        ("train-policy --preset hopper-medum", "did you mean 'hopper-medium'"),
        ("train-model --layers 3", "weight-decay needs 4 values"),
        ("select-elites --metric mae", "metric"),
        ("rollout --batch 1e3.5", "batch"),
        ("ablate --penalty max-var,maxvar", "penalty"),
        ("evaluate --episodes 0", "episodes"),
        ("evaluate extra", "extra"),
        ("presets show nothing", "nothing"),
        ("run", "PRESET-OR-DATA-SET"),
    ],
)
def test_a_command_line_with_a_fault(tiny_run: Path, refuses: Any, line: str, said: str) -> None:
    refuses(line, 2, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train-policy: {lamb: 1}", "did you mean 'lam'"),
        ("train-policy: {penalty: maximum}", "penalty must be"),
        ("train-policy: {epochs: 1.5}", "epochs must be"),
        ("train-policy: {epochs: true}", "epochs must not be true or false"),
        ("train-policy: {log-std-min: 5}", "log-std-min 5 must be below log-std-max 2"),
        ("train-policy: {lam: 1, h: 0, tau: 2}", "2 faults"),
        ("train-policy: {lam: 1, 'lam': 2}", "gives lam twice (line 1)"),
        ("train-policy: {lam: 1}\nrollout: {batch-size: 3}", "batch-size"),
        ("trainpolicy: {lam: 1}", "did you mean 'train-policy'"),
        ("train-policy: [lam, 1]", "section train-policy"),
        ("- train-policy", "must hold sections"),
        ("train-policy: {lam: 1", "line 1"),
        ("evaluate: {episodes: !!python/object/apply:os.getcwd []}", "not valid YAML"),
    ],
)
def test_a_settings_file_with_a_fault(tiny_run: Path, refuses: Any, text: str, said: str) -> None:
    Path("mine.yaml").write_text(text)
    refuses("train-policy --config mine.yaml", 3, said)
    refuses("run quickstart --config mine.yaml", 3, said)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", "folder"])
def test_a_settings_file_that_cannot_be_read(tiny_run: Path, refuses: Any, content: Any) -> None:
    if content == "folder":
        Path("mine.yaml").mkdir()
    elif content:
        Path("mine.yaml").write_bytes(content)
    refuses("train-policy --config mine.yaml", 4, "mine.yaml")


@pytest.mark.parametrize(
    ("line", "said"),
    [("select-elites --n 4", "3 networks"), ("select-elites --members 0,3", "0 to 2")],
)
def test_more_elites_than_networks(tiny_run: Path, refuses: Any, line: str, said: str) -> None:
    refuses(line, 3, said)
