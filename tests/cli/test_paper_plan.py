"""The settings of a table's cells: the papers' for every data set, but where the user gave others."""

from pathlib import Path
from typing import Any

import pytest

from mopo_cli.cli.options import Call
from mopo_cli.cli.paper_plan import Plan, plan_dataset, table_remarks
from mopo_cli.config.paper_tables import load_table
from mopo_cli.config.presets import names_of
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import SettingsError
from mopo_cli.report import Report
from mopo_cli.stages.common.options import Options


def plan(table: str, dataset: str, flags: dict[str, str] | None = None, **call: Any) -> Plan:
    full = load_table(table)
    return plan_dataset(Call(Report("quiet"), flags or {}, **call), full, Path("papers"), dataset, None)


def cells(table: str, dataset: str, flags: dict[str, str] | None = None, **call: Any) -> dict[str, TrainPolicy]:
    return plan(table, dataset, flags, **call).part.cells


def test_a_cell_has_the_papers_settings_on_its_data_set() -> None:
    result = cells("mopo-1", "walker2d-random-v0")
    assert list(result) == ["MOPO", "MBPO", "SAC", "BC", "BEAR", "BRAC-v"]
    assert [(c.penalty, c.lam, c.h) for c in (result["MOPO"], result["MBPO"])] == [("max-var", 1, 1), ("none", 1, 5)]
    assert {c.all_seeds() for c in result.values()} == {tuple(range(6))}
    assert {c.epochs * c.steps_per_epoch for c in result.values()} == {1_000_000}
    assert {c.target_entropy for c in result.values()} == {-3}
    assert (result["SAC"].real_ratio, result["SAC"].algorithm, result["BC"].algorithm) == (1, "sac", "bc")


@pytest.mark.parametrize("name", ["combo-1", "combo-3", "drop-1"])
def test_rows_of_the_relatives_are_the_methods_of_their_names(name: str) -> None:
    table = load_table(name)
    for dataset in table.datasets[::4]:
        result = cells(name, dataset)
        assert list(result) == [row.label for row in table.rows if row.method]
        for label, cell in result.items():
            assert cell.method == label.lower() and cell.all_seeds() == tuple(range(6))
            assert cell.algorithm == {"MOPO": "sac", "MBPO": "sac", "SAC-off": "sac"}.get(label, label.lower())
            assert cell.needs_model == (label in ("COMBO", "MOPO", "MOReL", "DROP", "MBPO"))


def test_budgets_are_compared_with_those_of_the_body() -> None:
    table = load_table("drop-1").model_copy(update={"datasets": ("hopper-medium-v0", "walker2d-medium-v0")})
    plans = [plan("drop-1", name, {"epochs": "900"}) for name in table.datasets]
    remark = table_remarks(table, table, plans)[0]
    assert remark == "Smaller than the paper's (*): 900,000 of 1,500,000 updates, 900,000 of 3,000,000 updates"
    enough = [plan("drop-1", "halfcheetah-medium-v0", {"epochs": "900"})]
    table = table.model_copy(update={"datasets": ("halfcheetah-medium-v0",)})
    assert not any("Smaller" in remark for remark in table_remarks(table, table, enough))


def test_rows_have_the_seeds_of_the_paper_s_unless_the_user_says_how_many() -> None:
    table = load_table("mopo-2").model_copy(update={"datasets": ("ant-angle",)})
    counts = {label: len(cell.all_seeds()) for label, cell in cells("mopo-2", "ant-angle").items()}
    assert counts == {"MOPO": 6} | dict.fromkeys(("MBPO", "SAC", "BEAR", "BRAC-p", "BRAC-v"), 3)
    assert not any("Smaller" in remark for remark in table_remarks(table, table, [plan("mopo-2", "ant-angle")]))
    for seeds, smaller in (("3", "3 of 6 seeds"), ("2", "2 of 3 seeds, 2 of 6 seeds")):
        asked = plan("mopo-2", "ant-angle", {"seeds": seeds})
        assert {len(cell.all_seeds()) for cell in asked.part.cells.values()} == {int(seeds)}
        assert table_remarks(table, table, [asked])[0] == f"Smaller than the paper's (*): {smaller}"


def test_drop_trains_as_long_as_its_authors_do() -> None:
    """On every D4RL set, by the body: hopper 1500 epochs of 1000 steps, halfcheetah 500, walker2d 3000."""
    for dataset in load_table("drop-1").datasets:
        cell = cells("drop-1", dataset)["DROP"]
        epochs = {"hopper": 1500, "halfcheetah": 500, "walker2d": 3000}[dataset.split("-")[0]]
        assert (cell.epochs, cell.steps_per_epoch) == (epochs, 1000), dataset


def test_the_out_of_distribution_tasks_roll_out_at_random() -> None:
    jump, ant = cells("mopo-2", "halfcheetah-jump"), cells("mopo-4", "ant-angle-60")
    assert [(c.h, c.lam, c.rollout_actions) for c in (jump["MOPO"], ant["MOPO"])] == [
        (5, 1, "uniform"),
        (25, 2, "uniform"),
    ]
    assert jump["MBPO"].rollout_actions == "uniform"


