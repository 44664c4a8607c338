"""Video files, written by the ffmpeg that the package imageio-ffmpeg brings."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from mopo_cli.errors import InputError
from mopo_cli.evaluation.pictures import Picture

_TEXT_SIZE = 20  # pixels
_PLACE = (10, 8)


def ffmpeg() -> str:
    """The path of ffmpeg. InputError, with what to install, where that or Pillow is missing."""
    try:
        from imageio_ffmpeg import get_ffmpeg_exe
        from PIL import ImageDraw  # noqa: F401

        return str(get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:  # RuntimeError: the package without its program
        name = getattr(error, "name", None) or "ffmpeg"
        raise InputError(
            f"A video needs {name}, which is not installed.", hint="pip install imageio-ffmpeg pillow"
        ) from error


@contextmanager
def open_video(path: Path, per_second: float) -> Iterator[Callable[[Picture], None]]:
    """Gives a function that adds a picture to an MP4 file; the file is whole when the block ends without an error.

    Pictures have the size of the first; an odd width or height is padded by a black line. InputError where one has
    another size, or where ffmpeg fails.
    """
    with tempfile.TemporaryFile() as log:
        process: subprocess.Popen[bytes] | None = None
        shape: tuple[int, ...] = ()

        def add(picture: Picture) -> None:
            nonlocal process, shape
            if process is None:
                shape = picture.shape
                process = _start(path, shape, per_second, log.fileno())
            if picture.shape != shape:
                raise InputError(f"The pictures of a video must have one size: {picture.shape} comes after {shape}.")
            assert process.stdin is not None
            with suppress(BrokenPipeError):  # its log, read in the end, says why
                process.stdin.write(np.ascontiguousarray(picture).data)

        try:
            yield add
            if process is not None:
                with suppress(BrokenPipeError):
                    process.communicate()
                if process.returncode:
                    log.seek(0)
                    said = log.read().decode(errors="replace").splitlines() or [f"exit code {process.returncode}"]
                    raise InputError(f"ffmpeg could not write {path.parent}: {said[-1].strip()[:200]}.")
        finally:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


def labelled(picture: Picture, text: str) -> Picture:
    """The picture with a text in its upper left corner, white with a black edge."""
    from PIL import Image, ImageDraw, ImageFont

    image, font = Image.fromarray(picture), ImageFont.load_default(_TEXT_SIZE)
    ImageDraw.Draw(image).text(_PLACE, text, fill="white", font=font, stroke_width=2, stroke_fill="black")
    return np.asarray(image)


def _start(path: Path, shape: tuple[int, ...], per_second: float, log: int) -> "subprocess.Popen[bytes]":
    size = f"{shape[1]}x{shape[0]}"
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", size, "-framerate", f"{per_second:g}", "-i", "pipe:")
    # Players want both sizes even, and colours at half the resolution.
    coded = ("-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-f", "mp4")
    command = [ffmpeg(), "-y", "-v", "error", *raw, *coded, "-movflags", "+faststart", f"file:{path}"]
    # Ctrl-C is for mopo, which then ends ffmpeg.
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)
