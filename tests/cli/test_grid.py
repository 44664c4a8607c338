"""``ablate --grid`` on the command line, and the flags of single algorithms: what reaches the stages."""

from pathlib import Path
from typing import Any

import pytest


def test_the_flag_may_be_given_several_times(modelled: Any) -> None:
    assert modelled("ablate --method combo,mopo --grid beta=0.5,5 --grid critic-lr=1e-4,3e-4 --epochs 2") == 0
    (call,) = modelled.calls
    assert call.settings.table_name() == "combo+mopo_beta0.5+5_critic-lr0.0001+0.0003"
    assert call.settings.grid == {"beta": ("0.5", "5"), "critic_lr": ("1e-4", "3e-4")}
    assert call.options.origins["grid"] == "flag"
    assert [(c.method, getattr(c, "beta", None), c.critic_lr, c.epochs) for c in call.cells] == [
        *(("combo", beta, rate, 2) for beta in (0.5, 5) for rate in (1e-4, 3e-4)),
        *(("mopo", None, rate, 2) for rate in (1e-4, 3e-4)),
    ]


def test_cells_of_another_model_go_to_its_variant_with_their_part_of_the_grid(modelled: Any) -> None:
    assert modelled("ablate --method mopo-kit,combo --grid beta=0.5,5") == 0
    runs = {call.run.name: [c.policy_name() for c in call.cells] for call in modelled.calls if call.stage == "ablate"}
    assert runs == {
        "patience-4": ["mopo-kit_lam2.5_h5"],
        "hopper-medium-replay": ["combo_h5_beta0.5", "combo_h5_beta5"],
    }


def test_without_a_grid_cells_and_table_are_called_as_ever(modelled: Any) -> None:
    assert modelled("ablate --method mopo,bc") == 0
    (call,) = modelled.calls
    assert (call.settings.grid, call.settings.table_name()) == ({}, "mopo+bc")
    assert [cell.policy_name() for cell in call.cells] == ["mopo_lam1_h5", "bc"]


@pytest.mark.parametrize(
    ("without", "with_model"),
    [
        ("bc,sac-off", "bc,mopo"),
        ("sac-off --grid critic-lr=1e-4,3e-4", "sac-off,mopo --grid real-ratio=0.5,1"),
    ],
)
def test_cells_that_need_no_model_are_asked_for_none(shell: Any, without: str, with_model: str) -> None:
    assert shell("fetch-data --dataset hopper-medium") == 0
    assert shell(f"ablate --method {without}") == 0
    assert shell.stages == ["fetch-data", "ablate"]
    assert shell(f"ablate --method {with_model}") == 4
    assert "no model yet" in shell.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--grid beta", "--grid must be NAME=V1,V2,... (got: ['beta'])."),
        ("--grid tau=0.1 --grid tau=0.2", "--grid must not have tau twice"),
        ("--grid beta=1,2 --method mopo", "--grid beta does not apply to mopo: it is a setting of"),
        ("--lam 1,2 --method combo,bc", "--lam does not apply to combo, bc: none of them has a penalty."),
        ("--h 1,2 --method bc,sac-off", "--h does not apply to bc, sac-off: none of them uses the model."),
    ],
)
def test_a_wrong_grid_is_told_in_a_sentence_before_anything_is_done(modelled: Any, line: str, said: str) -> None:
    assert modelled(f"ablate {line}") == 2
    error, hint = modelled.err.splitlines()
    assert error.startswith(f"Error: {said}") and hint.startswith("Try: mopo ") and modelled.out == ""
    assert modelled.calls == []


def test_a_grid_in_a_settings_file(modelled: Any) -> None:
    Path("mine.yaml").write_text("ablate:\n  method: combo\n  grid:\n    beta: [0.5, 5]\n    real-ratio: 0.8\n")
    assert modelled("ablate --config mine.yaml") == 0
    assert [c.policy_name() for c in modelled.calls[-1].cells] == [
        f"combo_h5_beta{beta}_real-ratio0.8" for beta in ("0.5", "5")
    ]
    Path("mine.yaml").write_text("ablate:\n  grid: {beta: [true]}\n")
    assert modelled("ablate --config mine.yaml --method combo") == 2
    assert "--grid beta must not be true or false" in modelled.err


def test_an_algorithm_s_own_setting_is_a_flag_of_train_policy(modelled: Any) -> None:
    assert modelled("train-policy --method combo --beta 3") == 0
    (call,) = modelled.calls
    assert (call.settings.beta, call.options.origins["beta"]) == (3.0, "flag")
    assert modelled("train-policy --method mopo --beta 3") == 2
    assert "--beta is a setting of" in modelled.err and "not of the algorithm sac" in modelled.err
