"""Every setting is a flag with its default and source; help loads nothing that takes long."""

import re
import subprocess
import sys
from typing import Any

import pytest

from mopo_cli import __version__
from mopo_cli.config.schema import STAGES
from mopo_cli.dynamics.penalties import PENALTIES

# Defaults as one writes them, for every field of the contract (a second time, by hand).
DEFAULTS = {
    "fetch-data": "dataset required, env none, transitions 100000, seed 0",
    "train-model": "networks 7, hidden 200, layers 4, batch-size 256, learning-rate 0.001, "
    "weight-decay 2.5e-05;5e-05;7.5e-05;7.5e-05;0.0001, holdout-fraction 0.2, holdout-max 1000, patience 5, "
    "min-gain 0.01, max-epochs none, seeds 1, seed-list none",
    "select-elites": "n 5, metric mse, networks none",
    "rollout": "h 5, batch 50000, actions uniform, name none, seed 0",
    "train-policy": "penalty max-var, lam 1, h 5, epochs 1000, steps-per-epoch 1000, seeds 1, "
    "seed-list none, rollouts fresh, rollout-actions policy, rollout-batch 50000, rollout-every 1000, pool-epochs 5, "
    "real-ratio 0.05, batch-size 256, hidden 256, layers 2, actor-lr 0.0003, "
    "critic-lr 0.0003, alpha-lr 0.0003, gamma 0.99, tau 0.005, "
    "target-entropy none, alpha-max 1, log-std-min -5, log-std-max 2, eval-every 1, eval-episodes 10, "
    "name none",
    "evaluate": "episodes 10, policy none, seed 0",
    "ablate": "penalty max-var;none, lam 1, h 5, epochs 1000, seeds 1, real-ratio 0.05, name none",
}
EXECUTION = ("run", "dataset", "preset", "config", "device", "threads", "force", "allow-mismatch", "json")


def help_lines(shell: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> dict[str, str]:
    """The help text of each flag of a command."""
    monkeypatch.setenv("COLUMNS", "300")
    assert shell(f"{command} --help") == 0
    found = re.finditer(r"^[│|]\s+--(\S+)\s+(.*?)\s*[│|]?$", shell.out, flags=re.MULTILINE)
    return {match[1]: match[2] for match in found}


@pytest.mark.parametrize("command", DEFAULTS)
def test_every_setting_is_a_flag_with_its_default(shell: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    lines = help_lines(shell, monkeypatch, command)
    assert {field.replace("_", "-") for field in STAGES[command].model_fields} <= lines.keys()
    for entry in DEFAULTS[command].split(", "):
        flag, default = entry.replace(";", ",").split(" ")
        wanted = "(required" if default == "required" else f"(default {default}"
        assert re.search(re.escape(wanted) + r"[;)]", lines[flag]), (flag, lines[flag])
    assert "Examples:" in shell.out
    assert f"mopo {command}" in shell.out.split("Examples:")[1]


@pytest.mark.parametrize("command", [command for command in DEFAULTS if command != "fetch-data"])
def test_every_stage_can_be_told_how_to_execute(shell: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    assert set(EXECUTION) <= help_lines(shell, monkeypatch, command).keys()


def test_only_what_trains_has_an_engine(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    have = {command for command in (*DEFAULTS, "run", "bench") if "engine" in help_lines(shell, monkeypatch, command)}
    assert have == {"train-model", "train-policy", "ablate", "run", "bench"}


def test_help_names_sources_and_choices(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = help_lines(shell, monkeypatch, "train-policy")
    assert "MOPO App. G.2" in lines["real-ratio"]
    assert "|".join((*PENALTIES, "oracle", "none")) in lines["penalty"]


def test_mopo_alone_lists_its_commands(shell: Any) -> None:
    assert shell("") == 0
    for command in (*DEFAULTS, "run", "presets", "show", "bench"):
        assert re.search(rf"\b{command}\b", shell.out)
    assert shell("--help") == 0


def test_version(shell: Any) -> None:
    assert shell("--version") == 0
    assert shell.out == f"mopo {__version__}\n"


@pytest.mark.parametrize("line", ["--help", "rollout --help", "presets ls"])
def test_help_loads_nothing_heavy(line: str) -> None:
    script = (
        "import sys\n"
        "from mopo_cli.__main__ import main\n"
        f"assert main({line.split()!r}) == 0\n"
        "heavy = {'torch', 'numpy', 'gymnasium', 'mujoco', 'minari', 'h5py', 'matplotlib', 'pyarrow', 'scipy'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
