"""What goes with --table and what does not: told at once, before anything is fetched."""

from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("--table mopo-9", 2, "no table 'mopo-9'; there are combo-1, combo-3, drop-1, mopo-1"),
        ("--table mopo-1 --method mopo", 2, "leave out --method; --only"),
        ("--table mopo-1 --penalty none", 2, "leave out --penalty; --only"),
        ("--table mopo-1 --name mine", 2, "leave out --name"),
        ("--table combo-3 --grid beta=0.5,1", 2, "leave out --grid"),
        ("--table mopo-1 --dataset hopper-medium", 2, "--datasets A,B"),
        ("--table mopo-1 --rank offline", 2, "--rank"),
        ("--table mopo-1 --only combo", 2, "no row 'combo'; it has mopo, mbpo, sac, bc, bear, brac-v"),
        ("--table mopo-1 --lam 1,5", 2, "has one lam, not 1,5"),
        ("--table mopo-h-lam --h 5", 2, "--h is set by the rows of mopo-h-lam"),
        ("--table mopo-real-ratio --real-ratio 0.5", 2, "--real-ratio is set by the rows"),
        ("--table mopo-1 --epochs 0", 2, "epochs"),
        ("--table mopo-1 --env Hopper-v5", 2, "--env is for data files only"),
        ("--table mopo-1 --datasets hopper-medium --env Hopper-v5", 2, "--env is for data files only"),
        ("--table mopo-1 --datasets hoper-medium", 4, "did you mean 'hopper-medium'"),
        ("--table mopo-1 --datasets ./absent.h5", 4, "absent.h5 does not exist"),
        ("--table mopo-1 --datasets a/x.h5,b/x.h5", 2, "a/x.h5 and b/x.h5 would share the run runs/papers/x"),
        ("--table mopo-1 --preset nope", 2, "no preset 'nope'"),
        ("--datasets hopper-medium", 2, "--datasets needs --table NAME"),
        ("--only mopo", 2, "--only needs --table NAME"),
        ("--env Hopper-v5", 2, "--env needs --table NAME"),
    ],
)
def test_what_does_not_go_with_a_table_is_told(mopo: Any, folder: Path, line: str, code: int, says: str) -> None:
    outcome = mopo(f"ablate {line}")
    assert outcome.code == code and outcome.out == ""
    assert outcome.err.startswith("Error: ") and says in outcome.err and "Traceback" not in outcome.err
    assert list(folder.iterdir()) == []


def test_a_run_is_no_root_for_a_table(mopo: Any, folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine/run.json").write_text("{}")
    outcome = mopo("ablate --table mopo-1 --run mine")
    assert outcome.code == 2 and "mine is a run, but" in outcome.err
