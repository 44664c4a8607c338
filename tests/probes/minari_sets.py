"""Datasets that the minari library writes, and the same steps as logged beside it."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.spaces import Box
from minari.data_collector import EpisodeBuffer

Step = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], float, np.ndarray[Any, Any], bool, bool]
"""observation, action, reward, next observation, terminated, truncated"""


def log(environment: gym.Env[Any, Any], episodes: int) -> list[list[Step]]:
    """Whole episodes of uniform random actions."""
    environment.action_space.seed(0)
    logged = []
    for seed in range(episodes):
        steps: list[Step] = []
        observation, _ = environment.reset(seed=seed)
        while not steps or not (steps[-1][4] or steps[-1][5]):
            action = environment.action_space.sample()
            following, reward, terminated, truncated, _ = environment.step(action)
            steps.append((observation, action, float(reward), following, terminated, truncated))
            observation = following
        logged.append(steps)
    return logged


def walk(episodes: int = 3, steps: int = 5, seed: int = 0) -> list[list[Step]]:
    """Steps of no environment: two-dimensional states, one-dimensional actions in [-1, 1], nothing marked."""
    rng = np.random.default_rng(seed)
    logged = []
    for _ in range(episodes):
        states = rng.normal(size=(steps + 1, 2))
        acts = rng.uniform(-1, 1, size=(steps, 1)).astype(np.float32)
        logged.append([(states[i], acts[i], float(i), states[i + 1], False, i == steps - 1) for i in range(steps)])
    return logged


def buffers(logged: list[list[Step]], infos: list[dict[str, Any]] | None = None) -> list[EpisodeBuffer]:
    """What minari takes for an episode: T+1 observations."""
    return [
        EpisodeBuffer(
            observations=[steps[0][0], *(step[3] for step in steps)],
            actions=[step[1] for step in steps],
            rewards=[step[2] for step in steps],
            terminations=[step[4] for step in steps],
            truncations=[step[5] for step in steps],
            infos=infos[k] if infos else None,
        )
        for k, steps in enumerate(logged)
    ]


def write(dataset_id: str, episodes: list[EpisodeBuffer], **more: Any) -> Path:
    """Let minari write a set, with spaces that fit `walk` where ``more`` names no environment; its data folder."""
    if "env" not in more:
        more = {"observation_space": Box(-9, 9, (2,), np.float64), "action_space": Box(-1, 1, (1,)), **more}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants an author, a permalink, ...
        return Path(minari.create_dataset_from_buffers(dataset_id, episodes, **more).spec.data_path)


def change_metadata(data: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a set's metadata in place."""
    path = data / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def change_spec(data: Path, spec: str = "env_spec", **fields: Any) -> None:
    """Edit the stored environment specification in place."""

    def change(metadata: dict[str, Any]) -> None:
        metadata[spec] = json.dumps({**json.loads(metadata[spec]), **fields})

    change_metadata(data, change)
