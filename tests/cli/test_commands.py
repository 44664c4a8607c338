"""What a command line means: which run, which data set, which settings, which stages."""

import json
from pathlib import Path
from typing import Any

import pytest

PENDULUM = "generate:InvertedPendulum-v5:random"


def test_train_model_of_a_data_set_fetches_first(shell: Any) -> None:
    assert shell("train-model --dataset walker2d-medium") == 0
    fetch, train = shell.calls
    assert (fetch.stage, train.stage) == ("fetch-data", "train-model")
    assert fetch.settings.dataset == "walker2d-medium"
    assert fetch.run == train.run == Path("runs/walker2d-medium")
    assert "after fetch-data" not in shell.err  # its hint would name what is being done already
    assert "after train-model" in shell.err

    assert shell("train-model --dataset walker2d-medium") == 0
    assert shell.stages == ["fetch-data", "train-model", "train-model"]


def test_train_policy_works_on_the_current_run_with_its_data_sets_preset(shell: Any) -> None:
    shell("train-model --dataset walker2d-medium")
    shell.calls.clear()
    assert shell("train-policy --penalty max-var --lam 1 --h 5") == 0
    elites, train = shell.calls
    assert (elites.stage, train.stage) == ("select-elites", "train-policy")
    assert train.run == Path("runs/walker2d-medium")
    assert (train.settings.penalty, train.settings.lam, train.settings.h) == ("max-var", 1.0, 5)
    assert train.settings.target_entropy == -3  # from the preset
    assert train.options.origins["lam"] == "flag"
    assert train.options.origins["target_entropy"] == "preset walker2d-medium"
    assert train.options.origins["gamma"] == "default"

    assert shell("train-policy") == 0
    assert shell.stages == ["select-elites", "train-policy", "train-policy"]  # elites are there already
    assert (shell.calls[-1].settings.lam, shell.calls[-1].settings.h) == (5, 5)


def test_data_that_are_gone_are_fetched_again_as_they_were(shell: Any) -> None:
    shell(f"fetch-data --dataset {PENDULUM} --transitions 123 --seed 9")
    Path(f"runs/{PENDULUM.replace(':', '-')}/fetch-data.out").unlink()
    shell.calls.clear()
    assert shell("train-model") == 0
    assert shell.stages == ["fetch-data", "train-model"]
    assert (shell.calls[0].settings.transitions, shell.calls[0].settings.seed) == (123, 9)
    assert shell.calls[0].options.origins["transitions"] == "flag"


def test_a_run_keeps_the_preset_its_data_were_fetched_with(shell: Any) -> None:
    assert shell("fetch-data --preset quickstart --run elsewhere") == 0
    assert shell.calls[0].settings.dataset == PENDULUM
    assert shell("train-model") == 0
    assert shell.calls[-1].run.resolve() == Path("elsewhere").resolve()
    assert shell.calls[-1].options.origins["max_epochs"] == "preset quickstart"
    assert shell("train-model --preset hopper-medium") == 0
    assert shell.calls[-1].options.origins["max_epochs"] == "default"


def test_a_run_keeps_a_preset_whose_data_set_a_file_stands_in_for(shell: Any) -> None:
    assert shell("fetch-data --dataset ./logs/hopper.h5 --env Hopper-v4 --preset hopper-medium") == 0
    assert shell.calls[0].settings.dataset == "./logs/hopper.h5"
    assert shell("train-policy --rollouts some.h5") == 0
    assert shell.calls[-1].options.origins["lam"] == "preset hopper-medium"


@pytest.mark.parametrize(("flags", "run"), [("", "runs/hopper-mixed-v0"), (" --run elsewhere", "elsewhere")])
def test_fetch_data_of_the_current_run_needs_no_name(shell: Any, flags: str, run: str) -> None:
    shell(f"fetch-data --dataset hopper-mixed-v0{flags}")
    assert shell("fetch-data --force") == 0
    assert shell.calls[-1].settings.dataset == "hopper-mixed-v0"
    assert shell.calls[-1].run.resolve() == Path(run).resolve()
    assert shell.calls[-1].options.force


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("train-policy --dataset hopper-medium", "mopo train-model --dataset hopper-medium"),
        ("rollout --run somewhere", "mopo train-model --run somewhere"),
        ("select-elites --dataset hopper-medium", "mopo train-model --dataset hopper-medium"),
        ("ablate --dataset hopper-medium", "mopo train-model --dataset hopper-medium"),
        ("evaluate --dataset hopper-medium", "mopo train-policy --dataset hopper-medium"),
        ("train-policy", "--dataset NAME"),
    ],
)
def test_a_stage_without_what_it_needs_names_the_command_to_run(shell: Any, line: str, hint: str) -> None:
    assert shell(line) == 4
    assert shell.calls == []
    assert hint in shell.err
    assert shell.out == ""
    assert list(Path().iterdir()) == []  # nothing on disk changed


