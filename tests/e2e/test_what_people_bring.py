"""Logs of the kinds that people bring, each made here, from the command line to the transitions or the refusal."""

import csv
import datetime
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pyarrow as pa
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from pyarrow import parquet

from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Episode:
    """Rows of three decimals, so that text holds them to the bit: `states` `[T, 2]`, `actions` `[T, 1]`, `rewards`."""

    states: Floats
    actions: Floats
    rewards: Floats

    def __getitem__(self, rows: slice) -> "Episode":
        return Episode(self.states[rows], self.actions[rows], self.rewards[rows])

    @property
    def last(self) -> NDArray[np.bool_]:
        return np.arange(len(self.states)) == len(self.states) - 1


@dataclass(frozen=True)
class Fetched:
    """What a command made, printed as JSON and said on stderr."""

    data: Transitions
    info: DatasetInfo
    summary: dict[str, Any]
    err: str


Fetch = Callable[..., Fetched]


@pytest.fixture
def fetch(mopo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """Fetches in an empty folder: a line, and the column map where names have spaces."""
    monkeypatch.chdir(tmp_path)

    def run(line: str, **columns: str | list[str]) -> Fetched:
        if columns:
            Path("map.yaml").write_text(json.dumps(columns))  # JSON is YAML
            line += " --columns map.yaml"
        outcome = mopo(f"fetch-data --json --dataset {line}")
        assert outcome.code == 0, outcome.err
        summary = json.loads(outcome.out)
        return Fetched(*read_dataset(Path(summary["outputs"]["dataset"])), summary, outcome.err)

    return run


def episodes(*lengths: int) -> list[Episode]:
    """Walks from a random start."""
    draw, made = np.random.default_rng(0), []
    for rows in lengths:
        states = draw.normal(size=2) + 0.1 * draw.normal(size=(rows, 2)).cumsum(axis=0)
        parts = states, draw.uniform(-0.9, 0.9, (rows, 1)), draw.normal(size=rows)
        made.append(Episode(*(part.round(3).astype(np.float32) for part in parts)))
    return made


def joined(parts: Sequence[Episode]) -> Episode:
    return Episode(*(np.concatenate([getattr(e, name) for e in parts]) for name in ("states", "actions", "rewards")))


def cells(episode: Episode, row: int) -> list[str]:
    numbers = [*episode.states[row], *episode.actions[row], episode.rewards[row]]
    return [f"{number:.3f}" for number in numbers]


def write(
    path: str, heading: str, rows: Iterable[Sequence[Any]], separator: str = ",", encoding: str = "utf-8"
) -> None:
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows([heading.split(","), *rows])


def check_rows(data: Transitions, parts: Sequence[Episode], terminal: Sequence[bool] | None = None) -> None:
    """Next states are the next row's: the last row of an episode is there only where the task ends in it."""
    terminal = terminal or [False] * len(parts)
    kept = [e if end else e[:-1] for e, end in zip(parts, terminal, strict=True)]
    whole, last = joined(kept), np.cumsum([len(e.states) for e in kept]) - 1
    np.testing.assert_array_equal(data.observations, whole.states)
    np.testing.assert_array_equal(data.actions, whole.actions)
    np.testing.assert_array_equal(data.rewards, whole.rewards)
    assert np.flatnonzero(data.terminals).tolist() == last[np.array(terminal)].tolist()
    assert np.flatnonzero(data.timeouts).tolist() == last[~np.array(terminal)].tolist()
    following = np.delete(data.next_observations, last[np.array(terminal)], axis=0)
    np.testing.assert_array_equal(following, joined([e[1:] for e in parts]).states)


def vector_log(mode: AutoresetMode, final: bool) -> dict[str, Any]:
    """Steps of one copy, as people append them; `final` takes the true last observation of an episode."""
    environment = SyncVectorEnv([lambda: gym.make("InvertedPendulum-v5")], autoreset_mode=mode)
    state, _ = environment.reset(seed=0)
    environment.action_space.seed(0)
    steps = []
    for _ in range(120):
        action = 0.3 * environment.action_space.sample()
        following, reward, terminal, timeout, info = environment.step(action)
        after = info["final_obs"] if final and terminal[0] else following
        steps.append((state[0], action[0], reward[0], after[0], terminal[0], timeout[0]))
        state = following
    environment.close()
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts")
    return dict(zip(names, map(np.array, zip(*steps, strict=True)), strict=True))


@pytest.mark.parametrize("environment", ["", " --env InvertedPendulum-v5"])
def test_logs_of_a_vector_environment(fetch: Fetch, refuses: Any, environment: str) -> None:
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP):
        log = vector_log(mode, final=False)
        np.savez("log.npz", allow_pickle=False, **log)
        ends = int(log["terminals"][:-1].sum())
        said = f"equals the next row's observations in {ends} of {ends} rows that terminals marks as ends"
        refuses(f"fetch-data --dataset ./log.npz{environment}", 4, said)
    log = vector_log(AutoresetMode.SAME_STEP, final=True)
    np.savez("right.npz", allow_pickle=False, **log)
    fetched = fetch(f"./right.npz{environment}")
    np.testing.assert_array_equal(fetched.data.next_observations, log["next_observations"].astype(np.float32))
    assert fetched.summary["episodes"] == log["terminals"].sum() + (not log["terminals"][-1])


