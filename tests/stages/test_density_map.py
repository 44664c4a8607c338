"""`mopo rollout --map` from the command line, its figures made a second time by hand."""

import csv
import json
import os
import shutil
import signal
import sys
import types
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.stats
from matplotlib.image import imread
from scipy.spatial.distance import cdist

from mopo_cli.dynamics.penalties import UNCERTAINTIES
from mopo_cli.report.plots_rollouts import departure_plot
from mopo_cli.stages.analysis import density_map

LINE = "rollout --map --run runs/tiny --config tiny.yaml --threads 1"
NAMES = list(UNCERTAINTIES)
FILES = [f"uniform_h2-map.{kind}" for kind in ("csv", "json", "png")]


@pytest.fixture(autouse=True)
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where it is not installed, though it may be."""
    monkeypatch.setattr(density_map, "umap_version", lambda: None)


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, and is for those tests that look at the picture."""
    monkeypatch.setattr(density_map, "departure_plot", lambda path, *_: path.write_bytes(b"picture"))


@pytest.fixture
def rollouts(tiny_run: Path) -> Path:
    """The folder of rollouts of a run in which all is finished: 2000 rows of data, 400 of rollouts."""
    return tiny_run / "rollouts"


def stored(rollouts: Path) -> dict[str, Any]:
    with h5py.File(rollouts / "uniform_h2.h5") as file:
        columns = {name: file[name][()] for name in ("observations", "actions", "step")}
        return columns | {name: file[f"uncertainty/{name}"][()] for name in file["uncertainty"]}


def rows_of(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}