@pytest.mark.parametrize("flags", ["--rollouts some.h5", "--method bc", "--method sac-off"])
def test_training_without_rollouts_of_a_model_needs_none(shell: Any, flags: str) -> None:
    assert shell("fetch-data --dataset hopper-medium") == 0
    assert shell(f"train-policy {flags}") == 0
    assert shell.stages == ["fetch-data", "train-policy"]


def test_a_run_of_other_data_is_refused(shell: Any) -> None:
    shell("fetch-data --dataset hopper-medium --run here")
    assert shell("train-model --dataset walker2d-medium --run here") == 4
    assert "holds hopper-medium, not walker2d-medium" in shell.err
    assert shell("train-model --dataset hopper-medium --run here") == 0
    assert shell("run quickstart --run here") == 4
    assert "holds hopper-medium, not generate:InvertedPendulum-v5:random" in shell.err


def test_lists_are_comma_separated(shell: Any) -> None:
    shell("train-model --dataset hopper-medium")
    assert shell("ablate --penalty max-var,none --lam 0.5,1,5 --h 1,5 --seed-list 0,3,7") == 0
    grid = shell.calls[-1].settings
    assert (grid.penalty, grid.lam, grid.h) == (("max-var", "none"), (0.5, 1.0, 5.0), (1, 5))
    assert grid.all_seeds() == (0, 3, 7)
    assert shell("select-elites --networks 0,2,3,5,6") == 0
    assert shell.calls[-1].settings.networks == (0, 2, 3, 5, 6)


@pytest.mark.parametrize(
    ("line", "before", "now", "value"),
    [
        ("select-elites", "--members 0,2", "--networks", (0, 2)),
        ("rollout", "--penalty-members elite", "--penalty-networks", "elite"),
        ("train-policy", "--penalty-members elite", "--penalty-networks", "elite"),
        ("ablate", "--penalty-members elite", "--penalty-networks", "elite"),
    ],
)
def test_a_flag_s_old_name_counts_and_the_new_one_is_named(
    shell: Any, line: str, before: str, now: str, value: Any
) -> None:
    shell("train-model --dataset hopper-medium")
    assert shell(f"{line} {before}") == 0
    assert f"{before.split()[0]} is called {now} now." in shell.err
    assert getattr(shell.calls[-1].settings, now[2:].replace("-", "_")) == value
    assert shell(f"{line} {before} {now} {before.split()[1]}") == 2
    assert shell(f"{line} --help") == 0 and f"{before.split()[0]} " not in shell.out
    assert shell("train-model --members 3") == 2


def test_negative_values_and_none_are_values(shell: Any) -> None:
    shell("train-model --dataset hopper-medium")
    assert shell("train-policy --target-entropy -2.5 --log-std-min -4") == 0
    assert (shell.calls[-1].settings.target_entropy, shell.calls[-1].settings.log_std_min) == (-2.5, -4)
    assert shell("train-policy --target-entropy none") == 0
    assert shell.calls[-1].settings.target_entropy is None


def test_how_to_execute_is_no_setting(shell: Any) -> None:
    shell("train-model --dataset hopper-medium --device cuda:1 --threads 2 --force --allow-mismatch")
    options = shell.calls[-1].options
    assert (options.device, options.threads, options.force, options.allow_mismatch) == (
        "cuda:1",
        2,
        True,
        True,
    )
    shell("train-policy --engine eager")
    assert shell.calls[-1].options.engine == "eager"
    shell("train-model")
    options = shell.calls[-1].options
    assert options.engine == "auto"
    assert (options.device, options.threads, options.force, options.allow_mismatch) == (
        "auto",
        None,
        False,
        False,
    )


def test_metrics_may_go_to_several_places(shell: Any, sinks: Any) -> None:
    assert shell("train-model --dataset hopper-medium --log memory,failing --log memory") == 0
    assert shell.calls[-1].options.log == ("memory", "failing")
    assert shell("train-policy") == 0 and shell.calls[-1].options.log == ()
    assert shell("run quickstart --log memory") == 0
    assert {call.options.log for call in shell.calls if call.stage == "train-policy"} == {(), ("memory",)}
    assert shell("train-model --log memory,") == 2 and "not ''" in shell.err


