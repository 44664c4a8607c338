"""``--method`` on the command line: what each command makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.store.lineage import read_lineage
from mopo_cli.store.run import RunFolder

RUN = RunFolder(Path("runs/hopper-medium-replay"))


def by_stage(shell: Any) -> dict[str, Any]:
    return {call.stage: call.settings for call in shell.calls}


def test_a_stage_takes_its_own_settings_of_the_method(shell: Any) -> None:
    assert shell("train-model --dataset hopper-medium --method mbpo-no-ens") == 0
    assert by_stage(shell)["train-model"].networks == 1
    assert shell.calls[-1].options.origins["networks"] == "method mbpo-no-ens"
    assert shell("select-elites --method mbpo-no-ens") == 0
    assert by_stage(shell)["select-elites"].n == 1
    assert shell("train-policy --method mbpo-no-ens") == 0
    assert (by_stage(shell)["train-policy"].penalty, by_stage(shell)["train-policy"].method) == ("none", "mbpo-no-ens")


def test_elites_that_are_missing_are_chosen_as_the_method_has_them(shell: Any) -> None:
    assert shell("train-model --dataset hopper-medium --method mbpo-no-ens") == 0
    assert shell("train-policy --method mbpo-no-ens") == 0
    assert shell.stages[-2:] == ["select-elites", "train-policy"]
    assert by_stage(shell)["select-elites"].n == 1


@pytest.mark.parametrize(
    ("method", "demand", "stage"),
    [
        ("mbpo-no-ens", "networks 1", "train-model"),
        ("mopo-v1", "spectral-norm per-network", "train-model"),
        ("mopo-kit", "patience 4", "train-model"),
    ],
)
@pytest.mark.parametrize("elites", [True, False])
def test_a_method_that_wants_another_model_is_refused(
    shell: Any, method: str, demand: str, stage: str, elites: bool, contents: Any
) -> None:
    assert shell("train-model --dataset hopper-medium") == 0
    if elites:
        assert shell("select-elites") == 0
    shell.calls.clear()
    before = contents(Path())
    assert shell(f"train-policy --method {method}") == 4
    assert f"The method {method} needs {demand}, but the {stage} of runs/hopper-medium has other settings" in shell.err
    assert f"Try: mopo {stage} --method {method}" in shell.err
    assert shell.calls == [] and contents(Path()) == before, "not even elites, which would be for no model in use"


def test_elites_of_another_number_are_refused_by_their_own_command(shell: Any) -> None:
    assert shell("train-model --dataset hopper-medium --networks 1") == 0
    assert shell("select-elites --n 2") == 0
    assert shell("train-policy --method mbpo-no-ens") == 4
    assert "mbpo-no-ens needs n 1" in shell.err and "mopo select-elites --method mbpo-no-ens" in shell.err


def test_run_trains_the_model_of_the_method(shell: Any) -> None:
    assert shell("run quickstart --method mbpo-no-ens --json") == 0
    settings = by_stage(shell)
    assert (settings["train-model"].networks, settings["select-elites"].n) == (1, 1)
    assert (settings["train-policy"].method, settings["train-policy"].penalty) == ("mbpo-no-ens", "none")
    assert settings["train-policy"].h == 50  # the preset's
    assert settings["evaluate"].policy == settings["train-policy"].policy_name() == "mbpo-no-ens_h50"
    assert json.loads(shell.out)["preset"] == "quickstart"


def test_run_of_a_method_that_imagines_nothing_trains_no_model(shell: Any) -> None:
    assert shell("run quickstart --method bc") == 0
    assert shell.stages == ["fetch-data", "train-policy", "evaluate"]
    assert by_stage(shell)["evaluate"].policy == "bc"


def test_a_method_in_a_settings_file_and_the_flag_that_beats_it(shell: Any) -> None:
    Path("mine.yaml").write_text("train-policy: {method: mbpo-no-ens}\n")
    assert shell("run hopper-medium --config mine.yaml") == 0
    assert (by_stage(shell)["train-model"].networks, by_stage(shell)["train-policy"].method) == (1, "mbpo-no-ens")
    assert shell("run hopper-medium --config mine.yaml --method mopo-v1") == 0
    settings = by_stage(shell)
    assert (settings["train-model"].networks, settings["train-model"].spectral_norm) == (7, "per-network")
    assert (settings["train-policy"].method, settings["train-policy"].penalty) == ("mopo-v1", "max-var")
    assert shell("run hopper-medium --config mine.yaml --method none") == 0
    settings = by_stage(shell)
    assert (settings["train-model"].networks, settings["train-policy"].method) == (7, None)


@pytest.mark.parametrize("command", ["train-model", "select-elites", "train-policy", "ablate", "run quickstart", ""])
def test_an_unknown_method_lists_the_known(modelled: Any, command: str) -> None:
    assert modelled(f"{command} --method mopp" if command else "presets settings mopp") == 2
    assert "There is no method 'mopp'; there are awr, bc, " in modelled.err
    assert "Try: mopo presets methods" in modelled.err
    assert modelled.calls == [] and modelled.out == ""


@pytest.mark.parametrize("preset", ["hopper-medium-replay", "mopo-v1"])
def test_what_is_shown_can_be_given_back(shell: Any, preset: str) -> None:
    assert shell(f"presets show {preset}") == 0
    Path("mine.yaml").write_text(shell.out)
    assert shell("run hopper-medium-replay --config mine.yaml --method mopo-v1") == 0
    assert (by_stage(shell)["train-policy"].lam, by_stage(shell)["train-policy"].h) == (5, 1)


def test_the_method_is_remembered_and_shown(modelled: Any) -> None:
    assert modelled("train-policy --method mbpo --lam 3") == 0
    (record,) = (r for key, r in read_lineage(RUN).items() if key.startswith("train-policy/"))
    assert record.settings["method"] == "mbpo"
    assert {record.extra["origins"][name] for name in ("method", "penalty", "lam", "target_entropy")} == {
        "flag",
        "method mbpo",
        "preset hopper-medium-replay",
    }
    assert modelled(f"show {RUN.root}") == 0
    lines = [line.split() for line in modelled.out.splitlines()]
    assert ["method", "mbpo", "flag"] in lines and ["penalty", "none", "method", "mbpo"] in lines
    code = modelled("train-policy --method mopo-v1 --lam 3")
    assert code == 4  # the model has no spectral norm


def test_ablate_has_a_cell_per_method_with_its_own_settings(modelled: Any) -> None:
    assert modelled("ablate --method mbpo,mopo,bc,sac-off --epochs 2") == 0
    (call,) = modelled.calls
    assert call.settings.table_name() == "mbpo+mopo+bc+sac-off"
    assert [(cell.method, cell.penalty, cell.epochs) for cell in call.cells] == [
        ("mbpo", "none", 2),
        ("mopo", "max-var", 2),
        ("bc", "none", 2),
        ("sac-off", "none", 2),
    ]
    assert call.parts == []


def test_ablate_trains_each_other_model_once_in_a_variant_of_the_run(modelled: Any) -> None:
    line = "ablate --method mopo-v1,mopo,mbpo-no-ens,mopo-v1-no-pen"
    assert modelled(line) == 0
    spectral, single = RUN.variant("spectral-norm-per-network"), RUN.variant("networks-1-n-1")
    calls = [(call.stage, call.run, [cell.method for cell in call.cells]) for call in modelled.calls]
    assert sorted(calls[:4]) == sorted(
        [(stage, run.root, []) for run in (spectral, single) for stage in ("train-model", "select-elites")]
    )
    assert calls[4:] == [
        ("ablate", spectral.root, ["mopo-v1", "mopo-v1-no-pen"]),
        ("ablate", single.root, ["mbpo-no-ens"]),
        ("ablate", RUN.root, ["mopo"]),
    ]
    name = modelled.calls[-1].settings.table_name()
    assert modelled.calls[-1].parts == [run.ablation_dir(name) / "table.json" for run in (spectral, single)]
    models = {call.run: call.settings for call in modelled.calls if call.stage == "train-model"}
    assert (models[single.root].networks, models[single.root].spectral_norm) == (1, "none")
    assert (models[spectral.root].networks, models[spectral.root].spectral_norm) == (7, "per-network")
    # The very data of the run, and the run stays the one that commands work on.
    paths = {
        file["path"] for run in (RUN, spectral, single) for file in read_lineage(run)["fetch-data"].outputs.values()
    }
    assert len({(RUN.root / path).resolve() for path in paths}) == 1
    assert Path("runs/current").read_text() == "hopper-medium-replay\n"


def test_a_variant_has_the_run_s_own_settings_of_the_model_but_what_the_method_asks(shell: Any) -> None:
    assert shell("train-model --dataset hopper-medium --hidden 33 --seed-list 2,4") == 0
    assert shell("select-elites --networks 0,2") == 0
    assert shell("ablate --method mbpo-no-ens --force") == 0
    model, elites = (call for call in shell.calls if "variants" in call.run.parts and call.stage != "ablate")
    assert (model.settings.hidden, model.settings.networks, model.settings.all_seeds()) == (33, 1, (2, 4))
    assert (elites.settings.networks, elites.settings.n) == (None, 1)
    assert {call.options.force for call in shell.calls if call.stage == "ablate"} == {True}
    assert not model.options.force, "--force is for the policies that are asked for"


def test_penalties_and_methods_are_two_grids(modelled: Any) -> None:
    assert modelled("ablate --method mopo,mbpo --penalty ens") == 2
    assert "--penalty or --method" in modelled.err
    assert modelled("ablate --method mopo,mopo") == 2
    assert "twice" in modelled.err
    assert modelled.calls == []


@pytest.mark.parametrize("command", ["rollout", "evaluate", "fetch-data"])
def test_commands_that_a_method_says_nothing_of_do_not_take_it(modelled: Any, command: str) -> None:
    assert modelled(f"{command} --method mopo") == 2
    assert "--method" in modelled.err
