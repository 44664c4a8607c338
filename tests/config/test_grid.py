"""The cells of a grid over any setting: which there are, what they are called, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from probes.grids import made

from mopo_cli.agents.algorithms import load
from mopo_cli.config.ablation import axis_values
from mopo_cli.errors import UsageError


def test_every_combination_is_a_cell_named_after_what_differs() -> None:
    result = made("beta=0.5,1,5", "real-ratio=0.5,0.8", method="combo", dataset="hopper-medium")
    assert result.names == [f"combo_h5_beta{b}_real-ratio{f}" for b in ("0.5", "1", "5") for f in ("0.5", "0.8")]
    assert [(c.beta, c.real_ratio) for c in result.cells] == [(b, f) for b in (0.5, 1, 5) for f in (0.5, 0.8)]  # type: ignore[attr-defined]
    plain = made(method="combo", dataset="hopper-medium").cells[0]
    for cell in result.cells:
        same = cell.model_copy(update={"beta": plain.beta, "real_ratio": plain.real_ratio, "name": None})  # type: ignore[attr-defined]
        assert same == plain, "all else is the method's on this data set"


def test_a_method_without_the_setting_has_one_cell() -> None:
    result = made("beta=0.5,5", "critic-lr=1e-4,3e-4", method="combo,mopo,bc")
    assert result.names[4:] == ["mopo_lam1_h5_critic-lr0.0001", "mopo_lam1_h5_critic-lr0.0003", "bc"]
    assert [name.split("_")[0] for name in result.names] == ["combo"] * 4 + ["mopo"] * 2 + ["bc"]
    assert [c.critic_lr for c in result.cells[4:6]] == [1e-4, 3e-4]
    values = [axis_values(result.settings, cell) for cell in result.cells[3:]]
    assert values == [
        {"beta": 5.0, "critic_lr": 3e-4},
        {"beta": None, "critic_lr": 1e-4},
        {"beta": None, "critic_lr": 3e-4},
        {"beta": None, "critic_lr": None},
    ]


@pytest.mark.parametrize("axis", ["real-ratio=0.5,0.8", "rollout-batch=100,200", "penalty-scale=raw,standardised"])
def test_what_is_about_model_rows_means_nothing_where_there_are_none(axis: str) -> None:
    result = made(axis, method="mbpo,sac-off,bc")
    assert [cell.method for cell in result.cells] == ["mbpo", "mbpo", "sac-off", "bc"]
    assert {cell.real_ratio for cell in result.cells[2:]} == {1.0}, "a method stays what it is"


def test_lam_and_h_cross_the_grid_where_they_mean_something() -> None:
    result = made("tau=0.01,0.1", method="mopo,mbpo,sac-off", lam="0.5,2", h="1,3")
    for method, lams, horizons in (("mopo", 2, 2), ("mbpo", 1, 2), ("sac-off", 1, 1)):
        chosen = [cell for cell in result.cells if cell.method == method]
        assert len(chosen) == 2 * lams * horizons
        assert len({(c.tau, c.lam, c.h) for c in chosen}) == len(chosen)
    assert len(set(result.names)) == len(result.names)


def test_a_value_at_which_nothing_is_imagined_has_neither_lam_nor_h() -> None:
    result = made("real-ratio=0.5,1", penalty="max-var,ens,none", lam="1,5", h="1,5")
    assert [name for name in result.names if "ratio1" in name] == ["mopo_none_real-ratio1"]
    assert sum(cell.real_ratio == 1 for cell in result.cells) == 1
    assert sum(cell.real_ratio == 0.5 for cell in result.cells) == 2 * 2 * 2 + 2


def test_the_penalty_grid_crosses_every_other_setting() -> None:
    result = made("hidden=16,32", "actor-schedule=constant,cosine", penalty="max-var,none", lam="1,5", epochs="7")
    assert len(result.cells) == len(set(result.names)) == 2 * 2 * (2 + 1)
    assert "mopo_max-var_lam5_h5_hidden16_actor-schedule-cosine" in result.names
    assert {(c.hidden, c.actor_schedule, c.epochs) for c in result.cells} == {
        (hidden, schedule, 7) for hidden in (16, 32) for schedule in ("constant", "cosine")
    }


def test_an_algorithm_by_name_has_its_own_settings() -> None:
    result = made("beta=0.5,5", algorithm="combo", real_ratio="0.5", penalty="none")
    assert result.names == ["combo_h5_beta0.5", "combo_h5_beta5"]
    assert {(c.algorithm, c.penalty) for c in result.cells} == {("combo", "none")}
    every = made(algorithm="combo", real_ratio="0.5", penalty="max-var,avg-var,none")
    assert every.names == ["combo_max-var_lam1_h5", "combo_avg-var_lam1_h5", "combo_h5"]
    learned = made("actor-lr=1e-3,1e-4", algorithm="bc", real_ratio="1")
    assert learned.names == ["bc_actor-lr0.001", "bc_actor-lr0.0001"], "one each, whatever the penalties"
    assert {cell.penalty for cell in learned.cells} == {"none"}


def test_none_is_a_value_where_a_setting_may_have_none() -> None:
    result = made("target-entropy=none,-3", method="mopo")
    assert [cell.target_entropy for cell in result.cells] == [None, -3]
    assert [axis_values(result.settings, c)["target_entropy"] for c in result.cells] == ["none", -3]


def test_a_single_value_is_in_the_name_too() -> None:
    assert made("tau=0.1", method="mopo").names == ["mopo_lam1_h5_tau0.1"]


def test_the_grid_may_stand_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("ablate:\n  method: mopo\n  grid: {tau: [0.1, 0.01], critic-lr: 0.001}\n  epochs: 3\n")
    result = made(file=path)
    assert result.names == ["mopo_lam1_h5_tau0.1_critic-lr0.001", "mopo_lam1_h5_tau0.01_critic-lr0.001"]
    assert {cell.epochs for cell in result.cells} == {3}
    path.write_text("train-policy: {tau: 0.5, name: mine}\n")
    assert [cell.tau for cell in made("tau=0.1,0.2", file=path, method="mopo").cells] == [0.1, 0.2]
    assert made(file=path, method="mopo,mbpo").names == ["mopo_lam1_h5", "mbpo_h5"], "one name is not for all cells"


@pytest.mark.parametrize(
    ("axis", "flags", "said"),
    [
        ("betta=1", {}, r"--grid: unknown setting 'betta' \(did you mean 'beta'\?\)\."),
        ("crtic-lr=1", {}, r"unknown setting 'crtic-lr' \(did you mean 'critic-lr'\?\)"),
        ("networks=3", {}, r"unknown setting 'networks'"),
        ("beta=0.5,-1", {"method": "combo"}, r"--grid beta must be greater than or equal to 0, not '-1'"),
        ("hidden=16,x", {}, r"--grid hidden must be a valid integer"),
        ("beta=0.5,x", {"method": "combo"}, r"--grid beta must be a valid number, not 'x'\."),
        ("actor-schedule=flat", {}, r"--grid actor-schedule must be 'constant' or 'cosine'"),
        ("tau=0.1,1e-1", {}, r"--grid tau has a value twice"),
        ("method=mopo,mbpo", {}, r"--grid cannot have method: .*--method A,B"),
        ("algorithm=sac,bc", {}, r"--grid cannot have algorithm: .*--method A,B"),
        ("penalty=ens,none", {}, r"--grid cannot have penalty: .*--penalty A,B"),
        ("lam=1,2", {"method": "mopo"}, r"--grid cannot have lam: its values are compared with --lam A,B\."),
        ("h=1,2", {}, r"--grid cannot have h: .*--h A,B"),
        ("seeds=1,2", {}, r"--grid cannot have seeds: all cells use the same seeds"),
        ("seed-list=1,2", {}, r"--grid cannot have seed-list: all cells use the same seeds"),
        ("name=a,b", {}, r"--grid cannot have name: cells are named after the settings that differ"),
        ("eval-every=1,2", {}, r"--grid cannot have eval-every"),
        ("tau=0.1,0.2", {"tau": "0.3"}, r"--tau is an axis of --grid too: set it only once"),
        ("beta=1,2", {"method": "mopo,bc"}, r"--grid beta does not apply to mopo, bc: it is a setting of .*combo"),
        ("beta=1,2", {}, r"--grid beta does not apply to the algorithm sac: it is a setting of .*combo"),
        ("critic-lr=1e-3", {"method": "bc"}, r"--grid critic-lr does not apply to bc: it has no effect there"),
        ("real-ratio=0.1", {"method": "bc,sac-off"}, r"--grid real-ratio does not apply to bc, sac-off: it applies"),
        ("log-std-min=-5,3", {"method": "mopo"}, r"log-std-min 3 must be below log-std-max 2"),
        ("log-std-min=-5,3", {}, r"log-std-min 3 must be below log-std-max 2"),
        ("real-ratio=0.5,1", {"method": "combo"}, r"algorithm combo needs .*: real-ratio 1 of 256 rows"),
    ],
)  # fmt: skip
def test_what_is_refused(axis: str, flags: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        made(axis, **flags)
    assert "\n" not in caught.value.message


def test_an_axis_is_of_use_if_one_method_has_it() -> None:
    assert len(made("beta=1,2", method="bc,combo").cells) == 1 + 2


@pytest.mark.parametrize("algorithm", ["sac", "bc", "combo"])
def test_settings_that_the_loop_reads_matter_to_every_learner(algorithm: str) -> None:
    """Also where a learner's own settings do not name them."""
    flags: dict[str, Any] = {
        "algorithm": algorithm,
        "penalty": "none",
        "real_ratio": {"sac": "0.05", "bc": "1", "combo": "0.5"}[algorithm],
    }
    for axis in ("batch-size=64,128", "epochs=1,2", "steps-per-epoch=5,10", "actor-lr=1e-3,1e-4"):
        assert len(made(axis, **flags).cells) == 2, axis


def test_a_learner_s_setting_matters_to_those_that_have_it() -> None:
    assert "gamma" not in load("bc").settings.__dataclass_fields__
    assert made("gamma=0.9,0.99", "hidden=16,32", method="bc,sac-off").names == [
        *("bc_hidden16", "bc_hidden32"),
        *(f"sac-off_gamma{gamma}_hidden{units}" for gamma in ("0.9", "0.99") for units in (16, 32)),
    ]
