"""Logs that are out of order, have gaps, categories or missing values, through the reader of files."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.data.checks import UnusableData
from mopo_cli.data.files.column_terms import reward_terms
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.missing import Remedy, mend
from mopo_cli.data.files.order import order_rows
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.errors import InputError, UsageError

COLUMNS = "obs=x,action=a,reward=r,episode=e,step=t"


def load(path: Path, columns: str = COLUMNS, missing: Remedy = "refuse") -> tuple[Transitions, DatasetInfo]:
    return load_local([path], None, ["0" * 64], Reading(columns, missing=missing))


def table(folder: Path, rows: list[tuple[Any, ...]], heading: str = "e,t,x,a,r") -> Path:
    path = folder / "log.csv"
    path.write_text("\n".join([heading, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def episode(label: Any, steps: Any, begin: int = 0) -> list[tuple[Any, ...]]:
    """Rows whose x counts on from `begin`."""
    return [(label, t, begin + i, (-1) ** i * 0.9, 0.1 * i) for i, t in enumerate(steps)]


def states(data: Transitions) -> list[list[int]]:
    """The states of every episode, the last next state too."""
    ends = np.flatnonzero(data.terminals | data.timeouts) + 1
    parts = np.split(np.arange(len(data)), ends[:-1])
    return [[*data.observations[p, 0].astype(int), int(data.next_observations[p[-1], 0])] for p in parts]


def warnings(info: DatasetInfo) -> str:
    return " | ".join(check.warning for check in info.doubts)


@given(st.integers(0, 10**6), st.lists(st.integers(2, 9), min_size=1, max_size=5))
def test_shuffled_rows_are_put_in_order(seed: int, lengths: list[int]) -> None:
    labels = np.repeat(np.arange(len(lengths)), lengths)
    steps = np.concatenate([np.arange(n) for n in lengths]).astype(np.float64)
    shuffled = np.random.default_rng(seed).permutation(len(steps))
    order = order_rows(steps[shuffled], labels[shuffled], np.arange(len(steps)), "t", "log")
    back = shuffled[order.rows]
    for number, label in enumerate(dict.fromkeys(labels[shuffled])):  # episodes in the order in which they begin
        np.testing.assert_array_equal(back[order.episode == number], np.flatnonzero(labels == label))
    assert not order.gap.any()


def test_an_interleaved_log_is_sorted_and_told(tmp_path: Path) -> None:
    rows = episode("a", range(4), 0) + episode("b", range(5), 10)
    random.Random(0).shuffle(rows)
    data, info = load(table(tmp_path, rows))
    assert sorted(states(data)) == [[0, 1, 2, 3], [10, 11, 12, 13, 14]]
    assert "rows were put in order, by episode and by t" in warnings(info)


def test_a_step_that_begins_again_begins_another_episode(tmp_path: Path) -> None:
    rows = episode("a", range(4), 0) + episode("a", range(3), 10) + episode("a", range(5), 20)
    expected = [[0, 1, 2, 3], [10, 11, 12], [20, 21, 22, 23, 24]]
    assert states(load(table(tmp_path, rows))[0]) == expected
    assert states(load(table(tmp_path, rows), "obs=x,action=a,reward=r,step=t")[0]) == expected


def test_episodes_of_one_label_in_turn_are_refused(tmp_path: Path) -> None:
    rows = [row for pair in zip(episode(0, range(4)), episode(0, range(4), 10), strict=True) for row in pair]
    with pytest.raises(UnusableData, match="rows 0 and 1 differ, but both are t 0 of one episode"):
        load(table(tmp_path, rows))
    text = "e,w,t,x,a,r"
    rows = [(row[0], i % 2, *row[1:]) for i, row in enumerate(rows)]
    data, _ = load(table(tmp_path, rows, text), "obs=x,action=a,reward=r,episode=w+e,step=t")
    assert states(data) == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_episodes_of_one_label_in_blocks_are_refused(tmp_path: Path) -> None:
    a, b = episode(0, range(4)), episode(0, range(4), 10)
    path = table(tmp_path, [*a[:2], *b[:2], *a[2:], *b[2:]])  # the steps of b seem to go on in a
    for columns, way in (
        (COLUMNS, "share a label, give each its own"),
        ("obs=x,action=a,reward=r,step=t", "episode="),
    ):
        with pytest.raises(UnusableData, match=f"rows . and . differ, but both are t . of one episode.*{way}"):
            load(path, columns)


@pytest.mark.parametrize("columns", [COLUMNS, "obs=x,action=a,reward=r,step=t"])
def test_equal_rows_of_two_episodes_are_not_repeated(tmp_path: Path, columns: str) -> None:
    rows = [*episode("a", range(4)), *episode("a", [0]), *episode("a", range(1, 3), 10)]  # both begin alike
    data, info = load(table(tmp_path, rows), columns)
    assert states(data) == [[0, 1, 2, 3], [0, 10, 11]]
    assert "repeat" not in warnings(info)
    twice = table(tmp_path, [*rows[:2], rows[1], *rows[2:]])
    assert states(load(twice, columns)[0]) == [[0, 1, 2, 3], [0, 10, 11]]


@pytest.mark.parametrize("unit", [0.1, 1, 60])
def test_steps_of_any_unit_that_begin_again_begin_another_episode(tmp_path: Path, unit: float) -> None:
    rows = episode("", [unit * t for t in range(4)]) + episode("", [0]) + episode("", [unit * t for t in range(3)], 10)
    assert states(load(table(tmp_path, rows), "obs=x,action=a,reward=r,step=t")[0]) == [[0, 1, 2, 3], [10, 11, 12]]


def test_flags_end_episodes_under_a_clock_that_goes_on(tmp_path: Path) -> None:
    rows = [(t, x, 0.1 * t, 1, int(t in (2, 6))) for t, x in enumerate([0, 1, 2, 10, 11, 12, 13, 20, 21])]
    path = table(tmp_path, [rows[i] for i in (4, 0, 8, 2, 1, 3, 7, 5, 6)], "t,x,a,r,d")
    data, info = load(path, "obs=x,action=a,reward=r,step=t,terminal=d")
    assert data.observations[:, 0].tolist() == [0, 1, 2, 10, 11, 12, 13, 20]
    assert np.flatnonzero(data.terminals).tolist() == [2, 6]
    assert "has neither timeouts nor a column of episodes" in warnings(info)


def test_a_row_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    rows = [("a", t, t, 0.1 * t, 1, 7 * (t == 2)) for t in (4, 3, 2, 1, 0)] + [("b", 0, 9, 0.3, 1, 0)]
    with pytest.raises(UnusableData, match=r"holds 7 in row 2, not 0 or 1\.$"):
        load(table(tmp_path, rows, "e,t,x,a,r,d"), f"{COLUMNS},terminal=d")
    with pytest.raises(UnusableData, match=r"holds 7 in row 2, not 0 or 1\. Row 2 is row 1 of log\.csv\.$"):
        load(table(tmp_path, rows[1:3] + rows[:1] + rows[3:], "e,t,x,a,r,d"), f"{COLUMNS},terminal=d")


MINUTES = [*range(3), *range(5, 17)]


@pytest.mark.parametrize(
    "times",
    [
        [60 * m for m in MINUTES],
        [f"2024-01-01 00:{m:02}:00" for m in MINUTES],
        [f"01.03.2024 06:{m:02}" for m in MINUTES],
        [f"2024/03/01 06:{m:02}" for m in MINUTES],
        [f"3/25/2024 6:{m:02} PM" for m in MINUTES],
        [f"3/25/2024 6:{m:02}:00 AM" for m in MINUTES],
        [f"25/03/2024 18:{m:02}:00" for m in MINUTES],
        [f"3/4/2024 6:{m:02}" for m in MINUTES],  # whichever is the month, the same times pass
    ],
)
def test_the_record_is_cut_at_a_gap(tmp_path: Path, times: list[Any]) -> None:
    rows = episode("a", times) + episode("b", times[:3], 10)
    data, info = load(table(tmp_path, rows))
    assert states(data) == [[0, 1, 2], [*range(3, 15)], [10, 11, 12]]
    assert "1 gap in t, where more than one step of 60 passes (the first after row 2" in warnings(info)


def test_irregular_steps_are_told_and_not_cut(tmp_path: Path) -> None:
    data, info = load(table(tmp_path, episode("a", [0, 1, 3, 4, 8, 9, 18])))
    assert len(states(data)) == 1
    assert "the steps of t are irregular (the usual one is 1.5, " in warnings(info)


def test_many_long_gaps_are_cut_where_the_other_steps_are_alike(tmp_path: Path) -> None:
    """A batch is left alone for three hours after every fifth of its steps of five minutes."""
    times = [300 * i + 10_800 * (i // 5) for i in range(20)]
    data, info = load(table(tmp_path, episode("a", times)))
    assert [len(part) for part in states(data)] == [5] * 4
    assert "3 gaps in t, where more than one step of 300 passes" in warnings(info)


def test_rows_that_are_there_twice_count_once(tmp_path: Path) -> None:
    rows = episode("a", range(4))
    data, info = load(table(tmp_path, [*rows[:2], rows[1], *rows[2:], rows[3]]))
    assert states(data) == [[0, 1, 2, 3]]
    assert "2 rows that repeat an earlier row were left out" in warnings(info)
    with pytest.raises(UnusableData, match="rows 1 and 2 differ, but both are t 1"):
        load(table(tmp_path, [*rows[:2], ("a", 1, 99, 0.5, 0), *rows[2:]]))


HOLES = [("a", 0, "", 0.9, 1), ("a", 1, 1, -0.9, 1), ("a", 2, "", 0.9, 1), ("a", 3, 3, -0.9, 1), ("a", 4, 4, 0.9, 1)]


@pytest.mark.parametrize(
    ("missing", "expected", "note"),
    [
        ("drop-rows", [[1, 3, 4]], "2 missing values in 2 rows, which were left out"),
        ("split-episodes", [[3, 4]], "2 missing values in 2 rows, which were left out"),
        ("fill-forward", [[1, 1, 3, 4]], "2 missing values filled with the value before; 1 rows without one were left"),
    ],
)
def test_missing_values_are_mended_as_asked(tmp_path: Path, missing: Remedy, expected: Any, note: str) -> None:
    path = table(tmp_path, [*HOLES, *episode("b", range(3), 10)])
    data, info = load(path, missing=missing)
    assert states(data) == [*expected, [10, 11, 12]]
    assert note in info.source
    with pytest.raises(UnusableData, match="column x, row 0: the cell is empty"):
        load(path)


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=30))
def test_a_value_is_filled_from_the_last_one_before_it_in_its_episode(cells: list[tuple[int, bool]]) -> None:
    labels = np.sort(np.array([label for label, _ in cells]))
    column = np.array([np.nan if lacks else float(i) for i, (_, lacks) in enumerate(cells)])
    mended = mend({"x": column}, labels, "fill-forward")
    last: dict[int, float] = {}
    for i, label in enumerate(labels):
        last[label] = last.get(label, np.nan) if np.isnan(column[i]) else column[i]
        assert mended.kept[i] == (not np.isnan(last[label]))
        if mended.kept[i]:
            assert mended.columns["x"][i] == last[label]


def test_no_value_is_taken_from_an_episode_that_a_flag_ends(tmp_path: Path) -> None:
    rows: list[tuple[Any, ...]] = [
        (0, 0.9, 1, 0),
        (1, 0.1, 1, 1),
        ("", 0.2, 1, 0),
        (6, 0.3, 1, 0),
        (7, 0.4, 1, 0),
        (8, 0.5, 1, 0),
    ]
    columns = "obs=x,action=a,reward=r,terminal=d"
    data, _ = load(table(tmp_path, rows, "x,a,r,d"), columns, "fill-forward")
    assert (data.observations[:, 0].tolist(), data.terminals.tolist()) == ([0, 1, 6, 7], [False, True, False, False])
    rows[1] = (1, 0.1, "", 1)  # the row of the terminal is left out: nothing leads from 0 to 6
    data, _ = load(table(tmp_path, rows, "x,a,r,d"), columns, "drop-rows")
    assert (data.observations[:, 0].tolist(), data.next_observations[:, 0].tolist()) == ([6, 7], [7, 8])


@pytest.mark.parametrize("word", ["", "NA", "n/a", "#N/A", "NULL", "nan"])
def test_words_for_nothing_are_missing_values(tmp_path: Path, word: str) -> None:
    for separator, sign in ((",", "."), (";", ",")):
        cells = [("a", t, word if t == 2 else f"0{sign}5", f"0{sign}{t}", 1) for t in range(5)]
        path = tmp_path / "log.csv"
        path.write_text("".join(separator.join(map(str, row)) + "\n" for row in [(*"etxar",), *cells]))
        data, info = load(path, missing="drop-rows")
        assert len(data) == 3 and "1 missing values in 1 rows" in info.source
        with pytest.raises(UnusableData, match=r"column x.*row 2.*--missing"):
            load(path)


def test_the_end_of_an_episode_that_lacks_a_value_moves_to_the_row_before(tmp_path: Path) -> None:
    rows = [("a", 0, 0, 0.9, 1), ("a", 1, 1, -0.9, 1), ("a", 2, 2, 0.9, ""), ("b", 0, 5, 0.4, 1), ("b", 1, 6, 0.5, 1)]
    for missing in ("drop-rows", "split-episodes"):
        assert states(load(table(tmp_path, rows), missing=missing)[0]) == [[0, 1], [5, 6]]


def test_categories_become_a_column_for_each_value(tmp_path: Path) -> None:
    rows = [("a", t, t, 0.1 * t, sex, 1) for t, sex in enumerate("FMMFX")]
    path = table(tmp_path, rows, "e,t,x,a,sex,r")
    data, info = load(path, "obs=x+sex:onehot,action=a,reward=r,episode=e")
    assert data.observations[:, 1:].tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert data.next_observations[-1, 1:].tolist() == [0, 0, 1]
    assert "observations = x + sex:onehot" in info.source
    with pytest.raises(UsageError, match="reward=r:onehot: the ending :onehot is for obs and next_obs"):
        load(path, "obs=x,action=a,reward=r:onehot,episode=e")
    many = table(tmp_path, [("a", t, f"w{t}", 0.1 * t, 1) for t in range(150)], "e,t,x,a,r")
    with pytest.raises(UnusableData, match="column x has 150 different values; :onehot takes at most 100"):
        load(many, "obs=x:onehot,action=a,reward=r,episode=e")


HERE = ["yield", "cost", "a-b", "1e-3", "x*y", "-z"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("yield", {"yield": 1}),
        ("-cost", {"cost": -1}),
        ("yield-cost", {"yield": 1, "cost": -1}),
        ("0.5*yield + 2 * cost", {"yield": 0.5, "cost": 2}),
        ("1e-3*yield-1.5E+2*cost", {"yield": 0.001, "cost": -150}),
        ("a-b-cost", {"a-b": 1, "cost": -1}),
        ("-a-b", {"a-b": -1}),
        ("1e-3+x*y", {"1e-3": 1, "x*y": 1}),
        ("-z", {"-z": 1}),
        ("yield+yield", {"yield": 2}),
        ("other-cost", {"other": 1, "cost": -1}),
    ],
)
def test_a_reward_is_a_weighted_sum_of_columns(text: str, expected: dict[str, float]) -> None:
    assert reward_terms(text, HERE) == pytest.approx(expected)


def test_a_reward_is_made_of_terms_and_costs(tmp_path: Path) -> None:
    rows = [("a", t, t, 0.1 * t, t**2, 3) for t in range(5)]
    path = table(tmp_path, rows, "e,t,x,a,q,c")
    data, info = load(path, "obs=x,action=a,reward=0.5*q-c,episode=e")
    assert data.rewards.tolist() == [0.5 * t**2 - 3 for t in range(4)]
    assert "rewards = 0.5 * q + -1 * c" in info.source
    with pytest.raises(InputError, match="column cost"):
        load(path, "obs=x,action=a,reward=q-cost,episode=e")


@pytest.mark.parametrize(
    ("actions", "what"),
    [
        ({"a": [i % 25 for i in range(2000)]}, r"discrete actions: 25 different whole numbers in 2000 rows \(0, 1, "),
        ({"a": [i % 3 == 0 for i in range(90)], "b": [i % 3 > 0 for i in range(90)]}, "one of several choices"),
    ],
)
def test_bins_and_choices_are_refused_or_taken_for_quantities(tmp_path: Path, actions: Any, what: str) -> None:
    count = len(actions["a"])
    columns: dict[str, Any] = {
        "observations": np.arange(count, dtype=np.float32)[:, None],
        "rewards": np.arange(count) % 7,
    }
    columns |= {name: np.array(values, np.int64) for name, values in actions.items()}
    path = tmp_path / "log.npz"
    np.savez(path, allow_pickle=False, **columns)
    names = "+".join(actions)
    with pytest.raises(UnusableData, match=f"column a holds {what}"):
        load(path, f"obs=observations,action={names},reward=rewards")
    quantities = "+".join(f"{name}:quantity" for name in actions)
    assert load(path, f"obs=observations,action={quantities},reward=rewards")[0].act_dim == len(actions)


def test_whole_numbers_that_leave_gaps_or_stand_beside_others_are_quantities(tmp_path: Path) -> None:
    rows = [("a", t, t, (t * 7) % 300, 0.5 * (t % 2), t % 5) for t in range(500)]
    path = table(tmp_path, rows, "e,t,x,a,b,r")
    assert load(path, "obs=x,action=a+b,reward=r,episode=e")[0].act_dim == 2
    assert load(path, "obs=x,action=a,reward=r,episode=e")[0].act_dim == 1
