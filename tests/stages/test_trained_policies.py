"""Evaluating policies of which none is left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.config.schema import Evaluate, TrainPolicy
from mopo_cli.errors import InputError
from mopo_cli.report.console import Report
from mopo_cli.stages.analysis.judge import run_judge
from mopo_cli.stages.analysis.measured import run_measured
from mopo_cli.stages.analysis.return_bound import run_bound
from mopo_cli.stages.analysis.video import run_video
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.evaluate import run_evaluate
from mopo_cli.store.lineage import StageRecord, record_stage
from mopo_cli.store.run import RunFolder

STAGES: dict[Callable[..., Any], tuple[Any, ...]] = {
    run_evaluate: (),
    run_bound: (),
    run_judge: (),
    run_video: (Path("film.mp4"),),
    run_measured: (Path("returns.csv"),),
}


@pytest.mark.parametrize("evaluate", STAGES)
def test_where_all_seeds_diverged_each_way_of_evaluating_says_so(evaluate: Any, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    record = StageRecord(TrainPolicy().model_dump(mode="json"), {}, {}, {}, 1.0, "2020-01-01T00:00:00.000+00:00", {})
    record_stage(run, "train-policy/p", record)
    with pytest.raises(InputError, match=r"^The policy p has nothing to evaluate: all its seeds diverged") as error:
        evaluate(run, Evaluate(), Options(device="cpu"), Report("quiet"), *STAGES[evaluate])
    assert "--critic-lr" in error.value.hint