@pytest.mark.parametrize("lengths", [(40, 55, 37, 48), (50, 50, 50, 50)])
def test_demonstrations_of_robomimic(fetch: Fetch, refuses: Any, lengths: tuple[int, ...]) -> None:
    walks = episodes(*lengths)
    with h5py.File("demos.hdf5", "w") as file:
        for i, walk in enumerate(walks):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"], demo["rewards"] = walk.actions, walk.rewards
            demo["dones"] = walk.last.astype(np.int32)
            demo["obs/robot0_eef_pos"], demo["obs/object"] = walk.states[:, :1], walk.states[:, 1:]
    inside = "obs=obs/robot0_eef_pos+obs/object,action=actions,reward=rewards,terminal=dones"
    fetched = fetch(f"./demos.hdf5 --columns {inside}")
    check_rows(fetched.data, walks, [True] * 4)
    assert (fetched.summary["episodes"], fetched.data.obs_dim, fetched.data.act_dim) == (4, 2, 1)
    star = "obs=data/*/obs/robot0_eef_pos+data/*/obs/object,action=data/*/actions,reward=data/*/rewards"
    refuses(f"fetch-data --dataset ./demos.hdf5 --columns {star}", 4, "(did you mean 'obs/robot0_eef_pos'?)")


def test_both_files_of_d3rlpy(fetch: Fetch) -> None:
    walks, terminal = episodes(30, 20, 35, 25), [True, False, True, False]
    whole, ends = joined(walks), np.concatenate([e.last for e in walks])
    with h5py.File("v1.h5", "w") as file:
        file["observations"], file["actions"], file["rewards"] = whole.states, whole.actions, whole.rewards[:, None]
        file["episode_terminals"] = ends.astype(np.float32)[:, None]
        file["terminals"] = np.concatenate([e.last * end for e, end in zip(walks, terminal, strict=True)])
        file["discrete_action"], file["version"] = False, "1.0"
    with h5py.File("v2.h5", "w") as file:
        for i, walk in enumerate(walks):
            file[f"observations_{i}"], file[f"actions_{i}"] = walk.states, walk.actions
            file[f"rewards_{i}"], file[f"terminated_{i}"] = walk.rewards[:, None], terminal[i]
        file["columns"], file["num_episodes"], file["version"] = ["observations", "actions"], 4, "2.1"
    for name in ("v1.h5", "v2.h5"):
        fetched = fetch(f"./{name}")
        check_rows(fetched.data, walks, terminal)
        assert (fetched.summary["episodes"], fetched.summary["terminals"], fetched.summary["timeouts"]) == (4, 2, 2)


