"""Logs that used to be read without a word as something else than they say."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mopo_cli.data.checks import UnusableData
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.missing import Remedy
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import InputError


def load(path: Path, columns: str | None, missing: Remedy = "refuse") -> tuple[Transitions, DatasetInfo]:
    return load_local([path], None, ["0" * 64], Reading(columns, missing=missing))


def table(folder: Path, **columns: Any) -> Path:
    """A CSV file of these columns; those that are not given are 40 rows of something."""
    wave = [round(float(np.sin(i)), 3) for i in range(40)]
    columns = {"x": list(range(40)), "a": wave, "r": [1] * 40} | columns
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    path = folder / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def marked(*rows: int) -> list[int]:
    return [int(i in rows) for i in range(40)]


def following(*ends: int) -> list[float]:
    """The next observations of x = 0, 1, ..., where episodes end in these rows."""
    return [i + (0.5 if i in ends else 1) for i in range(40)]


def rows_of(flags: Any) -> list[int]:
    return [int(i) for i in np.flatnonzero(flags)]


@pytest.mark.parametrize("form", ["{:02}/01/24", "{:02}.01.24", "01/{:02}/24"])
def test_a_year_of_two_digits_is_no_year(tmp_path: Path, form: str) -> None:
    path = table(tmp_path, t=[form.format(1 + i % 28) for i in range(40)])
    with pytest.raises(InputError, match=r"column t, row 0: '.*24' is not a time such as"):
        load(path, "obs=x,action=a,reward=r,step=t")


@pytest.mark.parametrize("names", [("done", "truncated"), ("dones", "truncations")])
def test_done_at_a_time_limit_is_a_timeout(tmp_path: Path, names: tuple[str, str]) -> None:
    done, truncated = names
    path = table(tmp_path, **{"n": following(9, 19, 29, 39), done: marked(9, 19, 29, 39), truncated: marked(9, 29, 39)})
    data, info = load(path, f"obs=x,next_obs=n,action=a,reward=r,terminal={done},timeout={truncated}")
    assert rows_of(data.terminals) == [19] and rows_of(data.timeouts) == [9, 29, 39]
    assert f"terminals = {done} where no timeout is" in info.source


def test_another_flag_that_is_set_at_time_limits_is_doubted(tmp_path: Path) -> None:
    path = table(tmp_path, n=following(9, 29, 39), end=marked(9, 39), late=marked(9, 29))
    data, info = load(path, "obs=x,next_obs=n,action=a,reward=r,terminal=end,timeout=late")
    assert rows_of(data.terminals) == [9, 39] and rows_of(data.timeouts) == [29]
    (doubt,) = [check.warning for check in info.doubts if check.column == "timeouts"]
    assert "1 of 2 rows that late marks are marked by end as well" in doubt


@pytest.mark.parametrize("missing", ["drop-rows", "split-episodes", "fill-forward"])
def test_an_empty_flag_marks_no_end(tmp_path: Path, missing: Remedy) -> None:
    path = table(tmp_path, n=following(19, 39), d=[flag or "" for flag in marked(19, 39)])
    data, _ = load(path, "obs=x,next_obs=n,action=a,reward=r,terminal=d", missing)
    assert len(data) == 40 and rows_of(data.terminals) == [19, 39]


def test_rewards_that_are_repeated_are_told(tmp_path: Path) -> None:
    path = table(tmp_path, r=[5 if i % 5 == 0 else "" for i in range(40)])
    _, info = load(path, "obs=x,action=a,reward=r", "fill-forward")
    (doubt,) = [check.warning for check in info.doubts if check.column == "r"]
    assert "32 rewards of column r were missing" in doubt and "is now 200, that of the log is 40" in doubt


def groups(path: Path, **once: Any) -> Path:
    with h5py.File(path, "w") as file:
        for i in range(3):
            group = file.create_group(f"episode_{i}")
            group["observations"], group["actions"] = np.random.default_rng(i).normal(size=(2, 10, 2))
            group["rewards"] = np.ones(10)
            for name, value in once.items():
                group.pop(name, None)
                group[name] = value
    return path


def test_one_reward_for_an_episode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has one reward for an episode of 10 steps: write one per step, 0 where"):
        load(groups(tmp_path / "log.h5", rewards=np.ones(1)), None)


def test_one_flag_for_an_episode_is_that_of_its_last_step(tmp_path: Path) -> None:
    path = groups(tmp_path / "log.h5", crashed=np.ones(1, np.int64))
    data, _ = load(path, "obs=observations,action=actions,reward=rewards,terminal=crashed")
    assert rows_of(data.terminals) == [9, 19, 29]


@pytest.mark.parametrize("kind", ["csv", "npz", "jsonl"])
def test_labels_mean_the_same_in_every_layout(tmp_path: Path, kind: str) -> None:
    """Spaces around a label are none of it, and an empty label is none."""

    def written(labels: list[str]) -> Path:
        path = table(tmp_path, e=labels)
        if kind == "csv":
            return path
        columns = {"x": np.arange(40.0), "a": np.sin(np.arange(40)), "r": np.ones(40), "e": np.array(labels)}
        if kind == "npz":
            np.savez(tmp_path / "log.npz", **columns)  # type: ignore[arg-type]
            return tmp_path / "log.npz"
        lines = [f'{{"x": {i}, "a": {columns["a"][i]}, "r": 1, "e": "{label}"}}\n' for i, label in enumerate(labels)]
        (tmp_path / "log.jsonl").write_text("".join(lines))
        return tmp_path / "log.jsonl"

    how = "obs=x,action=a,reward=r,episode=e"
    plain, spaced = (load(written(["e1"] * 19 + [last] + ["e2"] * 20), how)[0] for last in ("e1", "e1 "))
    assert rows_of(plain.timeouts) == rows_of(spaced.timeouts) and len(plain) == len(spaced) == 38
    with pytest.raises(InputError, match="column e, row 19: the cell is empty"):
        load(written(["e1"] * 19 + ["NA"] + ["e2"] * 20), how)


def test_times_mean_the_same_in_arrays(tmp_path: Path) -> None:
    times = np.array([f"01.03.2024 06:{39 - i:02}" for i in range(40)])
    np.savez(tmp_path / "log.npz", x=np.arange(40.0), a=np.sin(np.arange(40)), r=np.ones(40), t=times)
    data, _ = load(tmp_path / "log.npz", "obs=x,action=a,reward=r,step=t")
    assert data.observations[:, 0].tolist() == list(range(39, 0, -1))


def test_a_clock_marks_no_end(tmp_path: Path) -> None:
    """The large reward of the last row is no outcome of an episode whose end nothing marks."""
    path = table(tmp_path, t=range(40), r=[1] * 39 + [500])
    how = "obs=x,action=a,reward=r"
    plain, timed = (load(path, columns) for columns in (how, f"{how},step=t"))
    for data, info in (plain, timed):
        assert not data.terminals.any()
        assert any("is taken for one long episode" in check.warning for check in info.doubts)


def test_discrete_actions_are_refused_whatever_is_missing(tmp_path: Path) -> None:
    actions: list[Any] = [i % 3 for i in range(40)]
    for empty in ([], [7]):
        path = table(tmp_path, a=["" if i in empty else action for i, action in enumerate(actions)])
        with pytest.raises(UnusableData, match="column a holds discrete actions: 3 different whole numbers"):
            load(path, "obs=x,action=a,reward=r", "drop-rows")
    fractions = ["" if i == 7 else 0.5 * action for i, action in enumerate(actions)]
    data, _ = load(table(tmp_path, a=fractions), "obs=x,action=a,reward=r", "drop-rows")
    assert len(data) == 38


def test_a_row_left_out_beside_next_observations_ends_the_record(tmp_path: Path) -> None:
    """What it led to is in the row before it, and is another state than that of the row after it."""
    path = table(tmp_path, n=range(1, 41), a=["" if i == 20 else round(float(np.sin(i)), 3) for i in range(40)])
    data, _ = load(path, "obs=x,next_obs=n,action=a,reward=r", "drop-rows")
    assert len(data) == 39 and rows_of(data.timeouts)[:1] == [19]
    assert data.observations[19:21, 0].tolist() == [19, 21] and data.next_observations[19, 0] == 20


def test_rows_are_those_of_the_file_after_others_were_dropped(tmp_path: Path) -> None:
    Path(tmp_path / "map.yaml").write_text(
        "obs: x\naction: a\nreward: r\nepisode: e\naction_low: [-1]\naction_high: [1]\n"
    )
    path = table(tmp_path, e=[i // 10 for i in range(40)], a=[3 if i == 25 else 0.5 for i in range(40)])
    with pytest.raises(UnusableData, match=r"row 23.* Row 23 is row 25 of log\.csv\."):
        load(path, str(tmp_path / "map.yaml"))


def test_ends_that_are_left_out_are_told(tmp_path: Path) -> None:
    """The last row of an episode only holds the state there, as simulators write it."""
    actions = ["" if i % 10 == 9 else np.sin(i) for i in range(40)]
    path = table(tmp_path, a=actions, done=marked(9, 29), episode=[i // 10 for i in range(40)])
    data, info = load(path, "obs=x,action=a,reward=r,terminal=done,episode=episode", "drop-rows")
    assert not data.terminals.any()
    (check,) = (check for check in info.doubts if check.column == "done")
    assert "2 of 2 rows that done marks lack a value and were left out" in check.warning
    _, info = load(path, "obs=x,action=a,reward=r,terminal=done,episode=episode", "fill-forward")
    assert not any(check.column == "done" for check in info.doubts)


@pytest.mark.parametrize(("number", "rows"), [(-999, 8), (99999, 3), (-99.0, 20), (999, 1)])
def test_a_number_that_stands_for_a_missing_value_is_told(tmp_path: Path, number: float, rows: int) -> None:
    path = table(tmp_path, x=[number if 5 <= i < 5 + rows else 50 + i % 7 for i in range(40)])
    _, info = load(path, "obs=x,action=a,reward=r")
    (warning,) = (check.warning for check in info.doubts if check.what == "no value far outside")
    assert "column x " in warning and " row 5" in warning
    if rows > 3:
        assert f"is {number:g} in {rows} rows" in warning and "--missing" in warning


def test_nines_among_other_numbers_are_numbers(tmp_path: Path) -> None:
    for x in ([99 + i for i in range(40)], [999 if i % 2 else 0 for i in range(40)], [98.5 + i % 2 for i in range(40)]):
        _, info = load(table(tmp_path, x=x), "obs=x,action=a,reward=r")
        assert not any("missing value" in check.warning for check in info.doubts)