def test_the_first_versions_table_has_its_own_pair_and_seeds() -> None:
    result = cells("mopo-3-v1", "hopper-medium-replay-v0")
    assert (result["MOPO"].h, result["MOPO"].lam, len(result["MOPO"].all_seeds())) == (1, 5, 3)
    assert result["MBPO"].h == 5


def test_the_rows_of_a_search_are_what_they_are_called() -> None:
    for dataset in load_table("mopo-h-lam").datasets:
        for label, cell in cells("mopo-h-lam", dataset).items():
            assert label == f"h {cell.h}, lam {cell.lam:g}" and cell.penalty == "max-var"


def test_real_data_in_the_batch_is_all_that_differs() -> None:
    with_, without = cells("mopo-real-ratio", "halfcheetah-medium-v0").values()
    assert (with_.real_ratio, without.real_ratio) == (0.05, 0)
    assert (with_.method, with_.penalty, with_.h) == ("mbpo", "none", 5)
    assert with_.model_copy(update={"real_ratio": 0.0, "name": without.name}) == without


@pytest.mark.parametrize("name", names_of("table"))
def test_no_two_cells_of_a_data_set_have_the_same_name(name: str) -> None:
    for dataset in load_table(name).datasets:
        result = [cell.policy_name() for cell in cells(name, dataset).values()]
        assert len(set(result)) == len(result) > 0


def test_flags_and_the_settings_file_beat_the_papers_settings(tmp_path: Path) -> None:
    flags = {"epochs": "7", "seed_list": "3,5", "lam": "0.5"}
    result = cells("mopo-1", "walker2d-random-v0", flags)
    assert {(c.epochs, c.all_seeds(), c.lam) for c in result.values()} == {(7, (3, 5), 0.5)}
    assert (result["MOPO"].h, result["MBPO"].h) == (1, 5)  # what was not given stays the method's
    assert {c.h for c in cells("mopo-1", "walker2d-random-v0", {"h": "3"}).values()} == {3}
    file = tmp_path / "run.yaml"
    file.write_text("train-policy: {h: 2, seeds: 4, gamma: 0.9, real-ratio: 0.5}\ntrain-model: {networks: 3}\n")
    made = plan("mopo-real-ratio", "walker2d-random-v0", config=file)
    assert {(c.h, c.seeds, c.gamma) for c in made.part.cells.values()} == {(2, 4, 0.9)}
    assert {c.real_ratio for c in made.part.cells.values()} == {0.05, 0}  # what the rows are about
    assert made.model[0].networks == 3


def test_what_a_file_says_of_a_method_comes_before_what_it_says_of_all(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train-policy: {epochs: 3}\nmethods: {mopo: {train-policy: {epochs: 4}}}\n")
    epochs = {
        label: cell.epochs for label, cell in plan("mopo-1", "walker2d-random-v0", config=file).part.cells.items()
    }
    assert epochs["MOPO"] == 4 and {epochs[label] for label in epochs if label != "MOPO"} == {3}


def test_the_presets_of_another_data_set_can_be_named() -> None:
    made, table = plan("mopo-1", "generate:Hopper-v5:random", preset="hopper-medium"), load_table("mopo-1")
    assert made.part.cells["MOPO"].lam == 5
    assert "Settings of every data set from the preset hopper-medium" in table_remarks(table, table, [made])


def test_what_the_user_changed_is_remarked_with_what_it_was() -> None:
    table = load_table("mopo-1")
    flags = {"epochs": "7", "seeds": "2"}
    plans = [plan("mopo-1", name, flags) for name in ("walker2d-random-v0", "hopper-medium-v0", "hopper-medium")]
    remarks = table_remarks(table, table, plans)
    assert remarks[0] == "Smaller than the paper's (*): 2 of 6 seeds, 7,000 of 1,000,000 updates, 2 of 12 data sets"
    assert remarks[1] == "Other settings, train-policy: epochs 7 instead of 1000"
    assert "one model" in remarks[2] and len(remarks) == 3


def test_a_table_as_in_the_paper_has_no_such_remark() -> None:
    table = load_table("mopo-4")
    plans = [plan("mopo-4", name) for name in table.datasets]
    assert [remark.split()[0] for remark in table_remarks(table, table, plans)] == ["All"]  # one model for all seeds
    assert {seed for plan in plans for cell in plan.part.cells.values() for seed in cell.all_seeds()} == set(range(6))


def test_force_is_about_the_cells() -> None:
    made = plan("mopo-1", "hopper-medium-v0", options=Options(force=True))
    assert made.ablation[1].force and not (made.fetch[1].force or made.model[1].force or made.elites[1].force)


def test_what_makes_a_method_is_not_the_users_to_change_for_a_whole_table() -> None:
    with pytest.raises(SettingsError, match=r"mopo-1 has real-ratio 0\.5, but the method sac-off is real-ratio 1\.0"):
        plan("mopo-1", "walker2d-random-v0", {"real_ratio": "0.5"})
    assert cells("mopo-real-ratio", "walker2d-random-v0")["MBPO, no real data"].real_ratio == 0
