"""What the steps of `gpu.check` work on: sizes, random data of hopper's shapes, and the command line."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from gpu.check import Check, Failed
from probes.gpu import record

from mopo_cli.__main__ import main as mopo_main
from mopo_cli.bench.workloads import Shapes
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.engine.capture import Recorder, cuda_graph

HOPPER = Shapes(obs_dim=11, act_dim=3, rows=200_000)
QUICK = """\
fetch-data: {transitions: 500}
train-model: {networks: 2, hidden: 16, layers: 1, weight-decay: [1e-5, 1e-5]}
select-elites: {n: 2}
rollout: {h: 2, batch: 100}
train-policy: {h: 2, epochs: 2, steps-per-epoch: 20, rollout-every: 20, rollout-batch: 100, hidden: 16,
  batch-size: 16, eval-episodes: 1, eval-every: 0}
evaluate: {episodes: 1}
"""
LENGTH = 100  # steps of an episode


def recorder_of(check: Check) -> Recorder:
    """What records steps on the device."""
    return cuda_graph if check.device == "cuda" else record


def run_mopo(check: Check, line: str) -> None:
    """Run a command line of mopo in this process; Failed where it fails."""
    threads = ["--threads", "1"] if check.device == "cpu" else []
    print(f"$ mopo {line}", flush=True)
    code = mopo_main([*line.split(), "--device", check.device, *threads])
    if code:
        raise Failed(f"mopo {line} ended with {code}")


def sizes_file(check: Check) -> Path:
    """A file of settings."""
    path = check.folder / "sizes.yaml"
    path.write_text(QUICK if check.quick else "train-policy: {h: 5}\n")
    return path


def shapes_of(check: Check) -> Shapes:
    """Widths and rows of the data."""
    return replace(HOPPER, rows=1000) if check.quick else HOPPER


def settings_of(check: Check) -> tuple[TrainModel, TrainPolicy]:
    """The settings of that file."""
    file = sizes_file(check)
    return resolve(TrainModel, config_file=file).settings, resolve(TrainPolicy, config_file=file).settings


def random_data(check: Check, run: str = "runs/hopper", shapes: Shapes | None = None) -> None:
    """A run with random episodes of a hundred steps that a linear system makes."""
    shapes, draw = shapes or shapes_of(check), np.random.default_rng(0)
    path = check.folder / f"random-{shapes.rows}.h5"
    states = draw.normal(size=(LENGTH + 1, shapes.rows // LENGTH, shapes.obs_dim)).astype(np.float32)
    actions = draw.uniform(-1, 1, size=(*states[:-1].shape[:2], shapes.act_dim)).astype(np.float32)
    effect = draw.normal(size=(shapes.act_dim, shapes.obs_dim)).astype(np.float32)
    for step, action in enumerate(actions):
        states[step + 1] = 0.9 * states[step] + 0.3 * action @ effect
    observation, action, following = (
        part.swapaxes(0, 1).reshape(-1, part.shape[-1]) for part in (states[:-1], actions, states[1:])
    )
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"], file["rewards"] = observation, action, following[:, 0]
        file["next_observations"], file["terminals"] = following, np.zeros(len(action), bool)
        file["timeouts"] = np.arange(len(action)) % LENGTH == LENGTH - 1
    run_mopo(check, f"fetch-data --dataset {path} --run {run}")
