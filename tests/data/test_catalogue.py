import csv
from pathlib import Path

import pytest
from probes.minari_sets import buffers, log, walk, write

import mopo_cli
from mopo_cli.data.minari import remote as minari_remote
from mopo_cli.data.minari.sets import minari_root
from mopo_cli.data.registry import KINDS, catalogue, parse_dataset
from mopo_cli.data.source import Entry
from mopo_cli.errors import NetworkError
from mopo_cli.store.atomic import write_json
from mopo_cli.store.run import cache_dir

D4RL = list(csv.DictReader((Path(mopo_cli.__file__).parent / "data/d4rl_files.csv").open()))


def names(pattern: str | None = None, kind: str | None = None) -> list[str]:
    return [entry.name for entry in catalogue(pattern) if kind in (None, entry.kind)]


def only(pattern: str, kind: str) -> Entry:
    (entry,) = [entry for entry in catalogue(pattern) if entry.kind == kind]
    return entry


def test_with_nothing_here_it_knows_what_can_be_had_and_touches_nothing() -> None:
    entries = catalogue()
    assert {entry.kind for entry in entries} == {"d4rl", "generate"}
    d4rl = [(entry.name, entry.bytes) for entry in entries if entry.kind == "d4rl"]
    assert sorted(d4rl) == sorted((row["d4rl_id"], int(row["bytes"])) for row in D4RL) and len(d4rl) > 40
    assert not any(entry.here for entry in entries if entry.kind == "d4rl")
    assert not cache_dir().exists() and not minari_root().exists()


def test_every_name_is_one_that_fetch_data_takes() -> None:
    for entry in catalogue():
        parsed = parse_dataset(entry.name.replace("LEVEL", "expert"))
        assert (entry.environment, parsed.kind) == (parsed.env_id, entry.kind)
    assert {"hiv", "halfcheetah-jump", "ant-angle"} <= set(names(kind="generate"))


@pytest.mark.parametrize(
    ("pattern", "matching"),
    [
        ("HOPPER-random", ["hopper-random-v0", "hopper-random-v2"]),
        (
            "hopper-*-v0",
            [f"hopper-{level}-v0" for level in ("expert", "medium-expert", "medium-replay", "medium", "random")],
        ),
        ("hopper-mixed", ["hopper-medium-replay-v0", "hopper-medium-replay-v2"]),
        ("generate:*:Medium-Replay", [f"generate:{e}-v5:LEVEL" for e in ("Hopper", "HalfCheetah", "Walker2d", "Ant")]),
        ("hiv", ["hiv"]),
        ("hivtreatment", ["hiv"]),
        ("[hw]*r2d-*expert-v2", ["walker2d-expert-v2", "walker2d-medium-expert-v2"]),
        ("opper-random-v?", []),
        ("no such thing", []),
    ],
)
def test_a_pattern_is_part_of_a_name_or_a_glob_for_all_of_it(pattern: str, matching: list[str]) -> None:
    listed = names(pattern)
    assert set(matching) <= set(listed)
    assert pattern.startswith("generate") or len(listed) == len(matching)


def test_what_is_fetched_already_is_here() -> None:
    folder = cache_dir() / "datasets" / "hopper-medium-0123456789ab"
    write_json(
        folder / "dataset.json", {"dataset_id": "hopper-medium-v2", "sha256": "0" * 64, "source": "D4RL, mended"}
    )
    assert names("hopper-medium-v2", "fetched") == []  # its file is missing
    (folder / "dataset.h5").write_bytes(b"12345")
    for name, text in (("bad", "{"), ("odd", "[]"), ("odder", '{"dataset_id": 1}')):
        (folder.parent / name).mkdir()
        (folder.parent / name / "dataset.json").write_text(text)
        (folder.parent / name / "dataset.h5").write_bytes(b"1")
    assert names(kind="fetched") == ["hopper-medium-v2"]
    entry = only("hopper-medium-v2", "fetched")
    assert (entry.bytes, entry.path, entry.note) == (5, str(folder / "dataset.h5"), "D4RL, mended")
    assert [entry.name for entry in catalogue() if entry.kind == "d4rl" and entry.here] == ["hopper-medium-v2"]


def test_a_download_that_is_kept_is_here() -> None:
    (row,) = (row for row in D4RL if row["d4rl_id"] == "hopper-random-v2")
    copy = cache_dir() / "downloads" / "d4rl" / row["url"].rpartition("/")[2]
    copy.parent.mkdir(parents=True)
    for size, here in ((int(row["bytes"]) - 1, False), (int(row["bytes"]), True)):
        with copy.open("wb") as file:
            file.truncate(size)
        assert only("hopper-random-v2", "d4rl").here is here


def test_minaris_sets_are_told_with_what_is_wrong() -> None:
    import gymnasium as gym

    environment = gym.make("Pendulum-v1", max_episode_steps=9)
    write("pend/random-v0", buffers(log(environment, 2)), env=environment)
    (write("pend/half-v0", buffers(walk())) / "main_data.hdf5").unlink()
    write("toy-v0", buffers(walk()))
    assert names(kind="minari") == ["minari:pend/half-v0", "minari:pend/random-v0", "minari:toy-v0"]
    assert names("Pendulum-v1", "minari") == ["minari:pend/random-v0"]
    good, bad = only("pend/random", "minari"), only("pend/half", "minari")
    assert (good.environment, good.transitions, good.here, good.note) == ("Pendulum-v1", 18, True, "")
    assert good.bytes is not None and good.bytes > (Path(good.path or "") / "data/main_data.hdf5").stat().st_size
    assert (bad.transitions, bad.here) == (None, False) and "incomplete" in bad.note
    assert only("toy", "minari").environment is None


def test_the_remote_is_asked_only_when_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    write("toy-v0", buffers(walk()))
    there = {
        "toy-v0": {"total_steps": 15, "dataset_size": 0.5, "env_spec": '{"id": "Hopper-v5"}'},
        "mujoco/hopper/expert-v0": {"total_steps": "many", "dataset_size": None, "env_spec": "{"},
    }
    monkeypatch.setattr(minari_remote, "remote_sets", lambda: there)
    assert names(kind="minari-remote") == []
    far, near = (entry for entry in catalogue(remote=True) if entry.kind == "minari-remote")
    assert (far.name, far.transitions, far.bytes, far.environment, far.here) == (
        "minari:mujoco/hopper/expert-v0",
        *(None, None, None, False),
    )
    assert (near.name, near.transitions, near.bytes, near.environment, near.here) == (
        "minari:toy-v0",
        *(15, 500_000, "Hopper-v5", True),
    )
    assert [entry.kind for entry in catalogue("toy", remote=True)] == ["minari", "minari-remote"]


def test_a_remote_that_cannot_be_reached_is_an_error() -> None:
    with pytest.raises(NetworkError, match="offline"):  # as the tests' environment says
        catalogue(remote=True)


def test_kinds_come_in_the_order_that_is_named() -> None:
    order = [entry.kind for entry in catalogue()]
    assert order == sorted(order, key=list(KINDS).index)
