"""JSON lines: what is read, and every fault in one sentence that names the line."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from data.test_layouts import Episode, load
from data.test_table_layouts import json_lines

from mopo_cli.data.files.layouts import open_log
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.log_files import log_files
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.errors import InputError

STEP = {"obs": [1.0, 2.0], "action": [0.5], "reward": 1.0}
PACKED = base64.b64encode(b"\x04\x22\x4d\x18" + b"\x60" * 50).decode()  # the mark of an LZ4 frame


def batch(steps: int = 2) -> Episode:
    actions = [[0.5 * i] for i in range(steps)]
    return {"type": "SampleBatch", "obs": [[1.0, 2.0]] * steps, "actions": actions, "rewards": [1.0] * steps}


def line(**changes: Any) -> str:
    return json.dumps(STEP | changes) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"my\.json holds no line\."),
        (line() + "{" * 3, r"line 2 is not a JSON object \(Expecting property name"),
        (line() + "\n[1]\n", r"line 3 holds no JSON object\."),
        (line() + '{"obs": ' + "[" * 100_000, r"line 2 is nested too deeply\."),
        (line() + '{"obs": ' + "9" * 5000 + "}", "line 2 is not a JSON object"),
        (line() + line(obs=[1.0]), r"line 2: obs has \[1\] a step, but \[2\] in the first line\."),
        (line() + line(obs=[1.0, [2.0]]), "line 2: obs is not a list of numbers, or of lists of one length"),
        (
            line() + line(obs=["a", 1.0]),
            r"column obs holds text \('a' in line 2\), not numbers; categories: one column",
        ),
        (line() + line(reward=None), r"line 2 has no value for reward\."),
        (line() + line(done=True), r"line 2 has done, but the first has not\."),
        (json.dumps(batch() | {"obs": PACKED}), r"line 1: obs is packed: write it with compress_columns=\[\]"),
        (json.dumps(batch() | {"rewards": [1.0]}), r"line 1: rewards has 1 steps, but obs has 2\."),
        (json.dumps(batch() | {"rewards": 1.0}), r"line 1: rewards has no list of steps\."),
        (json.dumps({"type": "MultiAgentBatch", "policy_batches": {"a": {}, "b": {}}}), "of several policies: write"),
    ],
)
def test_lines_that_do_not_do_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "my.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load(path)


def test_the_batches_of_one_policy_are_read(tmp_path: Path) -> None:
    document = {
        "type": "MultiAgentBatch",
        "count": 3,
        "policy_batches": {"default_policy": batch(3) | {"dones": [0, 0, 1]}},
    }
    transitions, _ = load(json_lines(tmp_path / "my.jsonl", [document, document]))
    assert transitions.terminals.tolist() == [False, False, True] * 2


def test_labels_in_lines_may_be_words(tmp_path: Path) -> None:
    lines = [STEP | {"obs": [float(i), 0.0], "action": [0.5 * i], "episode": "ab"[i // 3]} for i in range(6)]
    transitions, _ = load(json_lines(tmp_path / "my.jsonl", lines))
    assert (
        transitions.observations[:, 0].tolist() == [0, 1, 3, 4] and transitions.timeouts.tolist() == [False, True] * 2
    )


@pytest.mark.parametrize("one", [batch(3) | {"actions": [0, 1, 0]}, STEP | {"action": 1}])
def test_discrete_actions_in_lines_are_refused(tmp_path: Path, one: Episode) -> None:
    with pytest.raises(InputError, match="holds discrete actions"):
        load(json_lines(tmp_path / "my.jsonl", [one, one, one]))


def test_the_first_line_may_lack_a_value(tmp_path: Path) -> None:
    lines = [{"x": None if i == 0 else i, "a": 0.1 * i, "r": 1} for i in range(5)]
    path = tmp_path / "my.jsonl"
    path.write_text("".join(f"{json.dumps(one)}\n" for one in lines))
    data, _ = load_local([path], None, ["0" * 64], Reading("obs=x,action=a,reward=r", missing="drop-rows"))
    assert data.observations[:, 0].tolist() == [1, 2, 3]
    with pytest.raises(InputError, match=r"line 1 has no value for x\. .*--missing"):
        load_local([path], None, ["0" * 64], Reading("obs=x,action=a,reward=r"))


def test_objects_in_a_line_are_groups(tmp_path: Path) -> None:
    lines = [STEP | {"obs": {"arm": [float(i)], "cube": {}, "t": i}, "action": [0.5 * i]} for i in range(4)]
    path = json_lines(tmp_path / "my.jsonl", lines)
    assert open_log([path]).names == ["obs/arm", "obs/t", "action", "reward"]
    assert load(path)[0].observations.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_json_beside_other_files_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "about.json").write_text("{}")
    assert log_files(tmp_path) == [tmp_path / "t.csv"]
    (tmp_path / "t.csv").unlink()
    assert log_files(tmp_path) == [tmp_path / "about.json"]


def test_the_logs_beside_their_descriptions_are_suggested(tmp_path: Path) -> None:
    """As LeRobot lays its folders out."""
    for name in ("data/chunk-000/episode_000000.parquet", "meta/info.json", "meta/episodes.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        log_files(tmp_path)
    assert f"{tmp_path}/**/*.parquet" in caught.value.hint


def test_one_object_may_be_a_whole_log(tmp_path: Path) -> None:
    """Beside another that is one episode, its ends are still its own."""
    whole = {"obs": [[float(i)] for i in range(8)], "action": [[0.5 - i] for i in range(8)], "reward": [1.0] * 8}
    path = json_lines(tmp_path / "a.json", [whole | {"terminated": [i in (3, 7) for i in range(8)]}])
    data, _ = load(path)
    assert data.terminals.nonzero()[0].tolist() == [3, 7] and data.observations[:, 0].tolist() == [*range(8)]
    json_lines(tmp_path / "b.json", [whole | {"terminated": [False] * 8}] * 2)
    data, _ = load(tmp_path)
    assert data.terminals.nonzero()[0].tolist() == [3, 7] and data.timeouts.nonzero()[0].tolist() == [14, 21]


@pytest.mark.parametrize("name", ["obs", "observation", "observations"])
def test_observations_in_a_group_of_any_usual_name(tmp_path: Path, name: str) -> None:
    lines = [{"action": [0.5 - i], "reward": 1.0, name: {"pos": [i, -i], "goal": 3 * i}} for i in range(4)]
    data, source = load(json_lines(tmp_path / "my.jsonl", lines))
    assert f"observations = {name}/pos + {name}/goal;" in source
    assert data.observations.tolist() == [[0, 0, 0], [1, -1, 3], [2, -2, 6]]


def steps(folder: Path, *some: Episode) -> Path:
    (folder / "my.jsonl").write_text("".join(line(reward=float(i), **step) for i, step in enumerate(some)))
    return folder / "my.jsonl"


def test_observations_in_objects_inside_objects_are_all_read(tmp_path: Path) -> None:
    obs = [{"arm": {"pos": i, "joint": {"v": [i + 0.5, -i]}}, "t": 7 * i} for i in range(4)]
    data, source = load(steps(tmp_path, *({"obs": each, "action": [0.5 - i]} for i, each in enumerate(obs))))
    assert "observations = obs/arm/pos + obs/arm/joint/v + obs/t;" in source
    assert data.observations.tolist() == [[0, 0.5, 0, 0], [1, 1.5, -1, 7], [2, 2.5, -2, 14]]


@pytest.mark.parametrize("odd", [[{"x": 1}], [[{"x": 1}]]])
def test_an_observation_that_is_no_number_is_not_left_out(tmp_path: Path, odd: Any) -> None:
    path = steps(tmp_path, *({"obs": {"x": i, "objects": odd}, "action": [0.5 - i]} for i in range(4)))
    with pytest.raises(InputError, match="obs/objects"):
        load(path)


def test_a_vector_that_lacks_is_a_missing_value(tmp_path: Path) -> None:
    path = steps(tmp_path, *({"obs": None if i in (0, 2) else [i, 9], "action": [0.5 - i]} for i in range(5)))
    data, _ = load_local([path], None, ["0"], Reading(missing="drop-rows"))
    assert data.observations.tolist() == [[1, 9], [3, 9]] and data.rewards.tolist() == [1, 3]


@pytest.mark.parametrize("flags", [b"\x40", b"\x48", b"\x64", b"\x7d"])
def test_packed_columns_are_known_by_any_lz4_frame(tmp_path: Path, flags: bytes) -> None:
    packed = base64.b64encode(b"\x04\x22\x4d\x18" + flags + b"\x40\xa7" * 9).decode()
    path = steps(tmp_path, {"obs": packed}, {"obs": packed})
    with pytest.raises(InputError, match="line 1: obs is packed: write it with compress_columns"):
        load(path)


def test_utf16_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").write_bytes((line() + line()).encode("utf-16"))
    with pytest.raises(InputError, match=r"my\.jsonl is UTF-16, but JSON is read as UTF-8"):
        load(tmp_path / "my.jsonl")
