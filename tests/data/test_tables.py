"""Own data in HDF5, NPZ, CSV and Parquet: the same transitions from each, and every fault in one sentence."""

import csv
import io
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.data.checks import UnusableData
from mopo_cli.data.files.layout import Log, Wanted
from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.transitions import COLUMNS, Transitions
from mopo_cli.data.validate import validate
from mopo_cli.errors import CorruptError, InputError, MopoError, UsageError

MAP = "obs=temp+flow,action=valve+pump,reward=yield,episode=batch,terminal=failed"
Columns = dict[str, Any]


def plant(rows: int = 40) -> dict[str, Any]:
    """Batches A, B, C, D of ten rows; B ends in a failure. No state comes twice."""
    rng = np.random.default_rng(3)
    return {
        "batch": np.repeat(["A", "B", "C", "D"], 10)[:rows],
        "temp": rng.normal(50, 5, rows).astype(np.float32),
        "flow": rng.normal(3, 1, rows).astype(np.float32),
        "valve": rng.uniform(0, 100, rows).astype(np.float32),
        "pump": rng.uniform(-0.5, 0.5, rows).astype(np.float32),
        "yield": rng.normal(size=rows).astype(np.float32),
        "failed": np.arange(rows) == 19,
    }


def write(path: Path, columns: Columns) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), path)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **columns)
    else:
        with h5py.File(path, "w") as file:
            for name, column in columns.items():
                file[name] = column.astype("S") if np.asarray(column).dtype.kind == "U" else column
    return path


def opened(path: Path) -> Log:
    return open_log([path])


def read_raw(path: Path, numbers: list[str], labels: Sequence[str] = ()) -> dict[str, Any]:
    return opened(path).read(Wanted(numbers, labels))


def load(path: Path, columns: str | None = MAP) -> tuple[Transitions, Any]:
    transitions, info = load_local([path], None, ["0" * 64], Reading(columns))
    validate(transitions, info)
    return transitions, info


def same(a: Transitions, b: Transitions) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in COLUMNS)


