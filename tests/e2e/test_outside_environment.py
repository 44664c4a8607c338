"""An environment of a module that nobody installed, from a file to an evaluated policy, each command a process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from conftest import TINY
from probes.forks import Process, ended, forked
from probes.outside import tank_module

from mopo_cli.__main__ import main
from mopo_cli.data.transition_files import read_dataset

COMMAND = (
    "import sys; from mopo_cli.__main__ import main; sys.exit(main())"  # as installed: not in the working directory
)
PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def mopo_in(folder: Path, *words: str) -> Any:
    """What a command says whose process knows nothing of the module."""
    return answer(forked(lambda: main([*words, "--json"]), cwd=folder, **PIPES))


def fresh_mopo_in(folder: Path, *words: str) -> Any:
    """As `mopo_in`, by an interpreter that starts."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", COMMAND, *words, "--json"]
    return answer(subprocess.Popen(command, cwd=folder, env=environment, text=True, **PIPES))


def answer(process: Process) -> Any:
    outcome = ended(process)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_from_a_file_to_an_evaluation_in_fresh_processes(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    rng = np.random.default_rng(0)
    states = rng.normal(size=(81, 6)).astype("f4")
    columns = {"level": states[:, 5:], "goal": states[:, 1:5], "low": states[:, :1]}
    rows = {name: column[:-1] for name, column in columns.items()}
    rows |= {f"next_{name}": column[1:] for name, column in columns.items()}
    renamed = {"level": "upper", "goal": "more/goal", "low": "more/lower"}
    rows = {renamed.get(name, name): column for name, column in rows.items()}
    ends = np.arange(80) % 10 == 9
    actions = rng.uniform(0, 5, (80, 1)).astype("f4")
    with tank_module(tmp_path):
        np.savez(tmp_path / "tank.npz", **rows, a=actions, r=-np.ones(80, "f4"), end=ends, dead=np.zeros(80, bool))  # type: ignore[arg-type]
        names = "obs=more/goal+upper+more/lower,next_obs=next_goal+next_level+next_low"
        fetched = mopo_in(
            tmp_path,
            *("fetch-data", "--dataset", "./tank.npz", "--env", "tank_env:DictTank", "--run", "run"),
            *("--env-kwargs", '{"level": 3.0}', "--columns", f"{names},action=a,reward=r,timeout=end,terminal=dead"),
        )
        assert fetched["env_id"] == "tank_env:DictTank-v0"
        _, info = read_dataset(Path(fetched["outputs"]["dataset"]))
        assert (info.env_id, info.env_kwargs) == ("tank_env:DictTank-v0", {"level": 3.0})
        assert info.obs_entries == ("more/goal", "upper", "more/lower")  # as the columns that have their names
        assert (info.action_low.tolist(), info.action_high.tolist()) == ([0.0], [5.0])
        assert json.loads((tmp_path / "run/run.json").read_text())["stages"]["fetch-data"]["settings"]["env_kwargs"]
        tiny = ("--run", "run", "--config", "tiny.yaml", "--threads", "1")
        for stage in ("train-model", "select-elites"):
            mopo_in(tmp_path, stage, *tiny)
        fresh_mopo_in(tmp_path, "train-policy", *tiny)  # and the process beside it that plays
        evaluated = mopo_in(tmp_path, "evaluate", *tiny)
    assert evaluated["environment"] == "tank_env:DictTank-v0"
    # Ten steps at distance |x - 3|, x between 0 and 3: made with the level that was given.
    assert -30 <= evaluated["return_mean"] <= -5
