"""Where settings come from (test_methods has all layers in one), and every fault told at once."""

from pathlib import Path
from typing import Any

import pytest

from mopo_cli.config.ablation import set_by_user
from mopo_cli.config.checks import stage_name
from mopo_cli.config.fields import Settings
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import Ablate, Evaluate, Rollout, SelectElites, TrainModel, TrainPolicy
from mopo_cli.config.schema_data import FetchData
from mopo_cli.dynamics.penalties import PENALTIES
from mopo_cli.errors import InputError, SettingsError, UsageError


def test_a_named_preset_replaces_the_data_sets_own() -> None:
    resolved = resolve(TrainPolicy, dataset="hopper-medium", preset_name="halfcheetah-random")
    assert (resolved.settings.lam, resolved.origins["lam"]) == (0.5, "preset halfcheetah-random")


def test_a_flag_may_give_back_the_default_of_an_optional_setting() -> None:
    resolved = resolve(TrainPolicy, dataset="hopper-medium", flags={"target_entropy": "none"})
    assert (resolved.settings.target_entropy, resolved.origins["target_entropy"]) == (None, "flag")


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (TrainModel, {"target_scale"}),
        (Rollout, {"penalty_scale"}),
        (TrainPolicy, {"penalty_scale", "input_scale"}),
        (Ablate, {"penalty_scale", "input_scale"}),
        (SelectElites, set()),
    ],
)
def test_a_file_of_ones_own_is_learned_in_standard_deviations_unless_something_says_otherwise(
    stage: type[Settings], names: set[str], tmp_path: Path
) -> None:
    resolved, paper = resolve(stage, dataset="./my.csv", data_file=True), resolve(stage, dataset="hopper-medium")
    by_data = {name for name, origin in resolved.origins.items() if origin == "data file"} - SCHEDULE.keys()
    assert by_data == names and not set_by_user(resolved.origins)
    assert all(getattr(resolved.settings, name) == "standardised" for name in names)
    assert all(getattr(paper.settings, name) == "raw" for name in names)
    for name in names:
        path = tmp_path / "mine.yaml"
        path.write_text(f"{stage_name(stage)}: {{{name.replace('_', '-')}: raw}}\n")
        for how in ({"flags": {name: "raw"}}, {"config_file": path}):
            said = resolve(stage, dataset="./my.csv", data_file=True, **how)
            assert getattr(said.settings, name) == "raw" and set_by_user(said.origins) == {name}


SCHEDULE = {"actor_lr": 3e-4, "actor_schedule": "cosine", "alpha_lr": 3e-4, "epochs": 80}
PAPERS = {"actor_lr": 3e-4, "actor_schedule": "constant", "alpha_lr": 3e-4, "epochs": 1000}


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"dataset": "./my.csv", "data_file": True}, "data file"),
        ({"dataset": "generate:HalfCheetah-v5:medium"}, "generated data"),
        ({"dataset": "hopper-medium"}, None),
        ({"dataset": "./my.csv", "data_file": True, "method": "mopo"}, None),
        ({"dataset": "./my.csv", "data_file": True, "preset_name": "hopper-medium"}, None),
        ({"dataset": "./my.csv", "data_file": True, "flags": {"algorithm": "td3-bc", "real_ratio": "1"}}, None),
    ],
)
@pytest.mark.parametrize("stage", [TrainPolicy, Ablate])
def test_data_that_no_paper_names_have_a_schedule_of_their_own(stage: Any, how: dict[str, Any], expected: Any) -> None:
    if stage is Ablate and "method" in how:
        how = {**how, "flags": {"method": "mopo,bc"}, "method": None}
    if stage is Ablate and "algorithm" in how.get("flags", {}):
        return
    resolved = resolve(stage, **how)
    assert {name: getattr(resolved.settings, name) for name in SCHEDULE} == (SCHEDULE if expected else PAPERS)
    if expected:
        of_these = {name for name in SCHEDULE if resolved.origins[name] == expected}
        assert of_these == {"actor_schedule", "epochs"}, "the step sizes are the papers'"
        changed = resolve(stage, **{**how, "flags": {"actor_lr": "0.002"}})
        assert (changed.settings.actor_lr, changed.settings.actor_schedule) == (0.002, "cosine")


