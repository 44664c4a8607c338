"""``mopo show`` tells what a thing is, how it was made and where each setting came from."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from matplotlib.image import imread

from mopo_cli.data.checks import Check
from mopo_cli.data.transition_files import write_dataset
from mopo_cli.data.transitions import COLUMNS, DatasetInfo, Transitions
from mopo_cli.store.atomic import write_json
from mopo_cli.store.lineage import StageRecord, describe_files, record_stage
from mopo_cli.store.run import RunFolder, cache_dir

GENERATED = "generate:Toy-v0:medium"
RECIPE = {"level": "medium", "steps": 3000, "settings": {"hidden": 64}, "curve": [[1000, 5.0], [3000, 77.5]]}


def rows(**changes: Any) -> Transitions:
    """Two episodes of 30 steps that return 30 and 60, the second cut off; obs[1] is constant."""
    draw = np.random.default_rng(0)
    obs = draw.standard_normal((60, 3)).astype(np.float32)
    obs[:, 1] = 2
    actions = draw.uniform(-0.9, 0.9, (60, 1)).astype(np.float32)
    actions[::2] = 1
    rewards = np.repeat([1, 2], 30).astype(np.float32)
    terminals = np.arange(60) == 29
    made = Transitions(obs, actions, rewards, np.roll(obs, -1, axis=0), terminals, np.zeros(60, np.bool_))
    return replace(made, **changes)


INFO = DatasetInfo(
    dataset_id=GENERATED,
    env_id="Toy-v0",
    source="generated " + "by something with a long description " * 6,
    action_low=-np.ones(1, np.float32),
    action_high=np.ones(1, np.float32),
    termination="none",
    reference_min=None,
    reference_max=None,
    seed=0,
    recipe=RECIPE,
)


def cached(folder: str, dataset_id: str = GENERATED, age: int = 0, **changes: Any) -> Path:
    """A dataset in the cache, as fetch-data leaves it there ``age`` seconds ago."""
    path = cache_dir() / "datasets" / folder / "dataset.h5"
    write_dataset(path, rows(**changes), replace(INFO, dataset_id=dataset_id))
    write_json(path.with_name("dataset.json"), {"dataset_id": dataset_id, "sha256": "0" * 64, "source": "s"})
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def fetched_into(run: Path, path: Path) -> None:
    folder = RunFolder(run)
    files = describe_files(folder, {"dataset": path})
    record_stage(folder, "fetch-data", StageRecord({"dataset": GENERATED}, {}, files, {}, 1.0, "2026-01-01T00:00:00"))


@pytest.fixture
def run(shell: Any) -> Path:
    shell("run quickstart --config")  # wrong on purpose: leaves no run behind
    assert not Path("runs").exists()
    Path("mine.yaml").write_text("train-policy:\n  lam: 2\n")
    assert shell("run quickstart --config mine.yaml") == 0
    return Path("runs/quickstart")


def test_a_run_folder_lists_its_stages_with_settings_and_origins(shell: Any, run: Path) -> None:
    for path in (run, run / "run.json"):
        assert shell(f"show {path}") == 0
        lines = shell.out.splitlines()
        assert lines[0] == "runs/quickstart: run folder"
        words = [line.split() for line in lines]
        assert ["lam", "2", "mine.yaml"] in words
        assert ["seeds", "3", "preset", "quickstart"] in words
        assert ["transitions", "20000", "preset", "quickstart"] in words
        assert ["rollouts", "fresh", "default"] in words
        stages = [line.split(":")[0] for line in lines if ": made " in line]
        assert stages[:3] == ["fetch-data", "train-model", "select-elites"]
        assert stages[-1] == "evaluate"


def test_json_holds_the_same(shell: Any, run: Path) -> None:
    assert shell(f"show {run} --json") == 0
    result = json.loads(shell.out)
    training = next(stage for stage in result["stages"] if stage["stage"].startswith("train-policy"))
    assert (training["settings"]["lam"], training["origins"]["lam"]) == (2.0, "mine.yaml")


def test_a_data_file_shows_its_columns_and_attributes(shell: Any, tmp_path: Path) -> None:
    with h5py.File("data.h5", "w") as file:
        file.attrs["kind"] = "rollouts"
        file.attrs["dataset_id"] = "generate:Toy:random"
        file.attrs["action_low"] = np.array([-1.0, -2.0], dtype=np.float32)
        file["observations"] = np.zeros((7, 3), dtype=np.float32)
        file["uncertainty/ens"] = np.zeros(7, dtype=np.float32)
        file["outside"] = h5py.ExternalLink("/etc/hostname", "/")
    assert shell("show data.h5") == 0
    assert shell.out.splitlines()[0] == "data.h5: rollouts"
    for piece in ("dataset_id: generate:Toy:random", "action_low: -1 -2", "column observations: 7 x 3 float32"):
        assert piece in shell.out
    assert "column uncertainty/ens: 7 float32" in shell.out
    assert "hostname" not in shell.out


def test_a_file_in_a_run_names_the_stage_that_made_it(shell: Any, run: Path) -> None:
    made = run / "elites.json"
    (run / "select-elites.out").rename(made)
    made.write_text('{"elites": {"0": [1, 2]}}')
    lineage = json.loads((run / "run.json").read_text())
    lineage["stages"]["select-elites"]["outputs"]["dataset"]["path"] = "elites.json"
    (run / "run.json").write_text(json.dumps(lineage))
    assert shell(f"show {made}") == 0
    assert shell.out.startswith(f"{made}: elites\n")
    assert "select-elites: made 2026-01-01" in shell.out
    assert "train-model" not in shell.out


def test_tensors_show_what_they_say_of_themselves(shell: Any) -> None:
    torch = pytest.importorskip("torch")
    from mopo_cli.store.checkpoint import save_tensors

    save_tensors(Path("w.safetensors"), {"a": torch.zeros(2, 3)}, {"kind": "policy", "obs_dim": 4, "more": {"x": 1}})
    assert shell("show w.safetensors") == 0
    assert shell.out.splitlines()[0] == "w.safetensors: policy"
    for piece in ("obs_dim: 4", "tensors: 1", "numbers: 6"):
        assert piece in shell.out


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("missing.h5", None, 4),
        ("not.h5", b"this is no HDF5 file", 5),
        ("truncated.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", 5),
        ("broken.json", b"{", 5),
        ("list.json", b"[1]", 4),
        ("notes.txt", b"hello", 4),
    ],
)
def test_what_cannot_be_shown_is_told_in_a_sentence(shell: Any, name: str, content: bytes | None, code: int) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert shell(f"show {name}") == code
    assert name in shell.err
    assert shell.out == ""


def test_a_folder_that_is_no_run(shell: Any, tmp_path: Path) -> None:
    assert shell(f"show {tmp_path}") == 4
    assert "run.json" in shell.err


def test_a_dataset_is_portrayed(shell: Any) -> None:
    write_dataset(Path("data.h5"), rows(), INFO)
    assert shell("show data.h5") == 0
    assert shell.err == ""
    assert max(map(len, shell.out.splitlines())) <= 120
    text = " ".join(shell.out.split())
    for piece in (
        "data.h5: dataset",
        f"dataset_id: {GENERATED}",
        "column observations: 60 x 3 float32",
        "recipe: level medium; steps 3,000; 2 evaluations, the last 77.5 after 3,000 steps",
        "60 transitions in 2 episodes",
        "returns: mean 45, std 15,",
        "terminal 50 %, timeout 0 %, neither (cut off) 50 %",
        "constant dimensions (1): obs[1]",
        "at low 0 %, at high 50 %",
        "coverage: distance",
    ):
        assert piece in text, piece
    assert "hidden" not in text and "█" in text


def test_json_holds_the_statistics_in_one_object(shell: Any) -> None:
    wide = np.random.default_rng(0).standard_normal((60, 40)).astype(np.float32)
    write_dataset(Path("data.h5"), rows(observations=wide, next_observations=wide), INFO)
    assert shell("show data.h5 --json") == 0
    assert len(shell.out.splitlines()) == 1
    result = json.loads(shell.out)
    assert result["about"]["recipe"] == RECIPE and result["about"]["env_kwargs"] == {}
    picture = result["portrait"]
    assert picture["summary"]["return_mean"] == 45
    assert [column["name"] for column in picture["observations"]] == [f"obs[{i}]" for i in range(40)]
    assert picture["saturation"][0]["at_high"] == 0.5
    assert picture["neighbours"]["references"] == 60
    assert shell("show data.h5 --json") == 0 and json.loads(shell.out) == result


def test_the_doubts_of_a_dataset_are_warnings(shell: Any) -> None:
    info = replace(INFO, doubts=(Check("actions", "varies", warning="the valve never moves"), Check("rewards", "ok")))
    write_dataset(Path("data.h5"), rows(rewards=np.ones(60, np.float32)), info)
    for flag in ("", " --json"):
        assert shell(f"show data.h5{flag}") == 0
        text = " ".join(shell.err.split())
        assert "Warning: the valve never moves" in text and "column rewards is 1 in every row" in text
        assert text.count("Warning") == 2 and ("valve" in shell.out) == bool(flag)
    Path("my.csv").write_text("obs_0,action_0,reward\n" + "\n".join(f"{i},{i % 3}.5,{i}" for i in range(30)) + "\n")
    assert shell("show my.csv") == 0
    assert "Nothing in my.csv marks where an episode ends" in " ".join(shell.err.split())


def test_a_dataset_is_drawn_where_asked(shell: Any) -> None:
    write_dataset(Path("data.h5"), rows(), INFO)
    before = Path("data.h5").read_bytes()
    assert shell("show data.h5 --plot pictures/data.png --json") == 0
    assert imread("pictures/data.png").shape[2] == 4
    assert shell.err == "" and json.loads(shell.out)["portrait"]
    assert shell("show data.h5 --plot new.PNG") == 0
    assert "new.PNG" in shell.err and "new.PNG" not in shell.out
    assert Path("new.PNG").read_bytes() == Path("pictures/data.png").read_bytes()
    assert Path("data.h5").read_bytes() == before


def test_only_datasets_are_drawn_and_only_as_png(shell: Any, run: Path) -> None:
    write_dataset(Path("data.h5"), rows(), INFO)
    for line, said in (
        (f"show {run} --plot x.png", "run folder"),
        (f"show {run / 'run.json'} --plot x.png", "--plot"),
        ("show data.h5 --plot x.pdf", "x.pdf must end in .png"),
    ):
        assert shell(line) == 2
        assert said in shell.err and shell.out == ""
    assert not list(Path().glob("x.*"))


def test_a_run_folder_points_at_its_data(shell: Any) -> None:
    fetched_into(Path("runs/mine"), cached("x-0123456789ab"))
    assert shell("show runs/mine") == 0
    (line,) = (line for line in shell.out.splitlines() if "mopo show" in line)
    assert shell(line.split("mopo ")[1]) == 0
    assert "60 transitions" in shell.out
    assert shell("show runs/mine --json") == 0
    assert "portrait" not in json.loads(shell.out)


def test_a_name_is_first_the_data_of_its_run_then_the_newest_in_the_cache(shell: Any) -> None:
    slug = "generate-Toy-v0-medium"
    old, new = (cached(f"{slug}-{digit * 12}", age=age) for digit, age in (("0", 9), ("1", 5)))
    cached(f"{slug}-expert-{'2' * 12}", "generate:Toy-v0:expert")  # another set, whose name goes on
    assert shell(f"show {GENERATED}") == 0
    assert shell.out.startswith(f"{new}: dataset\n")
    assert str(new) in shell.err and "newest of 2" in shell.err

    fetched_into(Path(f"runs/{slug}"), old)
    assert shell(f"show {GENERATED} --json") == 0
    assert json.loads(shell.out)["path"] == str(old) and shell.err == ""
    assert shell(f"show {GENERATED}") == 0
    assert f"the data of runs/{slug}" in shell.err

    old.unlink()
    assert shell(f"show {GENERATED} --json") == 0
    assert json.loads(shell.out)["path"] == str(new)
    (new.parent / "dataset.json").write_text("{")  # the folder's name still tells
    assert shell(f"show {GENERATED}") == 0
    assert "from the cache" in shell.err


def test_another_name_of_a_dataset_finds_it_too(shell: Any) -> None:
    path = cached("hopper-mixed-0123456789ab", "hopper-medium-replay-v2")
    for name in ("hopper-mixed", "hopper-medium-replay", "hopper-medium-replay-v2"):
        assert shell(f"show {name} --json") == 0
        assert json.loads(shell.out)["path"] == str(path)


def test_a_path_that_exists_comes_before_a_name(shell: Any) -> None:
    cached("hopper-medium-0123456789ab", "hopper-medium-v2")
    fetched_into(Path("hopper-medium"), cached("other-0123456789ab"))
    assert shell("show hopper-medium") == 0
    assert shell.out.startswith("hopper-medium: run folder")


def test_data_of_a_name_nobody_knows_are_found_by_their_run(shell: Any) -> None:
    fetched_into(Path("runs/plant"), cached("plant-0123456789ab", "plant.csv"))
    assert shell("show plant") == 0
    assert "60 transitions" in shell.out


@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("hopper-medium", "has not been fetched", "mopo fetch-data --dataset hopper-medium"),
        (GENERATED, "has not been fetched", f"mopo fetch-data --dataset {GENERATED}"),
        ("minari:mujoco/hopper/medium-v0", "has not been fetched", "mopo fetch-data --dataset minari:mujoco/"),
        ("hoper-medium", "did you mean 'hopper-medium'", "a name such as"),
        ("runs/hopper-medium", "runs/hopper-medium does not exist", ""),
        ("logs.h5", "logs.h5 does not exist", ""),
        ("generate:Toy-v0", "must be written generate:ENV-ID:LEVEL", ""),
    ],
)
def test_a_name_without_data(shell: Any, name: str, said: str, hint: str) -> None:
    cached("hopper-medium-expert-0123456789ab", "hopper-medium-expert-v2")
    assert shell(f"show {name}") == 4
    assert said in shell.err and hint in shell.err and shell.out == ""


def foreign(**changes: Any) -> None:
    made = {name: getattr(rows(), name) for name in COLUMNS} | changes
    with h5py.File("theirs.hdf5", "w") as file:
        for name, column in made.items():
            if column is not None:
                file[name] = column


def test_a_file_in_d4rl_s_layout_is_portrayed_as_it_is_read(shell: Any) -> None:
    foreign(next_observations=None, timeouts=None, rewards=rows().rewards[:, None].astype("f8"))
    assert shell("show theirs.hdf5") == 0
    text = " ".join(shell.out.split())
    for piece in (
        "theirs.hdf5: HDF5 file of another program",
        "column rewards: 60 x 1 float64",
        "no next_observations column",
        "in 2 episodes",
        "constant dimensions (1): obs[1]",
    ):
        assert piece in text, piece
    assert shell("show theirs.hdf5 --plot theirs.png") == 0
    assert Path("theirs.png").exists()


def test_a_table_is_portrayed_as_it_is_read(shell: Any) -> None:
    names: dict[str, Any] = {
        "obs_0": rows().observations[:, 0],
        "action_0": rows().actions[:, 0],
        "reward": rows().rewards,
    }
    names["terminal"] = rows().terminals
    lines = [
        ",".join(names),
        *(",".join(str(float(value)) for value in row) for row in zip(*names.values(), strict=True)),
    ]
    Path("logs.csv").write_text("\n".join(lines) + "\n")
    np.savez("logs.npz", **{name: getattr(rows(), name) for name in COLUMNS})
    for name, row_count in (("logs.csv", 59), ("logs.npz", 60)):
        assert shell(f"show {name}") == 0, shell.err
        assert shell.out.startswith(f"{name}: data file\n")
        assert f"{row_count} transitions in 2 episodes" in shell.out and f"source: file {name}" in shell.out
    Path("logs.csv").write_text("time,valve\n0,1\n")
    assert shell("show logs.csv") == 4
    assert "logs.csv" in shell.err and shell.out == ""


def test_a_file_in_another_layout_is_described_as_before(shell: Any) -> None:
    foreign(rewards=None)
    assert shell("show theirs.hdf5") == 0
    assert "column observations: 60 x 3 float32" in shell.out and "transitions in" not in shell.out
    assert shell("show theirs.hdf5 --plot theirs.png") == 2
    assert not Path("theirs.png").exists()


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_dataset_with_a_flipped_bit_is_refused(shell: Any, place: float) -> None:
    write_dataset(Path("data.h5"), rows(), INFO)
    content = bytearray(Path("data.h5").read_bytes())
    at = content.index(rows().observations.tobytes()) + int(place * 720)
    content[at] ^= 64
    Path("data.h5").write_bytes(content)
    assert shell("show data.h5 --plot x.png") == 5
    assert "data.h5" in shell.err and shell.out == "" and not Path("x.png").exists()


def test_data_that_cannot_be_portrayed_are_told_in_a_sentence(shell: Any) -> None:
    write_dataset(Path("data.h5"), rows(), INFO)
    with h5py.File("data.h5", "a") as file:
        del file["actions"]
    foreign(rewards=np.full(60, np.nan))
    for name, said in (("data.h5", "column actions is missing"), ("theirs.hdf5", "column rewards holds NaN")):
        assert shell(f"show {name}") == 4
        assert name in shell.err and said in shell.err and shell.out == ""
    for n in (0, 1):
        foreign(**{name: getattr(rows(), name)[:n] for name in COLUMNS})
        assert shell("show theirs.hdf5") == 4
        assert "theirs.hdf5" in shell.err and shell.out == ""
