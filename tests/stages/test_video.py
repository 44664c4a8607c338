"""`mopo evaluate --video`: the episode that is shown is one that was counted."""

import csv
import json
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from probes.runs import record_anew, unfinished

from mopo_cli.evaluation import pictures
from mopo_cli.evaluation.play import episode_seed
from mopo_cli.stages.runner import Stage

LINE = "evaluate --config tiny.yaml --threads 1 --video out/film.mp4"
NAME = "mopo_max-var_lam1_h2"


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, ...]]:
    """MuJoCo draws without OpenGL, its time as brightness; the time and the positions of all pictures."""
    states: list[tuple[float, ...]] = []

    def render(environment: Any) -> Any:
        assert environment.render_mode == "rgb_array"
        time = float(environment.data.time)
        states.append((time, *environment.data.qpos))
        return np.full((64, 96, 3), 20 + int(100 * time), np.uint8)

    monkeypatch.setattr(MujocoEnv, "render", render)
    monkeypatch.setattr(pictures, "choose_library", lambda: None)
    monkeypatch.setenv("MUJOCO_GL", "")
    return states


def frames(path: Path) -> Any:
    """The pictures `[n, height, width, 3]`."""
    reader = pytest.importorskip("imageio_ffmpeg").read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def counted(run: Path) -> dict[tuple[int, int], float]:
    with (run / f"evaluations/{NAME}.csv").open(newline="") as file:
        return {(int(row["seed"]), int(row["episode"])): float(row["return"]) for row in csv.DictReader(file)}