def test_an_ablation_takes_over_what_is_set_for_training(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train-policy:\n  penalty: ens\n  name: mine\n  epochs: 3\nablate:\n  epochs: 4\n")
    settings = resolve(Ablate, dataset="hopper-medium", config_file=path, flags={"h": "1,5"}).settings
    assert (settings.lam, settings.h, settings.target_entropy) == ((5.0,), (1, 5), -3)
    assert (settings.epochs, settings.penalty, settings.name) == (4, ("max-var", "none"), None)


def test_the_data_set_comes_from_flag_file_preset_or_run(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("fetch-data:\n  dataset: generate:Pendulum-v1:random\n")
    assert resolve(FetchData, preset_name="quickstart").settings.dataset == "generate:InvertedPendulum-v5:random"
    assert resolve(FetchData, dataset="held").origins["dataset"] == "run"
    from_file = resolve(FetchData, dataset="hopper-medium", config_file=path)
    assert from_file.settings.dataset == "generate:Pendulum-v1:random"
    assert from_file.origins["transitions"] == "preset generate-Pendulum-v1-random"
    by_flag = resolve(FetchData, dataset="held", config_file=path, flags={"dataset": "mine.h5"})
    assert (by_flag.settings.dataset, by_flag.origins["dataset"]) == ("mine.h5", "flag")
    with pytest.raises(UsageError, match="--dataset is missing"):
        resolve(FetchData)


def test_a_file_is_told_all_its_faults_at_once_with_the_closest_names(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "train-policy:\n  lamb: 3\n  h: zero\n  epochs: 0\n  real-ratio: yes\n"
        "train-polcy:\n  x: 1\n"
        "evaluate:\n  policy: ../x\n"
    )
    with pytest.raises(SettingsError) as caught:
        resolve(TrainModel, config_file=path)
    message = caught.value.message
    assert str(path) in message
    assert "6 errors" in message
    for fault in (
        "train-policy: unknown key 'lamb' (did you mean 'lam'?)",
        "train-policy: h must be a valid integer, not 'zero'",
        "train-policy: epochs must be greater than or equal to 1, not 0",
        "train-policy: real-ratio must not be true or false",
        "unknown section 'train-polcy' (did you mean 'train-policy'?)",
        "evaluate: policy must contain only letters",
    ):
        assert fault in message


def test_flags_are_told_all_their_faults_as_flags() -> None:
    with pytest.raises(UsageError) as caught:
        resolve(TrainPolicy, flags={"penalty": "max-vr", "lam": "x", "rollout_batch": "0"})
    for fault in (
        f"--penalty must be {', '.join(map(repr, PENALTIES))}, 'oracle' or 'none'",
        "--lam must",
        "--rollout-batch must",
    ):
        assert fault in caught.value.message
    assert caught.value.exit_code == 2


def test_old_names_of_settings_count_in_files_and_in_grids(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("select-elites: {members: [0, 2]}\nrollout: {penalty-members: elite}\n")
    assert resolve(SelectElites, config_file=path).settings.networks == (0, 2)
    rollout = resolve(Rollout, config_file=path)
    assert rollout.settings.penalty_networks == "elite" and rollout.origins["penalty_networks"] == str(path)
    assert resolve(Rollout, config_file=path, flags={"penalty_networks": "all"}).settings.penalty_networks == "all"
    for grid in ({"penalty-members": ["all", "elite"]}, ["penalty-members=all,elite"]):
        assert Ablate(grid=grid).grid == {"penalty_networks": ("all", "elite")}  # type: ignore[arg-type]
    path.write_text("rollout: {penalty-members: elite, penalty_networks: all}")
    with pytest.raises(SettingsError, match="section rollout has penalty-networks twice"):
        resolve(Rollout, config_file=path)
    path.write_text("train-model: {members: 3}")
    with pytest.raises(SettingsError, match="unknown key 'members'"):
        resolve(TrainModel, config_file=path)


def test_settings_at_odds_are_the_fault_of_whoever_set_them(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("train-model:\n  layers: 2\n")
    with pytest.raises(SettingsError, match="weight-decay needs 3 values") as caught:
        resolve(TrainModel, config_file=path)
    assert caught.value.exit_code == 3
    with pytest.raises(UsageError, match="weight-decay needs 3 values"):
        resolve(TrainModel, flags={"layers": "2"})
    both = resolve(TrainModel, config_file=path, flags={"weight_decay": "1e-5,1e-5,1e-4"})
    assert both.settings.weight_decay == (1e-5, 1e-5, 1e-4)


def test_a_missing_or_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nope\.yaml does not exist"):
        resolve(Evaluate, config_file=tmp_path / "nope.yaml")
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"binary\.yaml cannot be read"):
        resolve(Evaluate, config_file=binary)
    with pytest.raises(InputError, match="cannot be read"):
        resolve(Evaluate, config_file=tmp_path)


def test_the_later_word_on_which_seeds_counts(tmp_path: Path) -> None:
    """Whether it is their number or a list: a flag is not overruled by the other way to say it in a file."""
    listed, numbered, both = (tmp_path / name for name in ("listed.yaml", "numbered.yaml", "both.yaml"))
    listed.write_text("train-policy:\n  seed-list: [4, 7]\n")
    numbered.write_text("train-policy:\n  seeds: 3\n")
    both.write_text("train-policy:\n  seeds: 3\n  seed-list: [4, 7]\n")
    for stage in (TrainPolicy, Ablate):
        by_flag = resolve(stage, config_file=listed, flags={"seeds": "2"})
        assert by_flag.settings.all_seeds() == (0, 1)
        assert (by_flag.origins["seeds"], by_flag.origins["seed_list"]) == ("flag", "default")
        assert resolve(stage, config_file=numbered, flags={"seed_list": "4,7"}).settings.all_seeds() == (4, 7)
        assert resolve(stage, config_file=listed).settings.all_seeds() == (4, 7)
        assert resolve(stage, config_file=listed, flags={"seeds": "1", "seed_list": "none"}).settings.all_seeds() == (
            0,
        )
        with pytest.raises(UsageError, match="command line sets both seeds and seed-list"):
            resolve(stage, flags={"seeds": "2", "seed_list": "0,1"})
        with pytest.raises(SettingsError, match=r"both\.yaml.* sets both seeds and seed-list"):
            resolve(stage, config_file=both)
