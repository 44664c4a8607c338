"""The column map: what it may say, how its globs are filled in, and how every fault is told."""

from pathlib import Path
from typing import Any

import pytest

from mopo_cli.data.files.column_map import ColumnMap, Sources, map_file, parse_column_map
from mopo_cli.data.files.resolve_columns import FileColumns, conventional, in_words, list_once, resolve
from mopo_cli.errors import InputError, UsageError

HERE = ["time", "temp", "sensor_2", "sensor_10", "sensor_1", "valve", "yield", "batch id", "a*b", "aXb"]


def yaml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "map.yaml"
    path.write_text(text)
    return str(path)


def resolved(text: str) -> Sources:
    return of_file(text).sources


def of_file(text: str) -> FileColumns:
    columns, faults = resolve(parse_column_map(text).columns, HERE, "my.csv")
    assert faults == []
    return columns


def test_text_and_yaml_say_the_same(tmp_path: Path) -> None:
    text = "obs=temp + sensor_*,action=valve, reward=yield,episode=batch id,terminal=failed,next_obs=n"
    expected = {
        "observations": ("temp", "sensor_*"),
        "actions": ("valve",),
        "rewards": ("yield",),
        "episode": ("batch id",),
        "terminals": ("failed",),
        "next_observations": ("n",),
    }
    assert parse_column_map(text) == ColumnMap(expected)
    long = (
        "observations=temp+sensor_*,actions=valve,rewards=yield,episode=batch id,terminals=failed,next_observations=n"
    )
    assert parse_column_map(long) == ColumnMap(expected)
    written = "obs: [temp, sensor_*]\naction: valve\nreward: yield\nepisode: batch id\nterminal: failed\nnext_obs: n\n"
    assert parse_column_map(yaml(tmp_path, written)) == ColumnMap(expected)
    assert parse_column_map(None) == ColumnMap()


def test_a_yaml_file_can_name_what_text_cannot_and_give_bounds(tmp_path: Path) -> None:
    path = yaml(tmp_path, "obs: ['a=b, c', 7]\naction_low: [0, -1.5]\naction_high: [100, 2]\n")
    assert parse_column_map(path) == ColumnMap({"observations": ("a=b, c", "7")}, (0.0, -1.5), (100.0, 2.0))
    assert map_file(path) == Path(path)
    assert map_file("obs=a") is None and map_file(None) is None


def test_globs_are_filled_in_in_the_files_order() -> None:
    assert resolved("obs=temp+sensor_*")["observations"] == ("temp", "sensor_2", "sensor_10", "sensor_1")
    assert resolved("obs=*e*")["observations"] == tuple(HERE[:7])
    assert resolved("obs=a*b,action=aXb") == {"observations": ("a*b",), "actions": ("aXb",)}  # a column is called that
    assert in_words(of_file("obs=sensor_*,reward=yield")) == (
        "observations = sensor_2 + sensor_10 + sensor_1; rewards = yield"
    )


def test_every_missing_column_is_told_with_the_closest_and_what_there_is() -> None:
    _, faults = resolve(parse_column_map("obs=tempp+sensor_1,action=pump_*,reward=yeild").columns, HERE, "my.csv")
    texts = [check.fault for check in faults]
    assert len(texts) == 3 and all("the file holds time, temp, sensor_2" in fault for fault in texts)
    assert texts[0].startswith("my.csv: column tempp is missing (did you mean 'temp'?)")
    assert texts[1].startswith("my.csv: column pump_* is missing")
    assert "'yield'" in texts[2]
    _, (fault,) = resolve({"rewards": ("x",)}, [f"c{i}" for i in range(10_000)], "wide.csv")
    assert len(fault.fault) < 300


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("obs=temp+temp", "column temp for observations twice"),
        ("obs=temp,action=temp", "column temp for observations and actions"),
        ("obs=sensor_*,action=sensor_10", "column sensor_10 for observations and actions"),
        ("obz=temp", "'obz'.*did you mean 'obs'"),
        ("reward=a,rewards=b", "gives rewards twice"),
        ("terminal=a+b", r"terminal 2 columns"),
        ("reward=s*", r"reward 3 columns .* give it one, or add them up: reward=sensor_2\+sensor_10\+sensor_1"),
        ("obs=a++b", "obs an empty column name"),
        ("obs=a,", "--columns: '' must be written"),
        ("obs=", "--columns: 'obs=' must be written"),
        ("=a", "--columns: '=a' must be written"),
        ("obs=a,b", "--columns: 'b' must be written"),
        ("action_low=0", "'action_low'"),
    ],
)
def test_what_a_map_may_not_say(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolved(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("obs: [a", InputError, "not valid YAML"),
        ("obs: !!python/object/apply:os.system ['x']", InputError, "not valid YAML"),
        ("[" * 2000, InputError, "nested deeper"),
        ("- obs", UsageError, "names and columns"),
        ("3: [a]", UsageError, "names and columns"),
        ("", UsageError, "names and columns"),
        ("obs: {a: b}", UsageError, "obs a column name or a list"),
        ("obs: [[a]]", UsageError, "obs a column name or a list"),
        ("obs: []", UsageError, "obs an empty column name"),
        ("obs:", UsageError, "obs a column name or a list"),
        ("obs: a\nobservations: b", UsageError, "gives observations twice"),
        ("next-obs: a", UsageError, "did you mean 'next_obs'"),
        ("action_low: [0]", UsageError, "gives only action_low"),
        ("action_low: 0\naction_high: [1]", UsageError, "action_low a list of numbers"),
        ("action_low: [a]\naction_high: [1]", UsageError, "action_low a list of numbers"),
        ("action_low: [true]\naction_high: [1]", UsageError, "action_low a list of numbers"),
    ],
)
def test_what_a_yaml_map_may_not_say(tmp_path: Path, text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_column_map(yaml(tmp_path, text))


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_map_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "map.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"map\.yaml is neither"):
        parse_column_map(str(tmp_path / "map.yaml"))


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (
            ["obs_0", "obs_1", "action_0", "reward"],
            {"observations": ("obs_0", "obs_1"), "actions": ("action_0",), "rewards": ("reward",)},
        ),
        (
            ["episode", "terminal", "timeout", *(f"obs_{i}" for i in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)), "next_obs_0"],
            {
                "observations": tuple(f"obs_{i}" for i in range(11)),
                "next_observations": ("next_obs_0",),
                "terminals": ("terminal",),
                "timeouts": ("timeout",),
                "episode": ("episode",),
            },
        ),
        (["Obs", "Reward"], {}),
        (["obs", "observations", "reward"], {"observations": ("observations",), "rewards": ("reward",)}),
    ],
)
def test_the_names_of_tables_without_a_map(here: list[str], expected: Any) -> None:
    assert conventional(here) == expected


