"""Logs of which the truth is known in all layouts that need no map: episodes apart, padded, or as lists in cells."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from faults.table_files import save, write_arrays
from faults.tables import Case
from faults.truth import Log, pieces_of, simulate

Episode = dict[str, Any]
"""Arrays: obs `[n, O]`, or `[n + 1, O]` with the last state, action `[n, A]`, reward and done `[n]`."""
LAYOUTS = ("rows", "groups", "numbered", "padded", "lists", "episode lines", "cells", "lines", "batches")


def make_layout(chance: np.random.Generator, folder: Path, layout: str) -> Case:
    """A log in that layout, in a file inside the folder."""
    folder.mkdir()
    log = simulate(chance, 4, [1.0] * int(chance.integers(2, 5)), quantity=False)
    apart = layout in ("groups", "numbered", "padded", "lists", "episode lines")
    longer = bool(apart and chance.random() < 0.4)
    has_next = not longer and bool(chance.random() < 0.4)
    has_done = layout in ("rows", "batches", "lines") or bool(chance.random() < 0.6)
    log.weights, log.terms = [1.0], log.terms[:, :1]
    episodes = [
        _episode(log, np.flatnonzero(log.episode == e), longer, has_next, has_done) for e in np.unique(log.episode)
    ]
    ending = {"lists": ".parquet", "cells": ".parquet", "groups": ".h5", "rows": None, "numbered": None, "padded": None}
    path = folder / f"log{ending.get(layout, '.jsonl') or chance.choice(['.npz', '.h5'])}"
    if layout in ("lists", "cells"):
        _write_parquet(path, episodes, layout)
    elif path.suffix == ".jsonl":
        _write_lines(path, episodes, layout)
    else:
        write_arrays(path, _arrays(chance, episodes, layout))
    shown = {"lists": "lists", "episode lines": "lists", "cells": "table", "batches": "rllib"}.get(layout, layout)
    return Case(
        [path],
        None,
        "refuse",
        pieces_of(log, has_next or longer, False, "refuse", has_done),
        ways=[f"layout {layout}"],
        layout=shown,
    )


def _episode(log: Log, rows: Any, longer: bool, has_next: bool, has_done: bool) -> Episode:
    last = log.following[rows[-1:]]
    episode = {
        "obs": np.concatenate([log.obs[rows], last]) if longer else log.obs[rows],
        "action": log.action[rows],
        "reward": log.terms[rows, 0],
    }
    return (
        episode
        | ({"next": log.following[rows]} if has_next else {})
        | ({"done": log.terminal[rows]} if has_done else {})
    )


def _together(episodes: list[Episode]) -> Episode:
    """The rows of all, with the number of their episode."""
    rows = {name: np.concatenate([episode[name] for episode in episodes]) for name in episodes[0]}
    return rows | {"number": np.repeat(np.arange(len(episodes)), [len(episode["reward"]) for episode in episodes])}


def _arrays(chance: np.random.Generator, episodes: list[Episode], layout: str) -> dict[str, Any]:
    if layout == "rows":
        return _rows(chance, _together(episodes))
    if layout == "padded":
        return _padded(chance, episodes)
    arrays: dict[str, Any] = {}
    once = chance.random() < 0.5
    for number, episode in enumerate(episodes):
        named: dict[str, Any] = {}
        if layout == "groups":
            named["obs/arm"] = episode["obs"][:, :1]
            named["obs/object"] = episode["obs"][:, 1:]
            if "next" in episode:
                named["next_obs/arm"] = episode["next"][:, :1]
                named["next_obs/object"] = episode["next"][:, 1:]
        else:
            named["observations"] = episode["obs"]
            if "next" in episode:
                named["next_observations"] = episode["next"]
        named["actions"] = episode["action"]
        named["rewards"] = episode["reward"] if layout == "groups" else episode["reward"][:, None]
        if "done" in episode:
            named["terminated" if layout == "numbered" else "dones"] = episode["done"][-1] if once else episode["done"]
        arrays |= {
            f"data/demo_{number}/{name}" if layout == "groups" else f"{name}_{number}": array
            for name, array in named.items()
        }
    return arrays


def _rows(chance: np.random.Generator, rows: Episode) -> dict[str, Any]:
    last = np.diff(rows["number"], append=-1) != 0
    arrays = {
        "observations": rows["obs"],
        "actions": rows["action"],
        "rewards": rows["reward"],
        "terminals": rows["done"],
    }
    if "next" in rows:
        arrays["next_observations"] = rows["next"]
    if chance.random() < 0.5:
        return arrays | {"timeouts": (last & ~rows["done"]).astype(np.uint8)}
    if chance.random() < 0.5:
        return arrays | {"episode_terminals": last}
    return arrays | {"episode": np.array([f"run {number}" for number in rows["number"]])}


def _padded(chance: np.random.Generator, episodes: list[Episode]) -> dict[str, Any]:
    lengths = np.array([len(episode["reward"]) for episode in episodes])
    fill = float(chance.choice([0.0, 7.0, np.nan]))

    def pad(name: str, filler: Any) -> Any:
        longest = max(len(episode[name]) for episode in episodes)
        first = episodes[0][name]
        padded = np.full((len(episodes), longest, *first.shape[1:]), filler, first.dtype)
        for i, episode in enumerate(episodes):
            padded[i, : len(episode[name])] = episode[name]
        return padded

    arrays = {"observations": pad("obs", fill), "actions": pad("action", fill), "rewards": pad("reward", fill)}
    if "next" in episodes[0]:
        arrays["next_observations"] = pad("next", fill)
    if "done" in episodes[0]:
        arrays["terminals"] = pad("done", False)
    if chance.random() < 0.5:
        return arrays | {"lengths": lengths}
    return arrays | {"mask": np.arange(lengths.max()) < lengths[:, None]}


def _write_parquet(path: Path, episodes: list[Episode], layout: str) -> None:
    if layout == "lists":
        names = {
            "obs": "observations",
            "action": "actions",
            "reward": "rewards",
            "next": "next_observations",
            "done": "terminals",
        }
        columns = {names[name]: [episode[name].tolist() for episode in episodes] for name in episodes[0]}
    else:
        rows = _together(episodes)
        names = {
            "obs": "observation.state",
            "action": "action",
            "reward": "next.reward",
            "next": "next_observation",
            "done": "next.done",
            "number": "episode_index",
        }
        columns = {names[name]: column.tolist() for name, column in rows.items()} | {
            "frame": list(range(len(rows["reward"])))
        }
    pq.write_table(pa.table(columns), path)


def _write_lines(path: Path, episodes: list[Episode], layout: str) -> None:
    usual = {"obs": "obs", "action": "action", "reward": "reward", "next": "next_obs", "done": "terminated"}
    plural = {
        "obs": "obs",
        "action": "actions",
        "reward": "rewards",
        "next": "new_obs",
        "done": "terminateds",
        "number": "eps_id",
    }
    if layout == "episode lines":
        lines = [{usual[name]: array.tolist() for name, array in episode.items()} for episode in episodes]
    elif layout == "lines":
        rows = _together(episodes)
        names = usual | {"number": "episode"}
        lines = [{names[name]: column[i].tolist() for name, column in rows.items()} for i in range(len(rows["reward"]))]
    else:
        rows = _together(episodes)
        bounds = [*range(0, len(rows["reward"]), 20), len(rows["reward"])]
        lines = [
            {"type": "SampleBatch"} | {plural[name]: column[a:b].tolist() for name, column in rows.items()}
            for a, b in itertools.pairwise(bounds)
        ]
    save(path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
