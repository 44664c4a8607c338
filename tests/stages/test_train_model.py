"""train-model --spectral-norm: from the flag to the weights in the file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mopo_cli.config.schema import TrainModel
from mopo_cli.report.console import Report
from mopo_cli.stages import train_model
from mopo_cli.stages.common.options import Options
from mopo_cli.stages.train_model import run_train_model
from mopo_cli.store.atomic import read_json
from mopo_cli.store.checkpoint import load_tensors
from mopo_cli.store.run import RunFolder

RUN = RunFolder(Path("runs/one"))
SMALL: dict[str, Any] = {"networks": 3, "hidden": 16, "layers": 2, "weight_decay": (1e-5,) * 3, "max_epochs": 1}


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert mopo("fetch-data --run runs/one --dataset generate:InvertedPendulum-v5:random --transitions 600").code == 0


def sigmas(layer: str, shared: bool = False, seed: int = 0) -> np.ndarray:
    tensors, _ = load_tensors(RUN.model, "cpu")
    weight = tensors[f"seed-{seed}/{layer}"].double().numpy()
    rows = weight.reshape(1, -1, weight.shape[2]) if shared else weight
    return np.linalg.norm(rows, 2, axis=(1, 2))


@pytest.mark.usefixtures("fetched")
def test_the_file_holds_normalised_weights_and_says_so() -> None:
    for mode in ("none", "per-network", "shared"):
        settings = TrainModel(**SMALL, seeds=2, spectral_norm=mode)
        result = run_train_model(RUN, settings, Options(), Report("quiet"))
        assert not result["up_to_date"]
        assert load_tensors(RUN.model, "cpu")[1]["spectral_norm"] == mode
        for seed in range(2):
            for layer in ("w0", "w1", "w_mean"):
                ones = np.abs(sigmas(layer, mode == "shared", seed) - 1) < 1e-5
                assert ones.all() if mode != "none" else not ones.any(), (mode, layer)
            assert (np.abs(sigmas("w_logvar", mode == "shared", seed) - 1) > 1e-3).all()


@pytest.mark.usefixtures("fetched")
def test_what_several_ensembles_explain_is_of_their_own_held_out_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows with other variances for every seed: a network that predicts the mean of each explains nothing."""
    settings = TrainModel(**SMALL, seeds=3)
    variances: list[np.ndarray] = []

    def no_better(fit: Any, _: Any, seed: int) -> tuple[Any, Any]:
        variances.append(fit.data.targets[fit.splits[seed].holdout].double().numpy().var(axis=0))
        return torch.from_numpy(np.stack([variances[-1]] * fit.settings.networks)), torch.zeros(3)

    monkeypatch.setattr(train_model, "holdout_errors", no_better)
    run_train_model(RUN, settings, Options(), Report("quiet"))
    assert not np.allclose(variances[0], variances[1])
    dimensions = read_json(RUN.model_dir / "model.json")["dimensions"]
    assert [each["explained_variance"] for each in dimensions] == pytest.approx([0.0] * len(dimensions), abs=1e-9)


@pytest.mark.usefixtures("fetched")
def test_the_flag_reaches_the_fit_and_a_wrong_name_is_told(mopo: Any) -> None:
    small = "--networks 2 --hidden 16 --layers 2 --weight-decay 0,0,0 --max-epochs 1 --threads 1"
    assert mopo(f"train-model --run runs/one {small} --spectral-norm per-network").code == 0
    assert sigmas("w1") == pytest.approx(np.ones(2), abs=1e-5)
    outcome = mopo(f"train-model --run runs/one {small} --spectral-norm per-net")
    assert outcome.code in (2, 3) and "spectral-norm" in outcome.err and "shared" in outcome.err
    assert "Traceback" not in outcome.err
