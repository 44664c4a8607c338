"""HDF5 files written to a disk that fills up: an error, where the library alone would crash the process."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mopo_cli.store.sink import Sink

WRITE = """\
import resource, sys
from pathlib import Path
import numpy as np
from mopo_cli.errors import InputError
from mopo_cli.data.transition_files import written_rollouts
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
rows = {"observations": np.ones((10_000, 11), np.float32), "rewards": np.ones(10_000, np.float32)}
try:
    with written_rollouts(Path(sys.argv[1]), {"h": 1}) as append:
        for _ in range(8):
            append(rows)
except InputError as error:
    sys.exit(str(error))
"""


@pytest.mark.parametrize("limit", [1, 1000, 100_000, 1_500_000, 3_800_000, 10_000_000])
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "r.h5"), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    if limit > 4_000_000:
        assert (done.returncode, done.stderr) == (0, "")
        with h5py.File(tmp_path / "r.h5") as file:
            assert file["observations"].shape == (80_000, 11)
    else:
        assert done.returncode == 1
        assert done.stderr.startswith(f"The folder {tmp_path} cannot be written: ")
        assert list(tmp_path.iterdir()) == []


def test_what_was_written_is_read_back_also_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bytearray(1000)
    random = np.random.default_rng(0)
    with Sink(tmp_path / "file") as sink:
        for step in range(200):
            if step == 100:
                monkeypatch.setattr("os.pwrite", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
            place, length = int(random.integers(900)), int(random.integers(1, 100))
            content = random.bytes(length)
            sink.seek(place)
            assert sink.write(content) == length
            model[place : place + length] = content
            sink.seek(0)
            read = bytearray(1000)
            sink.readinto(read)
            assert read == model
        with pytest.raises(OSError, match="full"):
            sink.check()
