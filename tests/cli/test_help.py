"""Every setting is a flag with its default and source; help loads nothing that takes long."""

import re
import subprocess
import sys
from typing import Any

import pytest

from mopo_cli import __version__
from mopo_cli.agents.algorithms import NAMES, load
from mopo_cli.cli.fetch_data import EXAMPLES
from mopo_cli.cli.options import _PLACES
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


PRESETS = ("ls", "methods", "tables", "settings", "show")
# The panels of train-policy's help, and a setting in each.
PANELS = {
    "Settings": "--method",
    "What is learned from": "--real-ratio",
    "The penalty": "--penalty",
    "Schedule": "--epochs",
    "Networks": "--hidden",
    "Evaluation": "--eval-every",
    "Execution": "--run",
    "Other machines": "--on",
}
ALONE = ("run", "bench", "show", "report", "export", "export-logs", "job", "presets")
COMMANDS = (*DEFAULTS, *ALONE, *(f"presets {name}" for name in PRESETS))


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def help_lines(shell: Any, command: str, flag: str = "--help") -> dict[str, str]:
    """The help text of each flag of a command."""
    assert shell(f"{command} {flag}") == 0
    lines = re.finditer(r"^[│|]\s+--(\S+)\s+(.*?)\s*[│|]?$", shell.out, flags=re.MULTILINE)
    return {match[1]: match[2] for match in lines}


@pytest.mark.parametrize("command", DEFAULTS)
def test_every_setting_is_a_flag_with_its_default(shell: Any, command: str) -> None:
    lines = help_lines(shell, command, "--help-all")
    assert {field.replace("_", "-") for field in STAGES[command].model_fields} <= lines.keys()
    for entry in DEFAULTS[command].split(", "):
        flag, default = entry.replace(";", ",").split(" ")
        wanted = "(required" if default == "required" else f"(default {default}"
        assert re.search(re.escape(wanted) + r"[;)]", lines[flag]), (flag, lines[flag])
    assert "Examples:" in shell.out
    assert f"mopo {command}" in shell.out.split("Examples:")[1]


def test_help_all_has_the_settings_of_every_algorithm(shell: Any) -> None:
    lines = help_lines(shell, "train-policy", "--help-all")
    for algorithm in NAMES:
        fields = load(algorithm).settings.__dataclass_fields__
        added = {name: field.default for name, field in fields.items() if field.metadata}
        assert {name.replace("_", "-") for name in added} <= lines.keys()
        for name, default in added.items():
            number = f"{default:g}" if isinstance(default, float) else str(default)
            assert f"{algorithm}: default {number}" in lines[name.replace("_", "-")]


def test_panels_list_settings_that_there_are() -> None:
    assert _PLACES.keys() <= {name for stage in STAGES.values() for name in stage.model_fields}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short(shell: Any, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert shell(f"{command} --help") == 0
    assert len(shell.out.splitlines()) <= (105 if command == "ablate" else 95)


def test_examples_of_fetch_data_keep_their_comments(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert shell("fetch-data --help") == 0
    lines = [line.strip() for line in shell.out.split("Examples:")[1].splitlines()]
    commented = [example for example in EXAMPLES if "#" in example]
    assert commented and set(commented) <= set(lines)  # none is broken into two lines, or loses what stands in brackets


def test_help_of_train_policy_has_panels_and_says_how_to_see_the_rest(shell: Any) -> None:
    lines = help_lines(shell, "train-policy")
    assert "mopo presets settings" in lines["help-all"] and "beta" not in lines and "gamma" not in lines
    panels = {panel[1]: panel[2] for panel in re.finditer(r"╭─ (.*?) ─+╮\n(.*?)╰─", shell.out, flags=re.DOTALL)}
    assert panels.keys() == {"Options", *PANELS}
    for title, flag in PANELS.items():
        assert f" {flag} " in panels[title]


@pytest.mark.parametrize("line", ["train-policy --beta 3 --help", "train-policy --help --seeds x"])
def test_help_beside_other_flags_is_help(shell: Any, line: str) -> None:
    assert shell(line) == 0
    assert "Usage: mopo train-policy" in shell.out and shell.calls == []


@pytest.mark.parametrize("command", ["train-model", "train-policy", "ablate", "rollout"])
def test_what_help_does_not_show_is_a_flag_all_the_same(shell: Any, command: str) -> None:
    hidden = help_lines(shell, command, "--help-all").keys() - help_lines(shell, command)
    assert hidden
    for flag in hidden:
        assert shell(f"{command} --{flag} , --dataset hopper-medium") == 2, flag
        assert f"--{flag}" in shell.err and "No such option" not in shell.err


@pytest.mark.parametrize("command", [command for command in DEFAULTS if command != "fetch-data"])
def test_every_stage_can_be_told_how_to_execute(shell: Any, command: str) -> None:
    assert set(EXECUTION) <= help_lines(shell, command).keys()


def test_only_what_trains_has_an_engine(shell: Any) -> None:
    have = {command for command in (*DEFAULTS, "run", "bench") if "engine" in help_lines(shell, command)}
    assert have == {"train-model", "train-policy", "ablate", "run", "bench"}


def test_only_what_trains_sends_metrics_elsewhere(shell: Any) -> None:
    flags = {command: help_lines(shell, command) for command in (*DEFAULTS, "run", "bench")}
    assert {command for command in flags if "log" in flags[command]} == {"train-model", "train-policy", "ablate", "run"}
    assert flags["run"]["log"].endswith("tensorboard, trackio, wandb, mlflow")


def test_help_names_sources_and_choices(shell: Any) -> None:
    lines = help_lines(shell, "train-policy")
    assert "MOPO App. G.2" in lines["real-ratio"]
    others = [name for name in (*PENALTIES, "oracle", "none") if name != "max-var"]
    assert f"default max-var; or {', '.join(others)}; MOPO §4.3, App. D" in lines["penalty"]


def test_mopo_alone_lists_its_commands(shell: Any) -> None:
    assert shell("") == 0
    for command in (*DEFAULTS, "run", "presets", "show", "report", "export-logs", "job", "bench"):
        assert re.search(rf"\b{command}\b", shell.out)
    assert shell("--help") == 0


def test_version(shell: Any) -> None:
    assert shell("--version") == 0
    assert shell.out == f"mopo {__version__}\n"


def test_help_loads_nothing_heavy() -> None:
    lines = ["--help", *(f"{command} --help" for command in COMMANDS), "presets ls", "presets methods"]
    script = (
        "import sys\n"
        "from mopo_cli.__main__ import main\n"
        "heavy = {'torch', 'numpy', 'gymnasium', 'mujoco', 'minari', 'h5py', 'matplotlib', 'pyarrow', 'scipy'}\n"
        "heavy |= {'tensorboard', 'trackio', 'wandb', 'mlflow'}\n"
        "for line in sys.argv[1:]:\n"
        "    assert main(line.split()) == 0, line\n"
        "    assert not heavy & set(sys.modules), (line, heavy & set(sys.modules))\n"
    )
    subprocess.run([sys.executable, "-c", script, *lines], check=True, stdout=subprocess.DEVNULL)