@pytest.mark.parametrize(("numbers", "lacking"), [((0, 1, 3), "obs_2"), ((1, 2), "obs_0"), ((0, 999999), "obs_1")])
def test_a_gap_among_the_conventional_names_is_told(numbers: tuple[int, ...], lacking: str) -> None:
    here = [f"obs_{i}" for i in numbers]
    _, faults = resolve(conventional(here), here, "my.csv")
    assert [check.column for check in faults] == [f"{lacking} (observations)"]


DEMOS = [f"data/demo_{i}/{name}" for i in range(4) for name in ("actions", "obs/pos", "obs/object", "rewards")]


@pytest.mark.parametrize("text", ["obs=data/*/obs/pos", "obs=data/*/obs/*", "reward=data/*/rewards", "obs=*"])
def test_a_glob_over_groups_is_no_widening(text: str) -> None:
    with pytest.raises(UsageError, match=r"[48] groups \(data/demo_0.*side by side.*episodes") as caught:
        resolve(parse_column_map(text).columns, DEMOS, "my.h5")
    assert caught.value.exit_code == 2


def test_a_glob_inside_a_group_is_filled_in_and_tables_have_no_groups() -> None:
    columns, _ = resolve(parse_column_map("obs=data/demo_1/obs/*").columns, DEMOS, "my.h5")
    assert columns.sources == {"observations": ("data/demo_1/obs/pos", "data/demo_1/obs/object")}
    columns, _ = resolve({"observations": ("speed*",)}, ["speed m/s", "speed km/h"], "my.csv", in_groups=False)
    assert columns.sources == {"observations": ("speed m/s", "speed km/h")}


@pytest.mark.parametrize("name", ["reward", "terminal", "timeout", "episode"])
def test_a_glob_gives_one_column_where_one_is_needed(name: str) -> None:
    with pytest.raises(UsageError, match=rf"--columns gives {name} 3 columns \(sensor_2 \+ .*\): give it one"):
        resolve(parse_column_map(f"{name}=sensor_*").columns, HERE, "my.csv")
    assert resolved(f"{name}=yie*") == {parse_column_map(f"{name}=a").columns.popitem()[0]: ("yield",)}


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*ab*ab*", "abab", True),
        ("*ab*ab*", "aab", False),
        ("a*b*c", "abc", True),
        ("a*b*c", "acb", False),
        ("a.*", "abc", False),
        ("*", "", True),
        ("*\n*", "a\nb", True),
        ("*a" * 12 + "*b", "a" * 5000, False),
    ],
)
def test_a_star_stands_for_anything(pattern: str, name: str, fits: bool) -> None:
    columns, faults = resolve({"observations": (pattern,)}, [name], "my.csv")
    assert (faults == [], columns.sources["observations"]) == (fits, (name if fits else pattern,))


def test_what_the_file_holds_is_listed_once() -> None:
    _, faults = resolve(parse_column_map("obs=a,action=b,reward=c").columns, HERE, "my.csv")
    counts = [check.fault.count("the file holds") for check in list_once(faults, HERE)]
    assert counts == [1, 0, 0]