def test_frames_of_lerobot(fetch: Fetch) -> None:
    walks = episodes(45, 50, 40)
    whole, done = joined(walks), np.concatenate([e.last for e in walks])
    frames = {
        "observation.state": pa.array(list(whole.states), pa.list_(pa.float32(), 2)),
        "action": pa.array(list(whole.actions), pa.list_(pa.float32(), 1)),
        "next.reward": whole.rewards,
        "next.done": done,
        "episode_index": np.repeat(np.arange(3), [len(e.states) for e in walks]),
    }
    parquet.write_table(pa.table(frames), "episodes.parquet")
    named = "--columns obs=observation.state,action=action,reward=next.reward,episode=episode_index"
    check_rows(fetch(f"./episodes.parquet {named}").data, walks)
    check_rows(fetch("./episodes.parquet").data, walks, [True] * 3)
    # A reward of 1 in the last frame, and nothing that says that the task ends there.
    parquet.write_table(pa.table(frames | {"next.reward": done.astype(np.float32)}), "sparse.parquet")
    sparse = fetch(f"./sparse.parquet {named}")
    assert (sparse.summary["return_mean"], sparse.summary["return_max"], sparse.summary["transitions"]) == (1, 1, 135)
    assert "3 rows at the end of episodes (first row 44) hold 100 % of all reward" in sparse.err


@pytest.mark.parametrize(("encoding", "comma"), [("utf-8-sig", ","), ("latin-1", ","), ("utf-8-sig", ".")])
def test_an_export_of_a_plant(fetch: Fetch, encoding: str, comma: str) -> None:
    walks, rows, time = episodes(14, 14, 14), [], datetime.datetime(2024, 3, 1, 6)
    for batch, walk in enumerate(walks):
        for t in range(14):
            numbers = [cell.replace(".", comma) for cell in cells(walk, t)]
            rows.append([f"{time:%d.%m.%Y %H:%M}", f"2024-{batch:03}", *numbers])
            time += datetime.timedelta(minutes=180 if t == 5 else 5)
    write("log.csv", "Zeit,Charge,Temp (°C),Durchfluss [m³/h],Ventil %,Ausbeute", rows, ";", encoding)
    named: Any = {"obs": ["Temp (°C)", "Durchfluss [m³/h]"], "action": "Ventil %", "reward": "Ausbeute"}
    check_rows(fetch("./log.csv", **named, episode="Charge").data, walks)
    timed = fetch("./log.csv", **named, episode="Charge", step="Zeit")
    check_rows(timed.data, [part for e in walks for part in (e[:6], e[6:])])
    assert "3 gaps in Zeit, where more than one step of 300 passes (the first after row 5:" in timed.err


def test_a_table_of_patients(fetch: Fetch, refuses: Any) -> None:
    stays, draw = episodes(*range(8, 20)), np.random.default_rng(1)
    died = [s % 4 == 0 for s in range(12)]
    rows, time = [], datetime.datetime(2130, 1, 1)
    for stay, walk in enumerate(stays):
        for t, last in enumerate(walk.last):
            outcome = (-15 if died[stay] else 15) * last
            rows.append([stay, time, "FM"[stay % 2], *cells(walk, t)[:3], outcome, int(died[stay] and last)])
            time += datetime.timedelta(hours=int(draw.choice([1, 2, 4, 9])))
    heading = "stay,time,sex,rate,lactate,fluid,reward,died"
    write("icu.csv", heading, rows)
    columns = "--columns obs=rate+lactate,action=fluid,reward=reward,episode=stay"
    for named in (columns, f"{columns},terminal=died"):
        fetched = fetch(f"./icu.csv {named}")
        assert (fetched.summary["transitions"], fetched.summary["return_mean"]) == (len(rows), 7.5)
        assert (fetched.summary["episodes"], fetched.summary["terminals"]) == (12, 12)
    assert "9 rows at the end of episodes (first row 16) hold 75 % of all reward" in fetched.err
    sexes = fetch(f"./icu.csv {columns.replace('obs=', 'obs=sex:onehot+')}").data
    assert sexes.observations[:, 0].tolist() == [row[2] == "F" for row in rows]
    for more, said in (("sex", "--columns obs=sex:onehot"), ("time", "give a number, or leave the column out")):
        refuses(f"fetch-data --dataset ./icu.csv {columns.replace('obs=', f'obs={more}+')}", 4, said)
    for row in (2, 3, 30):
        rows[row][4] = ""
    write("gaps.csv", heading, rows)
    refuses(f"fetch-data --dataset ./gaps.csv {columns}", 4, "lactate, row 2: the cell is empty (3 in this column)")
    filled = fetch(f"./gaps.csv {columns} --missing fill-forward").data.observations[:, 1]
    assert filled[2] == filled[3] == filled[1] and filled[30] == filled[29]