@pytest.mark.parametrize("stage", ["fetch-data", "train-model", "select-elites", "rollout", "train-policy", "evaluate"])
def test_json_is_one_object_and_nothing_else(shell: Any, stage: str) -> None:
    assert shell("run quickstart --json") == 0
    assert json.loads(shell.out)["preset"] == "quickstart"
    assert shell.err == ""
    assert shell(f"{stage} --json") == 0
    assert json.loads(shell.out)["stage"] == stage
    assert shell.err == ""


def test_run_goes_through_all_stages_and_tells_the_end(shell: Any) -> None:
    assert shell("run quickstart") == 0
    assert shell.stages == [
        "fetch-data",
        "train-model",
        "select-elites",
        "rollout",
        "train-policy",
        "evaluate",
    ]
    assert {call.run for call in shell.calls} == {Path("runs/quickstart")}
    assert {call.options.origins.get("epochs") for call in shell.calls} == {None, "preset quickstart"}
    assert shell.calls[0].settings.dataset == PENDULUM
    assert shell.calls[-1].settings.policy == shell.calls[-2].settings.policy_name()
    for number in ("Toy-v0", "10.0", "40.0", "900.0", "880.0", "920.0", "runs/quickstart"):
        assert number in shell.out
    assert "Next:" not in shell.err  # the next step is taken already
    assert "train-model at work" in shell.err

    shell.calls.clear()
    assert shell("train-policy --epochs 3") == 0  # goes on in the same run with the same preset
    assert shell.calls[-1].run == Path("runs/quickstart")
    assert shell.calls[-1].options.origins["steps_per_epoch"] == "preset quickstart"


def test_run_takes_data_sets_and_settings_files(shell: Any, tmp_path: Path) -> None:
    Path("mine.yaml").write_text("train-policy:\n  epochs: 2\nevaluate:\n  policy: other\n")
    assert shell("run ./logs/my-logs.h5 --env Hopper-v5 --config mine.yaml") == 0
    assert shell.stages == ["fetch-data", "train-model", "select-elites", "train-policy", "evaluate"]
    assert shell.calls[0].run == Path("runs/my-logs")
    assert (shell.calls[0].settings.dataset, shell.calls[0].settings.env) == (
        "./logs/my-logs.h5",
        "Hopper-v5",
    )
    assert shell.calls[3].options.origins["epochs"] == "mine.yaml"
    assert shell.calls[4].settings.policy == "other"

    shell.calls.clear()
    assert shell("run ./logs/bare.csv --columns obs=a,action=b,reward=c --termination obs[0]>1 --relabel jump") == 0
    assert shell.stages == ["fetch-data", "train-model", "select-elites", "train-policy", "evaluate"]
    settings = shell.calls[0].settings
    assert (settings.columns, settings.termination) == ("obs=a,action=b,reward=c", "obs[0]>1")
    assert (settings.relabel, settings.env) == ("jump", None)
    assert "runs/bare" in shell.out

    shell.calls.clear()
    assert shell("run hopper-mixed-v0 --run here") == 0
    assert (shell.calls[0].settings.dataset, shell.calls[0].run) == ("hopper-mixed-v0", Path("here"))
    assert shell.calls[-2].options.origins["lam"] == "preset hopper-medium-replay"
    assert shell("run hopper-mixed-v0 --run here") == 0  # nor does a second time change the version
    assert shell.calls[-1].settings.policy == "mopo_max-var_lam1_h5"
    assert {call.settings.dataset for call in shell.calls if call.stage == "fetch-data"} == {"hopper-mixed-v0"}

    shell.calls.clear()
    Path("mine.yaml").write_text("rollout:\n  h: 2\nevaluate:\n  epsodes: 3\n")
    assert shell("run quickstart --config mine.yaml") == 3  # told before anything is done
    assert shell.calls == []
    assert "did you mean 'episodes'" in shell.err


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("quikstart", 2, "did you mean 'quickstart'"),
        ("nonsense", 4, "nonsense"),
        ("hopper-medum", 2, "hopper-medium"),
    ],
)
def test_run_of_an_unknown_name(shell: Any, name: str, code: int, said: str) -> None:
    assert shell(f"run {name}") == code
    assert said in shell.err
    assert shell.calls == []


def test_a_preset_that_is_shown_is_a_settings_file(shell: Any) -> None:
    assert shell("presets show quickstart") == 0
    Path("mine.yaml").write_text(shell.out)
    assert shell("run quickstart --config mine.yaml") == 0
    assert shell.calls[-1].options.origins["episodes"] == "mine.yaml"
    assert shell("presets show nope") == 2