def test_episodes_of_all_seeds_in_one_video(
    tiny_run: Path, mopo: Any, painted: list[tuple[float, ...]], disk: Any
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    assert mopo("train-policy --config tiny.yaml --threads 1 --seeds 2").code == 0
    outcome = mopo(f"{LINE} --episodes 3 --json")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    result = json.loads(outcome.out)
    film = result["video"]
    assert film["outputs"] == {"video": str(Path("out/film.mp4").resolve())}
    returns = counted(tiny_run)
    assert len(returns) == 6
    assert [(each["seed"], each["episode"]) for each in film["episodes"]] == [(0, 0), (1, 0)]
    assert [each["return"] for each in film["episodes"]] == [returns[0, 0], returns[1, 0]]
    means = [np.mean([returns[seed, k] for k in range(3)]) for seed in (0, 1)]
    assert list(result["return_per_seed"].values()) == pytest.approx(means)
    # A reward of 1 for every step but the last, in which the pole falls.
    lengths = [int(each["return"]) + 1 for each in film["episodes"]]
    assert [each["length"] for each in film["episodes"]] == lengths
    seen = frames(Path("out/film.mp4"))
    assert len(seen) == film["pictures"] == sum(lengths) + 2
    times = np.concatenate([0.04 * np.arange(length + 1) for length in lengths])
    states = np.array(painted[1:])  # the first one was the check's
    assert states[:, 0] == pytest.approx(times)
    start, _ = gym.make("InvertedPendulum-v5").reset(seed=episode_seed(0, 0))
    assert states[[0, lengths[0] + 1], 1:].tolist() == [start[:2].tolist()] * 2
    assert seen[:, 45:, :, :].mean(axis=(1, 2, 3)) == pytest.approx(20 + (100 * times).astype(int), abs=4)
    assert [path.name for path in Path("out").iterdir()] == ["film.mp4"] and not unfinished(tiny_run)

    before = disk()
    again = mopo(f"{LINE} --episodes 3")
    assert again.code == 0 and f"evaluate/{NAME}/video is up to date" in again.err
    assert disk() == before


def test_a_video_is_made_where_the_evaluation_is_up_to_date(
    tiny_run: Path, mopo: Any, painted: list[tuple[float, ...]]
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    before = (tiny_run / f"evaluations/{NAME}.json").read_bytes()
    outcome = mopo(LINE)
    assert outcome.code == 0, outcome.err
    assert f"evaluate/{NAME} is up to date" in outcome.err and "Warning" not in outcome.err
    assert f"return {counted(tiny_run)[0, 0]:.1f} in {len(painted) - 2} steps" in outcome.err
    assert len(frames(Path("out/film.mp4"))) == len(painted) - 1
    assert (tiny_run / f"evaluations/{NAME}.json").read_bytes() == before
    shown = mopo(f"show {tiny_run}")
    assert f"evaluate/{NAME}/video" in shown.out and "film.mp4" in shown.out
    Path("out/film.mp4").unlink()
    assert mopo(LINE).code == 0 and Path("out/film.mp4").is_file()


def test_an_episode_that_was_not_counted_is_told(tiny_run: Path, mopo: Any, painted: list[tuple[float, ...]]) -> None:
    pytest.importorskip("imageio_ffmpeg")
    table = tiny_run / f"evaluations/{NAME}.csv"
    returns = counted(tiny_run)
    table.write_text("seed,episode,return\n0,0,-7.5\n" + f"0,1,{returns[0, 1]!r}\n")
    record_anew(tiny_run)
    outcome = mopo(LINE)
    assert outcome.code == 0
    assert f"returned {returns[0, 0]!r} in the video, but -7.5 in the evaluation" in outcome.err


def test_a_signal_leaves_the_video_as_it_was(
    tiny_run: Path, mopo: Any, painted: list[tuple[float, ...]], disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("imageio_ffmpeg")
    Path("out").mkdir()
    Path("out/film.mp4").write_text("an older one")
    Path("out/.film.0123abcd.mopo-tmp.mp4").write_text("of a killed process")
    looks = count()

    def should_stop(stage: Stage) -> bool:
        stage.signal = signal.SIGTERM if stage.key.endswith("/video") and next(looks) == 3 else stage.signal
        return stage.signal != 0

    monkeypatch.setattr(Stage, "should_stop", should_stop)
    outcome = mopo(LINE)
    assert outcome.code == 128 + signal.SIGTERM
    assert {path.name: path.read_text() for path in Path("out").iterdir()} == {"film.mp4": "an older one"}
    assert len(painted) == 5 and not unfinished(tiny_run)


def test_refused_before_anything_runs(
    tiny_run: Path, refuses: Any, painted: list[tuple[float, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("folder.mp4").mkdir()
    refuses("evaluate --episodes 5 --video film.avi", 2, "--video film.avi must end in .mp4.")
    refuses("evaluate --episodes 5 --video folder.mp4", 4, "--video folder.mp4 is a folder, not a file.")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "imageio_ffmpeg", None)
        refuses("evaluate --episodes 5 --video a.mp4", 4, "pip install imageio-ffmpeg pillow")
    monkeypatch.setattr("mopo_cli.stages.analysis.video.ffmpeg", lambda: "ffmpeg")
    with monkeypatch.context() as patch:
        patch.setattr(MujocoEnv, "render", lambda environment: None)
        refuses("evaluate --episodes 5 --video a.mp4", 4, "draws NoneType: its render() must return an array")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo has one library, and that is used")
def test_no_opengl_is_told_before_anything_runs(tiny_run: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mopo_cli.stages.analysis.video.ffmpeg", lambda: "ffmpeg")
    monkeypatch.setattr(pictures, "_can_draw", lambda library: False)
    monkeypatch.setenv("MUJOCO_GL", "")
    refuses("evaluate --episodes 5 --video a.mp4", 4, "neither EGL nor OSMesa works")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo draws on a screen")
def test_mujoco_s_own_pictures(tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setenv("MUJOCO_GL", "")
    outcome = mopo(LINE)
    if "neither EGL nor OSMesa works" in outcome.err:
        pytest.skip("no OpenGL without a screen on this machine")
    assert outcome.code == 0, outcome.err
    seen = frames(Path("out/film.mp4"))
    assert len(seen) == counted(tiny_run)[0, 0] + 2
    pole = seen[:, 100:400].astype(int)
    assert pole.std() > 5 and np.abs(pole[-1] - pole[0]).mean() > 1  # there is something, and it falls