def test_logs_of_several_workers(fetch: Fetch, refuses: Any) -> None:
    walks, heading = episodes(*[25] * 6), "episode,t,obs_0,obs_1,action_0,reward"
    both = [[i % 3, t, *cells(walk, t)] for i, walk in enumerate(walks) for t in range(25)]
    Path("logs").mkdir()
    for worker in range(2):
        write(f"logs/worker_{worker}.csv", heading, both[75 * worker :][:75])
    write("joined.csv", heading, both)
    write("one.csv", heading, [[0, *row[1:]] for row in both])
    turns = [[i % 2, t, *cells(walks[i], t)] for t in range(25) for i in range(2)]
    write("turns.csv", heading, turns)
    write("text.csv", heading, sorted(turns, key=lambda row: (row[0], str(row[1]))))
    write("mixed.csv", heading, [[0, *row[1:]] for row in turns])
    stepped = "--columns obs=obs_0+obs_1,action=action_0,reward=reward,episode=episode,step=t"
    for line in ("./logs", "./logs/worker_*.csv", f"./joined.csv {stepped}", f"./one.csv {stepped}"):
        check_rows(fetch(line).data, walks)
    for name in ("turns", "text"):
        check_rows(fetch(f"./{name}.csv {stepped}").data, walks[:2])
    for name, row in (("joined", 75), ("turns", 2)):
        refuses(f"fetch-data --dataset ./{name}.csv", 4, f"row {row} continues an episode that ended before")
    refuses(f"fetch-data --dataset ./mixed.csv {stepped}", 4, "rows 0 and 1 differ, but both are t 0 of one episode")
    refuses("fetch-data --dataset ./logs/worker_0.csv,./logs/worker_1.csv", 4, "--dataset './logs/*.csv'")
    # Where no map names the step, its column tells that something is amiss.
    for name, count in (("one", "5 of 149 steps, first from row 24"), ("mixed", "25 of 49 steps, first from row 0")):
        assert f"column t does not rise within episodes in {count}" in fetch(f"./{name}.csv").err
    assert "column t" not in fetch("./logs").err


def test_known_rewards_and_ends(fetch: Fetch, refuses: Any) -> None:
    walks = episodes(20, 30)
    rows = [[b, *cells(e, t)] for b, e in enumerate(walks) for t in range(len(e.last))]
    write("dosing.csv", "run,temp,angle,heater,reward", rows)
    columns = "--columns obs=temp+angle,action=heater,reward=-reward,episode=run"
    by_hand = fetch(f"./dosing.csv {columns} --reward -abs(obs[0]-1)-2*abs(angle)+heater --termination abs(angle)>0.8")
    rest = joined([e[:-1] for e in walks])
    expected = -abs(rest.states[:, 0] - 1) - 2 * abs(rest.states[:, 1]) + rest.actions[:, 0]
    np.testing.assert_allclose(by_hand.data.rewards, expected, rtol=1e-6, atol=1e-6)
    assert by_hand.info.termination == "abs(obs[1]) > 0.8"
    logged = fetch(f"./dosing.csv {columns} --termination step>40")
    np.testing.assert_array_equal(logged.data.rewards, -rest.rewards)
    line = f"fetch-data --dataset ./dosing.csv {columns}"
    refuses(f"{line} --relabel -abs(obs[0]-1)", 4, "Try: --reward '-abs(obs[0]-1)'")
    refuses(f"{line} --termination rules.py:stop", 4, "cannot be read: ':stop' (character 9) is not allowed there")
    both = "--columns uses column reward for observations and rewards: to use it again, copy it under another name"
    refuses(line.replace("temp", "temp+reward"), 2, both)