def test_the_figures_are_those_made_by_hand(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(density_map, "departure_plot", departure_plot)
    before = (rollouts / "uniform_h2.h5").stat()
    done = mopo(f"{LINE} --json")
    assert (done.code, done.err) == (0, "")
    assert (rollouts / "uniform_h2.h5").stat().st_mtime_ns == before.st_mtime_ns
    assert sorted(path.name for path in rollouts.iterdir()) == [*FILES, "uniform_h2.h5"]
    result, kept = json.loads(done.out)["map"], json.loads((rollouts / FILES[1]).read_text())
    assert {name: result[name] for name in kept if name in result}.items() >= {
        (name, kept[name]) for name in ("rows", "distance", "outside")
    }
    assert kept["dataset"] == "generate:InvertedPendulum-v5:random"
    sizes = {name: kept[name] for name in ("data_rows", "references", "dimensions", "neighbours", "stored")}
    assert list(sizes.values()) == [2000, 1667, 5, 10, kept["rows"]]

    columns, rows = stored(rollouts), rows_of(rollouts / FILES[0])
    assert sorted(rows["row"]) == list(range(len(columns["step"])))
    assert list(rows) == ["row", "step", "distance", "pca_1", "pca_2", *NAMES]
    places = rows["row"].astype(int)
    for name in ("step", *NAMES):
        assert rows[name] == pytest.approx(columns[name][places])
    # Distances anew, to all of the data: the draw left out a sixth of them.
    with h5py.File(told_dataset()) as file:
        data = np.concatenate([file["observations"][()], file["actions"][()]], axis=1).astype("f8")
    mean, std = data.mean(axis=0), data.std(axis=0)
    joint = np.concatenate([columns["observations"], columns["actions"]], axis=1)[places]
    between = np.sort(cdist((joint - mean) / std, (data - mean) / std), axis=1)
    assert scipy.stats.spearmanr(rows["distance"], between[:, 9]).statistic > 0.99
    assert rows["distance"] == pytest.approx(between[:, 11], rel=0.35)
    # The principal components of the scaled data, which its draw has nearly.
    vectors = np.linalg.eigh(np.corrcoef(data.T))[1][:, ::-1]
    for k in range(2):
        projected = ((joint - mean) / std) @ vectors[:, k]
        assert abs(np.corrcoef(projected, rows[f"pca_{k + 1}"])[0, 1]) > 0.97

    for name in NAMES:
        expected = scipy.stats.spearmanr(rows[name], rows["distance"]).statistic
        assert kept["spearman"][name] == pytest.approx(expected)
    for step in kept["steps"]:
        here = rows["step"] == step["step"] - 1
        assert (step["rows"], step["distance"]) == (here.sum(), pytest.approx(np.median(rows["distance"][here])))
        assert step["outside"] == pytest.approx((rows["distance"][here] > edge_of(kept, rows)).mean())
        expected = scipy.stats.spearmanr(rows["ens"][here], rows["distance"][here]).statistic
        assert step["spearman"]["ens"] == pytest.approx(expected)
    assert sum(region["rows"] for region in kept["regions"]) == len(places)
    total = sum(region["rows"] * (region["mean"]["ens"] or 0) for region in kept["regions"])
    assert total / len(places) == pytest.approx(rows["ens"].mean())
    assert list(kept["maps"]) == ["pca"] and 0 <= kept["maps"]["pca"]["outside"] < 0.5
    assert 0.01 < (imread(rollouts / FILES[2])[..., :3] < 0.9).any(axis=2).mean() < 0.6


def told_dataset() -> Path:
    record = json.loads(Path("runs/tiny/run.json").read_text())["stages"]["fetch-data"]
    return Path("runs/tiny") / record["outputs"]["dataset"]["path"]


def edge_of(kept: dict[str, Any], rows: dict[str, Any]) -> float:
    """The distance from which on rows lie outside, from the count of those beyond it."""
    beyond = kept["regions"][-1]["rows"]
    assert kept["outside"] == pytest.approx(beyond / kept["rows"])
    ordered = np.sort(rows["distance"])[::-1]
    return float(ordered[beyond])


def test_it_tells_people_and_is_made_once(rollouts: Path, mopo: Any) -> None:
    done = mopo(LINE)
    assert done.code == 0
    for words in ("Distance of the rollouts to the data", "discrepancy", "Mean of each uncertainty", "0% to 10%"):
        assert words in done.err
    assert "Without UMAP's map: umap-learn is not installed (pip install umap-learn)." in done.err
    made = {name: (rollouts / name).read_bytes() for name in FILES}
    done = mopo(LINE)
    assert done.code == 0 and "rollout/uniform_h2/map is up to date" in done.err and "UMAP" not in done.err
    assert mopo(f"{LINE} --force").code == 0
    assert made == {name: (rollouts / name).read_bytes() for name in FILES}
    (rollouts / FILES[2]).unlink()
    assert mopo(LINE).code == 0
    assert made == {name: (rollouts / name).read_bytes() for name in FILES}
    assert "rollout/uniform_h2/map: made" in mopo("show runs/tiny").out
    assert mopo(f"show {rollouts / FILES[1]}").out.startswith(f"{rollouts / FILES[1]}: map\n")
    assert mopo(LINE.replace("--map", "--seed 1 --map")).code == 0
    assert made != {name: (rollouts / name).read_bytes() for name in FILES}


def test_only_a_part_of_many_rows_is_looked_at(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in {"_ROWS": 90, "_REFERENCES": 300, "_USUAL": 50, "_PART": 40}.items():
        monkeypatch.setattr(density_map, name, limit)
    result = json.loads(mopo(f"{LINE} --json").out)["map"]
    assert (result["rows"], result["references"]) == (90, 300)
    rows = rows_of(rollouts / FILES[0])
    assert len(set(rows["row"])) == 90 and max(rows["row"]) > 200 and set(rows["step"]) == {0, 1}
    assert result["stored"] == len(stored(rollouts)["step"]) > max(rows["row"])


class UMAP:
    """Turns the first two columns round."""

    def __init__(self, **how: Any) -> None:
        self.how = how

    def fit(self, data: Any) -> "UMAP":
        return self

    def transform(self, data: Any) -> Any:
        return data[:, 1::-1]


def test_umap_s_map_is_drawn_where_it_is_installed(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mopo(LINE).code == 0
    alone = {name: (rollouts / name).read_bytes() for name in FILES}
    monkeypatch.setattr(density_map, "umap_version", lambda: "0.5")
    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=UMAP))
    done = mopo(LINE)  # made anew, since there is more to show
    assert done.code == 0 and "rollout/uniform_h2/map is up to date" not in done.err
    assert "Without UMAP" not in done.err and "% by umap." in done.err
    kept = json.loads((rollouts / FILES[1]).read_text())
    assert list(kept["maps"]) == ["pca", "umap"] and kept["maps"]["umap"]["axes"] == ["UMAP 1", "UMAP 2"]
    assert {k: v for k, v in kept.items() if k != "maps"} == {
        k: v for k, v in json.loads(alone[FILES[1]]).items() if k != "maps"
    }
    rows, observations = rows_of(rollouts / FILES[0]), stored(rollouts)["observations"]
    assert np.corrcoef(rows["umap_1"], observations[rows["row"].astype(int), 1])[0, 1] == pytest.approx(1)
    assert "rollout/uniform_h2/map is up to date" in mopo(LINE).err


@pytest.mark.parametrize("fault", [ImportError("no numba"), SystemError("LLVM")])
def test_a_umap_that_does_not_work_stops_nothing(
    rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    class Broken(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise fault

    monkeypatch.setattr(density_map, "umap_version", lambda: "0.5")
    monkeypatch.setitem(sys.modules, "umap", Broken("umap"))
    done = mopo(LINE)
    assert done.code == 0 and "Traceback" not in done.err
    assert (
        f"Without UMAP's map: umap-learn does not work here ({fault}). Repair it, then run again with --force."
        in done.err
    )
    assert list(json.loads((rollouts / FILES[1]).read_text())["maps"]) == ["pca"]


def test_a_signal_ends_it_between_two_parts(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(sought: Any, held: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return np.ones(len(sought))

    monkeypatch.setattr(density_map, "neighbour_distance", interrupted)
    assert mopo(LINE).code == 130
    assert [path.name for path in rollouts.iterdir()] == ["uniform_h2.h5"]


def test_it_comes_with_the_diagnosis(rollouts: Path, mopo: Any) -> None:
    result = json.loads(mopo(f"{LINE} --diagnose --json").out)
    assert set(result["map"]["spearman"]) == set(result["diagnosis"]["uncertainties"]) == set(NAMES)
    assert (rollouts / "uniform_h2-diagnosis.png").exists() and (rollouts / FILES[2]).exists()


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_run: Path, mopo: Any) -> Any:
    """Makes a run of data that name no environment, from observations, and gives what `rollout --map` says of it."""
    monkeypatch.chdir(tmp_path)
    shutil.copy("tiny.yaml", "plant.yaml")
    text = Path("plant.yaml").read_text().replace("{transitions: 2000}", "{}")
    Path("plant.yaml").write_text(text)

    def make(observations: Any, actions: Any) -> Any:
        rows = len(observations)
        with h5py.File("plant.h5", "w") as file:
            file["observations"], file["actions"] = observations.astype("f4"), actions.astype("f4")
            file["rewards"], file["terminals"] = np.zeros(rows, "f4"), np.zeros(rows, bool)
            file["timeouts"] = np.arange(rows) % 50 == 49
        for line in ("fetch-data --dataset ./plant.h5", "train-model --threads 1", "rollout --map --threads 1"):
            done = mopo(f"{line} --run run --config plant.yaml")
        return done

    return make


def test_no_simulator_is_needed_and_a_constant_column_has_no_part(plant: Any) -> None:
    draw = np.random.default_rng(0)
    observations = draw.normal(size=(400, 3))
    observations[:, 1] = 4
    done = plant(observations, draw.uniform(-1, 1, (400, 2)))
    assert done.code == 0, done.err
    kept = json.loads(Path("run/rollouts/uniform_h2-map.json").read_text())
    assert (kept["dimensions"], kept["dataset"]) == (4, "plant.h5")


def test_data_of_which_nothing_varies_have_no_map(rollouts: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(told_dataset()) as file:
        width = file["observations"].shape[1] + file["actions"].shape[1]
    still = [np.ones((200, width))] * 2
    monkeypatch.setattr(density_map, "_draw_data", lambda *_: still)
    done = mopo(LINE)
    assert (done.code, "Traceback" in done.err) == (4, False)
    assert "no column of it varies" in done.err
    assert [path.name for path in rollouts.iterdir()] == ["uniform_h2.h5"]