@pytest.fixture
def text(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a CSV file as it stands."""

    def put(content: str) -> Path:
        (tmp_path / "my.csv").write_text(content)
        return tmp_path / "my.csv"

    return put


def test_every_format_gives_the_same_transitions(tmp_path: Path) -> None:
    raw = plant()
    rows = {kind: load(write(tmp_path / f"my{kind}", raw)) for kind in (".h5", ".npz", ".csv", ".parquet")}
    transitions, info = rows[".csv"]
    assert all(same(transitions, other) for other, _ in rows.values())

    last = np.arange(40) % 10 == 9
    kept = ~last | raw["failed"]  # a record's last row has no next state; a failure needs none
    states = np.stack([raw["temp"], raw["flow"]], axis=1)
    assert np.array_equal(transitions.observations, states[kept])
    assert np.array_equal(transitions.actions, np.stack([raw["valve"], raw["pump"]], axis=1)[kept])
    assert np.array_equal(transitions.rewards, raw["yield"][kept])
    assert np.array_equal(transitions.terminals, raw["failed"][kept])
    following = np.roll(states, -1, axis=0)[kept]
    alive = ~transitions.terminals
    assert np.array_equal(transitions.next_observations[alive], following[alive])
    assert np.flatnonzero(transitions.timeouts).tolist() == [8, 19 + 8, 28 + 8]
    assert not info.terminal_next_known

    logged = transitions.actions.astype(np.float64)
    margin = 0.05 * np.ptp(logged, axis=0)
    # a valve does not go below shut, a pump turns both ways
    assert info.action_low == pytest.approx([max(0, logged[:, 0].min() - margin[0]), logged[:, 1].min() - margin[1]])
    assert info.action_high == pytest.approx(logged.max(axis=0) + margin)
    assert (info.dataset_id, info.env_id, info.termination) == ("my.csv", None, "none")
    for piece in ("observations = temp + flow; actions = valve + pump", "bounds taken from the data", "sha256 0000"):
        assert piece in info.source


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_conventional_names_need_no_map(tmp_path: Path, kind: str) -> None:
    raw = plant()
    names = dict(zip(raw, ("episode", "obs_0", "obs_1", "action_0", "action_1", "reward", "terminal"), strict=True))
    path = write(tmp_path / f"plain{kind}", {names[name]: column for name, column in raw.items()})
    assert same(load(path, None)[0], load(write(tmp_path / f"my{kind}", raw))[0])


@pytest.mark.parametrize("kind", [".h5", ".npz"])
def test_arrays_are_joined_and_found_by_their_paths(tmp_path: Path, kind: str) -> None:
    raw = plant()
    states = np.stack([raw["temp"], raw["flow"]], axis=1)
    arrays = {
        "log/states": states,
        "log/next": np.roll(states, -1, axis=0),
        "valve": raw["valve"].astype(np.float64),
        "pump": raw["pump"][:, None],
        "r": raw["yield"][:, None],
        "end": np.repeat([7, 3, 9, 1], 10)[:, None],
    }
    path = write(tmp_path / f"my{kind}", arrays)
    transitions, info = load(path, "obs=log/states,next_obs=log/next,action=valve+pump,reward=r,episode=end")
    assert np.array_equal(transitions.observations, states)
    assert np.array_equal(transitions.next_observations, np.roll(states, -1, axis=0))
    assert np.array_equal(transitions.actions, np.stack([raw["valve"], raw["pump"]], axis=1))
    assert np.flatnonzero(transitions.timeouts).tolist() == [9, 19, 29, 39]
    assert info.terminal_next_known
    assert opened(path).names == (sorted(arrays) if kind == ".h5" else list(arrays))


@given(
    st.lists(
        st.tuples(
            st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(-(2**24), 2**24), st.booleans()
        ),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", " ", "\ufeff"]),
)
def test_numbers_written_as_text_come_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int, bool]], separator: str, end: str, extra: str
) -> None:
    path = tmp_path_factory.mktemp("text") / "my.csv"
    space = extra if extra == " " else ""
    lines = [separator.join(("note", f"{space}x", f"n{space}", "flag"))]
    lines += [separator.join((f'"{separator} {end}"', f"{space}{x!r}", f"{n}{space}", str(f))) for x, n, f in rows]
    path.write_bytes((("\ufeff" if extra == "\ufeff" else "") + end.join(lines) + end).encode())
    assert opened(path).names == ["note", "x", "n", "flag"]
    result = read_raw(path, ["flag", "x", "n"])
    assert result["x"].tolist() == [x for x, _, _ in rows]
    assert result["n"].tolist() == [n for _, n, _ in rows] and result["n"].dtype == np.int64
    assert result["flag"].tolist() == [f for _, _, f in rows]


@pytest.mark.parametrize("word", ["1", " 1 ", "+1", "1.0", "1e0", "1.", "True", "TRUE", "true"])
def test_ways_to_write_one(text: Callable[[str], Path], word: str) -> None:
    assert read_raw(text(f"x,y\n{word},0\n0.5,0\n"), ["x"])["x"].tolist() == [1, 0.5]


@pytest.mark.parametrize("word", ["n/a", "1,5", "1_0", "yes", "--1", "1 2", "None", "٣", "1.5 bar", "0b1"])
@pytest.mark.parametrize("row", [0, 1, 7, 300, 1999])
def test_a_cell_that_is_no_number_is_found(text: Callable[[str], Path], word: str, row: int) -> None:
    cells = ["0.25"] * 2000
    cells[row] = f'"{word}"'
    cells[1999] = f'"{word}"'
    path = text("x,y\n" + "".join(f"{cell},1\n" for cell in cells))
    with pytest.raises(InputError) as caught:
        read_raw(path, ["x"])
    assert caught.value.message.startswith(f"my.csv: column x, row {row}: {word!r} is not a number.")


def test_an_empty_cell_is_found(tmp_path: Path, text: Callable[[str], Path]) -> None:
    with pytest.raises(
        InputError, match=r"my\.csv: column y, row 1: the cell is empty \(2 in this column\)\. Remove or repair"
    ):
        read_raw(text("x,y\n1,2\n1,\n3, \n"), ["x", "y"])
    pq.write_table(pa.table({"x": [1.0, 2.0], "y": [1.0, None], "e": ["a", None]}), tmp_path / "my.parquet")
    for name, labels in (("y", []), ("e", ["e"])):
        with pytest.raises(InputError, match=rf"my\.parquet: column {name}, row 1: the cell is empty \(1 in"):
            read_raw(tmp_path / "my.parquet", [] if labels else [name], labels)


def test_the_bad_cells_of_all_columns_are_told_together(text: Callable[[str], Path]) -> None:
    path = text("temp,flow,valve,yield\n1,x,0.5,1\n2,2,,1\n3,3,0.1,1\n")
    with pytest.raises(UnusableData) as caught:
        load_local([path], None, ["0"], Reading("obs=temp+flow+lvl,action=valve,reward=yield,episode=batch"))
    places = [(check.column, check.row) for check in caught.value.checks if check.fault]
    assert places == [("lvl (observations)", None), ("batch (episode)", None), ("flow", 0), ("valve", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "my.csv cannot be read as CSV"),
        ("x,y\n1,2,3\n", "has 2 cells, but a later one has 3"),
        ("x,x,y\n1,2,3\n", "has two columns 'x'"),
    ],
)
def test_what_is_no_table(text: Callable[[str], Path], content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_raw(text(content), ["x"])


def test_parquet_types(tmp_path: Path) -> None:
    from datetime import datetime
    from decimal import Decimal

    days = [datetime(2020, 1, day) for day in (1, 1, 2)]
    table = {
        "half": pa.array(np.array([1, 2, 3], np.float16)),
        "small": pa.array([1, 2, 3], pa.uint8()),
        "flag": [True, False, True],
        "money": [Decimal("1.25")] * 3,
        "text": ["1", "2", "1.5"],
        "words": pa.array(["4", "5", "4"]).dictionary_encode(),
        "day": days,
        "list": [[1.0]] * 3,
        "bytes": [b"1"] * 3,
    }
    path = tmp_path / "my.parquet"
    pq.write_table(pa.table(table), path)
    result = read_raw(path, ["half", "small", "flag", "money", "text", "words"], ["day"])
    expected = {"half": [1, 2, 3], "small": [1, 2, 3], "flag": [1, 0, 1], "money": [1.25] * 3, "text": [1, 2, 1.5]}
    for name, values in (expected | {"words": [4, 5, 4], "day": [0, 0, 1]}).items():
        assert result[name].tolist() == values
    assert read_raw(path, ["list"])["list"].tolist() == [[1.0]] * 3
    for name, mend in (("day", ": give a number, or leave the column out"), ("bytes", "")):
        with pytest.raises(InputError, match=rf"column {name} holds .*, not numbers{mend}\."):
            read_raw(path, [name])
    with pytest.raises(InputError, match=r"column list holds list<.*>, not labels\."):
        read_raw(path, [], ["list"])


@pytest.mark.parametrize("kind", [".h5", ".npz", ".csv", ".parquet"])
def test_rows_of_an_episode_must_be_together(tmp_path: Path, kind: str) -> None:
    raw = plant()
    raw["batch"] = np.array(["A"] * 10 + ["B"] * 10 + ["A"] * 5 + ["B"] * 15)
    with pytest.raises(
        InputError, match=r"column batch \(episode\): row 20 continues .* name the column of their step"
    ):
        load(write(tmp_path / f"my{kind}", raw))


@pytest.mark.parametrize("labels", [[1.5, math.nan, 2.0], [1.0, math.inf, 2.0]])
def test_a_label_that_is_not_finite(tmp_path: Path, labels: list[float]) -> None:
    np.savez(tmp_path / "my.npz", e=labels)
    with pytest.raises(InputError, match="column e holds NaN or infinity in row 1"):
        read_raw(tmp_path / "my.npz", [], ["e"])


def test_a_terminal_belongs_to_an_episodes_last_row(tmp_path: Path) -> None:
    raw = plant()
    raw["failed"] = raw["batch"] == "B"  # a mark on the whole batch would make each of its rows an episode
    with pytest.raises(InputError, match=r"row 10 is a terminal, but its episode \(batch \(episode\)\) continues"):
        load(write(tmp_path / "my.csv", raw))


def test_without_any_end_it_is_one_long_episode_and_that_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "my.csv", plant())
    transitions, info = load(path, "obs=temp+flow,action=valve+pump,reward=yield")
    assert len(transitions) == 39 and np.flatnonzero(transitions.timeouts).tolist() == [38]
    assert "nothing marks where an episode ends: one long episode" in info.source
    assert "one long episode" not in load(path)[1].source


@pytest.mark.parametrize("missing", ["obs", "action", "reward"])
def test_a_map_must_name_what_cannot_be_done_without(tmp_path: Path, missing: str) -> None:
    path = write(tmp_path / "my.csv", plant())
    parts = [part for part in MAP.split(",") if not part.startswith(missing)]
    with pytest.raises(
        InputError, match=rf"my\.csv: there is no column {missing}.* the file holds batch, temp"
    ) as caught:
        load(path, ",".join(parts))
    assert "--columns" in caught.value.hint


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("failed", [0, 1, 2, 0], r"column failed \(terminals\) holds 2 in row 2, not 0 or 1"),
        ("yield", [0, 1, "nan", 0], r"column yield \(rewards\) holds NaN or infinity in row 2"),
        ("temp", [0, "-inf", 2, 0], r"column temp \(observations\) holds NaN or infinity in row 1"),
        ("temp", ["1e300", 1, 2, 0], r"column temp \(observations\) holds NaN or infinity in row 0"),
    ],
)
def test_values_are_told_by_the_files_own_names(tmp_path: Path, column: str, values: list[Any], message: str) -> None:
    raw = plant(4) | {column: values}
    with pytest.raises(InputError, match=message):
        load(write(tmp_path / "my.csv", raw))


def whole(*values: Any) -> list[Any]:
    return [values[i % len(values)] for i in range(40)]


@pytest.mark.parametrize(
    ("actions", "kind"),
    [
        (whole(0, 1, 2), ".csv"),
        (whole(True, False), ".csv"),
        (np.array(whole(0, 1, 2), np.uint8), ".parquet"),
        (np.array(whole(0, 1, 2))[:, None], ".npz"),
        (np.array(whole(False, True)), ".h5"),
    ],
)
def test_discrete_actions_are_refused(tmp_path: Path, actions: Any, kind: str) -> None:
    path = write(tmp_path / f"my{kind}", plant() | {"valve": np.asarray(actions)})
    values = sorted({int(value) for value in np.ravel(actions)})
    text = (
        rf"{len(values)} different whole numbers in 40 rows \({', '.join(map(str, values))}\); mopo learns continuous"
    )
    with pytest.raises(InputError, match=f"column valve holds discrete actions: {text}"):
        load(path, "obs=temp+flow,action=valve,reward=yield,episode=batch")


@pytest.mark.parametrize(
    ("actions", "kind"),
    [
        (whole("0.0", "1.0"), ".csv"),
        (whole(0, 1, 2, 2.5), ".csv"),
        (list(range(40)), ".csv"),
        (np.array(whole(0, 1), np.float32), ".h5"),
        (np.array(whole(0, 1), np.float64), ".parquet"),
    ],
)
def test_quantities_are_never_taken_for_choices(tmp_path: Path, actions: Any, kind: str) -> None:
    path = write(tmp_path / f"my{kind}", plant() | {"valve": np.asarray(actions)})
    transitions, _ = load(path, "obs=temp+flow,action=valve,reward=yield,episode=batch")
    assert transitions.actions[:3, 0].tolist() == [float(value) for value in actions[:3]]


def test_bounds_come_from_the_map_where_it_has_them(tmp_path: Path) -> None:
    steps = plant() | {"valve": whole(0, 1, 2), "pump": [5.0] * 40}  # whole numbers and a constant: the user vouches
    path = write(tmp_path / "my.csv", steps)
    named = "obs: [temp, flow]\naction: [valve, pump]\nreward: yield\nepisode: batch\n"

    def bounded(low: str, high: str) -> Any:
        (tmp_path / "map.yaml").write_text(f"{named}action_low: {low}\naction_high: {high}\n")
        return load(path, str(tmp_path / "map.yaml"))[1]

    info = bounded("[0, -2.5]", "[4, 10]")
    assert (info.action_low.tolist(), info.action_high.tolist()) == ([0, -2.5], [4, 10])
    assert "action bounds from the column map" in info.source
    for low, high, bounds in (
        ("[0]", "[4]", "2 dimensions, but its bounds have the shapes"),
        ("[0, 7]", "[4, 1]", "must be finite"),
        ("[0, .nan]", "[4, 1]", "must be finite"),
        ("[0.5, 0]", "[4, 10]", "is outside the bounds .* first in row 0"),
    ):
        with pytest.raises(InputError, match=bounds):
            bounded(low, high)
    with pytest.raises(UsageError, match="--env Hopper-v5 gives the action bounds"):
        load_local([path], "Hopper-v5", ["0"], Reading(str(tmp_path / "map.yaml")))


# Files that nobody vouches for.


@pytest.mark.parametrize("name", ["../x.npy", "/x.npy", "a/../../x.npy", "..\\x.npy", "C:\\x.npy", "\\x.npy"])
def test_an_archive_with_a_way_out_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "my.npz", plant())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"")
    with pytest.raises(InputError, match="leads out of it"):
        load(path)


def test_an_archive_with_objects_loads_none(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    np.savez(tmp_path / "my.npz", temp=np.array([Trap()], dtype=object))
    with pytest.raises(InputError, match="column temp holds Python objects, which are never loaded"):
        read_raw(tmp_path / "my.npz", ["temp"])
    assert not (tmp_path / "sprung").exists()


def member(shape: str, dtype: str = "<f8", content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + len(header).to_bytes(2 if version[0] == 1 else 4, "little") + header + content


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (member("(1000000000000,)"), CorruptError, "too few bytes"),
        (member("(-1,)", content=bytes(80)), CorruptError, "too few bytes"),
        (member("(4, 1000000000)", content=bytes(80)), CorruptError, "too few bytes"),
        (member("(10,)", dtype="|V8", content=bytes(80)), InputError, "does not hold numbers"),
        (member("(10,)", dtype="|S8", content=bytes(80)), InputError, "does not hold numbers"),
        (member("(10,)", dtype="<c16", content=bytes(160)), InputError, "does not hold numbers"),
        (member("(10,)", content=bytes(80), version=b"\x03\x00"), InputError, "does not hold numbers"),
        (member("(" * 5000), CorruptError, "damaged"),
        (b"no array", CorruptError, "damaged"),
        (b"", CorruptError, "damaged"),
    ],
)
def test_members_that_are_no_arrays(tmp_path: Path, content: bytes, error: type[MopoError], message: str) -> None:
    with zipfile.ZipFile(tmp_path / "my.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(error, match=rf"my\.npz.*{message}"):
        read_raw(tmp_path / "my.npz", ["x"])


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_a_bomb_is_refused_by_what_it_declares(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb{kind}"
    if kind == ".npz":  # LZMA packs zeros far tighter than what numpy writes
        with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
            archive.writestr("x.npy", member("(10000000,)", content=bytes(80_000_000)))
    else:
        pq.write_table(pa.table({"x": pa.array(["7" * 1000], pa.string()).take(pa.array([0] * 70_000))}), path)
    assert path.stat().st_size < 64_000
    with pytest.raises(InputError, match=r"declares .* bytes of columns, but the file has only"):
        read_raw(path, ["x"])


@pytest.mark.parametrize("kind", [".npz", ".parquet"])
def test_damage_is_told(tmp_path: Path, kind: str) -> None:
    good = write(tmp_path / f"my{kind}", plant()).read_bytes()
    path = tmp_path / f"bad{kind}"
    refused = 0
    for damage in (*(good[:n] for n in range(0, len(good), 97)), *(_flipped(good, n) for n in range(0, len(good), 61))):
        path.write_bytes(damage)
        try:
            load(path)
        except MopoError as error:
            refused += 1
            assert f"bad{kind}" in error.message and error.exit_code in (4, 5)
    assert refused > len(good) / 97


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize("name", ["/../x", "../x", "/temp", "a/../temp", "./temp", "a//temp", "..", "/", "a/"])
@pytest.mark.parametrize("kind", [".h5", ".npz"])
def test_a_path_in_the_map_stays_in_the_file(tmp_path: Path, kind: str, name: str) -> None:
    path = write(tmp_path / f"my{kind}", plant())
    with pytest.raises(InputError, match="is not a path inside the file"):
        load(path, MAP.replace("temp", name))


def link(file: h5py.File, other: Path) -> None:
    file["trap"] = h5py.ExternalLink(str(other), "/temp")


def soft_link(file: h5py.File, _other: Path) -> None:
    file["trap"] = h5py.SoftLink("/temp")


def link_of_a_group(file: h5py.File, other: Path) -> None:
    file["trap"] = h5py.ExternalLink(str(other), "/")


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((40,), "f4")
    layout[:] = h5py.VirtualSource(str(other), "temp", (40,))
    file.create_virtual_dataset("trap", layout)


def external_storage(file: h5py.File, other: Path) -> None:
    file.create_dataset("trap", (40,), "f4", external=[(str(other), 0, 160)])


@pytest.mark.parametrize("trap", [link, soft_link, link_of_a_group, virtual, external_storage])
@pytest.mark.parametrize("pattern", ["trap", "tra*"])
def test_nothing_outside_the_file_is_read(tmp_path: Path, trap: Any, pattern: str) -> None:
    other = write(tmp_path / "other.h5", plant())
    path = write(tmp_path / "my.h5", plant())
    with h5py.File(path, "a") as file:
        trap(file, other)
    with pytest.raises(InputError, match=r"column tra.*( is missing|outside the file)"):
        load(path, MAP.replace("temp", pattern))
    if trap is link_of_a_group:
        with pytest.raises(InputError, match="column trap/temp is missing"):
            load(path, MAP.replace("temp", "trap/temp"))


def test_text_of_any_length_in_hdf5_is_refused_as_a_label(tmp_path: Path) -> None:
    path = write(tmp_path / "my.h5", plant())
    with h5py.File(path, "a") as file:
        del file["batch"]
        file["batch"] = plant()["batch"].astype(object)
    with pytest.raises(InputError, match="column batch does not hold numbers or text of fixed length"):
        load(path)


def test_a_gigabyte_is_not_needed_to_refuse_one(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.zeros(1))
    with zipfile.ZipFile(tmp_path / "my.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content.getvalue())
    path = tmp_path / "my.npz"
    raw = bytearray(path.read_bytes())
    # The directory says the member unpacks to 4 GB; its own header and its bytes say 136.
    entry = raw.index(b"PK\x01\x02")
    raw[entry + 24 : entry + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"declares 4,294,967,280 bytes"):
        read_raw(path, ["x"])
