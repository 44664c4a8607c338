"""The settings: bounds, names made from them, grids."""

from typing import Any

import pytest
from pydantic import ValidationError

from mopo_cli.config.ablation import grid
from mopo_cli.config.fields import Settings, written
from mopo_cli.config.schema import STAGES, Ablate, Evaluate, Rollout, TrainModel, TrainPolicy


@pytest.mark.parametrize("stage", STAGES.values())
def test_every_field_is_described(stage: type[Settings]) -> None:
    for name, info in stage.model_fields.items():
        assert info.description, name


@pytest.mark.parametrize(
    ("stage", "values"),
    [
        (TrainPolicy, {"penalty": "max-vr"}),
        (TrainPolicy, {"lam": -1}),
        (TrainPolicy, {"lam": float("nan")}),
        (TrainPolicy, {"h": 0}),
        (TrainPolicy, {"h": 2.5}),
        (TrainPolicy, {"h": True}),
        (TrainPolicy, {"real_ratio": 1.01}),
        (TrainPolicy, {"seed_list": "0,0"}),
        (TrainPolicy, {"seed_list": ""}),
        (TrainPolicy, {"seed_list": "0,,1"}),
        (TrainPolicy, {"seed_list": []}),
        (TrainPolicy, {"log_std_min": 2, "log_std_max": 2}),
        (TrainPolicy, {"name": "../elsewhere"}),
        (TrainPolicy, {"name": "a/b"}),
        (TrainPolicy, {"name": ".hidden"}),
        (TrainPolicy, {"epocs": 3}),
        (TrainModel, {"layers": 3}),
        (TrainModel, {"holdout_fraction": 1}),
        (Evaluate, {"policy": "../x"}),
        (Ablate, {"penalty": "max-var,maxvar"}),
        (Ablate, {"lam": "1,1.0"}),
    ],
)
def test_what_is_not_allowed_is_refused(stage: type[Settings], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stage(**values)


def test_settings_cannot_be_changed() -> None:
    settings = TrainPolicy()
    with pytest.raises(ValidationError):
        settings.lam = 2.0


def test_values_may_come_as_text() -> None:
    model = TrainModel(layers="1", weight_decay="0.1,2e-5", seed_list="3,0", max_epochs="none")  # type: ignore[arg-type]
    assert (model.layers, model.weight_decay, model.seed_list, model.max_epochs) == (
        1,
        (0.1, 2e-5),
        (3, 0),
        None,
    )


def test_seeds_count_from_zero_and_a_list_beats_the_count() -> None:
    assert TrainPolicy(seeds=3).all_seeds() == (0, 1, 2)
    assert TrainPolicy(seeds=3, seed_list=(7, 1)).all_seeds() == (7, 1)
    assert TrainModel().all_seeds() == (0,)


def test_names_tell_the_settings() -> None:
    assert TrainPolicy().policy_name() == "mopo_max-var_lam1_h5"
    assert TrainPolicy(penalty="ens", lam=0.5, h=1).policy_name() == "mopo_ens_lam0.5_h1"
    assert TrainPolicy(penalty="none", lam=3).policy_name() == "mopo_none_h5"
    assert TrainPolicy(name="mine").policy_name() == "mine"
    assert TrainPolicy(lam=1_000_001).policy_name() == "mopo_max-var_lam1000001_h5"
    assert Rollout().file_name() == "uniform_h5"
    assert Rollout(actions="a/policy.safetensors", h=2).file_name() == "policy_h2"
    assert Ablate(lam=(0.5, 1), h=(1, 5)).table_name() == "max-var+none_lam0.5+1_h1+5"


def test_a_grid_has_every_cell_once_and_lam_counts_only_with_a_penalty() -> None:
    cells = grid(Ablate(penalty="max-var,none", lam="0.5,1,5", h="1,5", epochs=7, seeds=3))  # type: ignore[arg-type]
    assert {(c.penalty, c.lam, c.h) for c in cells if c.penalty != "none"} == {
        ("max-var", lam, h) for lam in (0.5, 1.0, 5.0) for h in (1, 5)
    }
    assert [c.h for c in cells if c.penalty == "none"] == [1, 5]
    assert len({c.policy_name() for c in cells}) == len(cells) == 8
    assert {(c.epochs, c.seeds) for c in cells} == {(7, 3)}


def test_values_that_differ_in_the_last_digits_are_cells_of_their_own() -> None:
    weights = (1e6, 1e6 + 1, 0.1234567, 0.12345671)
    cells = grid(Ablate(penalty=("max-var",), lam=weights))
    assert [cell.lam for cell in cells] == [*weights]
    assert len({cell.policy_name() for cell in cells}) == 4
    assert Ablate(lam=weights).table_name() == "max-var+none_lam1e+06+1000001+0.1234567+0.12345671_h5"
    assert written(weights) == "1e+06,1000001,0.1234567,0.12345671"


@pytest.mark.parametrize("name", ["foo-bound", "foo-ope"])
def test_a_policy_is_not_called_as_the_evaluations_of_another(name: str) -> None:
    with pytest.raises(ValidationError, match="must not end in -bound or -ope"):
        TrainPolicy(name=name)
