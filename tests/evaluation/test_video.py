"""Video files, read back by the reader of imageio-ffmpeg."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mopo_cli.errors import InputError
from mopo_cli.evaluation import video
from mopo_cli.evaluation.video import ffmpeg, labelled, open_video


def read(path: Path) -> tuple[dict[str, Any], Any]:
    """What the file says of itself, and its pictures `[n, height, width, 3]`."""
    reader = pytest.importorskip("imageio_ffmpeg").read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    return about, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def gray(level: int, height: int = 33, width: int = 47) -> Any:
    return np.full((height, width, 3), level, np.uint8)


def test_every_picture_comes_back_in_its_place(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    levels = [20, 60, 100, 140, 180]
    path = tmp_path / "name with space-%d.mp4"
    with open_video(path, 12.5) as add:
        for level in levels:
            picture = gray(level)
            picture[:10, :10] = (255, 0, 0)
            add(picture[:, ::-1][:, ::-1])  # a view, as renderers give
    about, pictures = read(path)
    assert (about["size"], about["fps"], about["codec"]) == ((48, 34), 12.5, "h264")
    assert len(pictures) == len(levels)
    assert pictures[:, 20:30, 20:40].mean(axis=(1, 2, 3)) == pytest.approx(levels, abs=4)
    red, green, blue = pictures[0, 2:8, 2:8].reshape(-1, 3).mean(axis=0)
    assert red > 150 > 100 > max(green, blue)


def test_a_picture_of_another_size_is_refused_and_ffmpeg_ended(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(InputError, match="one size"), open_video(tmp_path / "a.mp4", 10) as add:
        add(gray(1))
        add(gray(1, 20))


def test_what_ffmpeg_says_is_told_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(InputError, match="ffmpeg could not write") as failed:  # noqa: SIM117
        with open_video(tmp_path / "nowhere/a.mp4", 10) as add:
            for _ in range(200):  # more than a pipe holds
                add(gray(1, 64, 64))
    assert "No such file" in failed.value.message and "\n" not in failed.value.message


def test_a_failed_block_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("imageio_ffmpeg")
    processes = []

    def start(*arguments: Any) -> Any:
        processes.append(original(*arguments))
        return processes[0]

    original = vars(video)["_start"]
    monkeypatch.setattr(video, "_start", start)
    with pytest.raises(KeyboardInterrupt), open_video(tmp_path / "a.mp4", 10) as add:
        add(gray(1))
        raise KeyboardInterrupt
    assert processes[0].poll() is not None


@pytest.mark.parametrize("module", ["imageio_ffmpeg", "PIL"])
def test_a_missing_library_is_named_with_the_mend(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if module == "PIL":
        pytest.importorskip("imageio_ffmpeg")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=f"needs {module}, which is not installed") as missing:
        ffmpeg()
    assert missing.value.hint == "pip install imageio-ffmpeg pillow"


def test_a_label_is_in_the_upper_left_corner_only() -> None:
    plain = gray(90, 120, 160)
    text, other = labelled(plain, "seed 3"), labelled(plain, "seed 4")
    assert text.shape == plain.shape and text.dtype == np.uint8 and (plain == 90).all()
    assert text.min() < 20 and text.max() > 230
    assert (text[40:] == plain[40:]).all() and (text[:, 100:] == plain[:, 100:]).all()
    assert (text != other).any()
