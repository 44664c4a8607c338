"""Logs in parts, files or groups, of which one lacks what others have, or is called otherwise."""

from pathlib import Path

import numpy as np
import pytest
from data.test_layouts import load

from mopo_cli.errors import InputError


def tables(folder: Path, second: str) -> Path:
    """Three files of two steps and an end; the second has only these columns."""
    for i in range(3):
        cells = {
            "obs_0": f"{i}.1",
            "obs_1": "0.5",
            "action_0": "-0.9",
            "reward": "1.5",
            "terminal": "0",
            "episode": "4",
        }
        names = second.split(",") if i == 1 else list(cells)
        rows = [[*cells.values()], [*cells.values()], [*cells.values()]]
        rows[1][0], rows[1][2], rows[2][0], rows[2][4] = f"{i}.2", "0.8", f"{i}.4", "1"
        lines = [",".join(row[list(cells).index(name)] for name in names) for row in rows]
        (folder / f"w{i}.csv").write_text("\n".join([",".join(names), *lines, ""]))
    return folder


@pytest.mark.parametrize("lacks", ["terminal", "episode", "obs_1", "reward"])
@pytest.mark.parametrize("columns", [None, "obs=obs_*,action=action_0,reward=reward,terminal=terminal,episode=episode"])
def test_a_column_that_one_file_lacks_is_not_left_out_of_all(tmp_path: Path, lacks: str, columns: str | None) -> None:
    names = ["obs_0", "obs_1", "action_0", "reward", "terminal", "episode"]
    path = tables(tmp_path, ",".join(name for name in names if name != lacks))
    with pytest.raises(InputError, match=rf"w1\.csv has no column {lacks}, but others have\. Add it there, or say"):
        load(path, columns)


def test_a_column_that_only_a_later_file_has_is_asked_for(tmp_path: Path) -> None:
    path = tables(tmp_path, "obs_0,obs_1,action_0,reward,terminal,episode")
    for name in ("w0.csv", "w2.csv"):
        (path / name).write_text((path / name).read_text().replace("terminal", "other"))
    with pytest.raises(InputError, match=r"w0\.csv has no column terminal, but others have\."):
        load(path)
    data, _ = load(path, "obs=obs_0+obs_1,action=action_0,reward=reward,episode=episode")
    assert len(data) == 6 and not data.terminals.any()


def test_an_unused_column_may_be_in_some_files_only(tmp_path: Path) -> None:
    path = tables(tmp_path, "obs_1,reward,obs_0,action_0,terminal,episode")
    (path / "w2.csv").write_text((path / "w2.csv").read_text().replace("episode", "episode,note").replace(",4", ",4,9"))
    data, _ = load(path)
    np.testing.assert_array_equal(data.observations[3:6, 0], np.float32([1.1, 1.2, 1.4]))
    assert data.terminals.sum() == 3
