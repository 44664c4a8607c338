"""Times with zones, durations, words for nothing, and columns of shapes that they cannot have."""

import datetime
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pytest
from data.test_layouts import load
from pyarrow import parquet

from mopo_cli.data.files.layout import Wanted
from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.errors import InputError

BY_TIME = "obs=x,action=a,reward=r,step=t"
UTC = datetime.datetime(2024, 3, 31, tzinfo=datetime.UTC).timestamp()


def table(folder: Path, **columns: list[Any]) -> Path:
    count = len(next(iter(columns.values())))
    columns = {"x": [*range(count)], "a": [(-0.9) ** i for i in range(count)], "r": [0.5] * count} | columns
    rows = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / "my.csv").write_text("\n".join([*rows, ""]))
    return folder / "my.csv"


def written(folder: Path, **columns: Any) -> Path:
    count = len(next(iter(columns.values())))
    plain = {"x": np.arange(float(count)), "a": (-0.9) ** np.arange(count), "r": np.full(count, 0.5)}
    parquet.write_table(pa.table(plain | columns), folder / "my.parquet")
    return folder / "my.parquet"


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (["2024-03-31T00:00:00Z", "2024-03-31T01:00:00Z", "2024-03-31T02:00:00.5Z"], [0, 3600, 7200.5]),
        (["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31 04:00:00+02:00"], [0, 3600, 7200]),
        (["2024-03-31 00:00:00.123456789", "2024-03-31 01:00:00.000000001"], [0.123456, 3600]),
    ],
)
def test_times_of_a_zone_are_those_of_utc(tmp_path: Path, times: list[str], seconds: list[float]) -> None:
    log = open_log([table(tmp_path, t=times)])
    np.testing.assert_allclose(log.read(Wanted(times=["t"]))["t"] - UTC, seconds, atol=1e-6)


def test_the_hour_that_summer_time_leaves_out_is_no_gap(tmp_path: Path) -> None:
    zone = [(1, 1), (3, 2), (4, 2), (5, 2)]
    path = table(tmp_path, t=[f"2024-03-31T{hour:02}:00:00+0{offset}:00" for hour, offset in zone])
    data, _ = load(path, BY_TIME)
    assert data.observations[:, 0].tolist() == [0, 1, 2] and data.timeouts.tolist() == [False, False, True]


def test_durations_are_seconds_and_times_of_day_are_refused(tmp_path: Path) -> None:
    steps = [datetime.timedelta(minutes=minute) for minute in (0, 2, 1, 3)]
    data, _ = load(written(tmp_path, t=pa.array(steps), e=[7] * 4), f"{BY_TIME},episode=e")
    assert data.observations[:, 0].tolist() == [0, 2, 1]
    path = written(tmp_path, t=pa.array([datetime.time(6, 0), datetime.time(6, 1)]))
    with pytest.raises(InputError, match=r"column t holds times of day \(06:00:00 in row 0\): write the date as well"):
        load(path, BY_TIME)


@pytest.mark.filterwarnings("error")
def test_times_of_a_zone_in_json(tmp_path: Path) -> None:
    times = ["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"]
    lines = [{"x": i, "a": 0.1 * i, "r": 1, "t": time} for i, time in enumerate(times)]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = open_log([tmp_path / "my.jsonl"])
    assert (log.read(Wanted(times=["t"]))["t"] - UTC).tolist() == [0, 3600, 7200]


CATEGORIES = "obs=x+sex:onehot,action=a,reward=r"


@pytest.mark.parametrize("word", ["NA", "n/a", "#N/A", "NULL", "None", "nan", ""])
def test_a_word_for_nothing_is_no_category(tmp_path: Path, word: str) -> None:
    path = table(tmp_path, sex=["F", word, "M", "M", "F"])
    with pytest.raises(InputError, match="say with --missing what to do"):
        load(path, CATEGORIES)
    data, info = load_local([path], None, ["0"], Reading(CATEGORIES, missing="drop-rows"))
    assert info.names["obs"] == ["x", "sex=F", "sex=M"]
    assert data.observations.tolist() == [[0, 1, 0], [2, 0, 1], [3, 0, 1]]


def test_categories_without_a_value_are_refused(tmp_path: Path) -> None:
    for path in (table(tmp_path, sex=["", "NA", ""]), written(tmp_path, sex=pa.nulls(3))):
        with pytest.raises(InputError, match="column sex holds no value in any row"):
            load(path, CATEGORIES)


@pytest.mark.parametrize("word", ["NULL", "NA", "None"])
def test_a_word_for_nothing_is_no_label(tmp_path: Path, word: str) -> None:
    with pytest.raises(InputError, match=r"column e, row 2: the cell is empty"):
        load(table(tmp_path, e=["A", "A", word, word, "B"]), "obs=x,action=a,reward=r,episode=e")


@pytest.mark.parametrize("shape", [(6, 0), (6, 2, 2), (6, 2), ()])
@pytest.mark.parametrize("used", ["obs=x+odd:onehot", "obs=x,step=odd"])
def test_a_shape_that_is_no_column_is_named(tmp_path: Path, shape: tuple[int, ...], used: str) -> None:
    with h5py.File(tmp_path / "my.h5", "w") as file:
        file["x"], file["a"], file["r"] = np.arange(6.0), np.linspace(-0.9, 0.9, 6), np.ones(6)
        file["odd"] = np.zeros(shape)
    with pytest.raises(InputError, match=r"column odd has shape \(.*\), not \[rows\] or \[rows, 1\]\."):
        load(tmp_path / "my.h5", f"{used},action=a,reward=r")


@pytest.mark.parametrize("labels", [[1, 2, 3, 4], [7]])
def test_a_log_of_single_rows_says_what_lacks(tmp_path: Path, labels: list[int]) -> None:
    with pytest.raises(InputError, match="no row is followed by another of its episode, so no next state is known"):
        load(table(tmp_path, e=labels), "obs=x,action=a,reward=r,episode=e")


def test_a_log_of_which_every_row_lacks_a_value_says_so(tmp_path: Path) -> None:
    path = table(tmp_path, x=["", 2, ""], y=[1, "", 3])
    with pytest.raises(InputError, match="no row is left, as each lacks a value"):
        load_local([path], None, ["0"], Reading("obs=x+y,action=a,reward=r", missing="drop-rows"))


def test_an_empty_step_is_not_said_to_have_a_remedy(tmp_path: Path) -> None:
    said = r"column t, row 1: the cell is empty \(1 in this column\)\. Remove or repair this episode\.$"
    with pytest.raises(InputError, match=said):
        load_local([table(tmp_path, t=[1, "", 3])], None, ["0"], Reading(BY_TIME, missing="drop-rows"))


def test_arrays_of_matlab_have_their_dimensions_as_there(tmp_path: Path) -> None:
    states, actions = np.arange(12.0).reshape(6, 2), np.linspace(-0.9, 0.9, 6)[:, None]
    columns = {"observations": states, "actions": actions, "rewards": np.ones((6, 1)), "terminals": np.zeros((6, 1))}
    with h5py.File(tmp_path / "log.mat", "w") as file:
        for name, values in columns.items():
            file[name] = values.T  # as MATLAB writes what is [6, 2] there
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    data, _ = load(tmp_path / "log.mat")
    np.testing.assert_array_equal(data.observations, states[:5])
    np.testing.assert_array_equal(data.next_observations, states[1:])
