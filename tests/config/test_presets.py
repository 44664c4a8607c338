"""The presets that ship: all of them load, and say what the papers' tables say."""

from pathlib import Path
from typing import Any

import pytest
from probes import papers

from mopo_cli.config import presets
from mopo_cli.config.checks import checked
from mopo_cli.config.presets import (
    find_preset,
    load_preset,
    parse_sections,
    preset_dataset,
    preset_names,
    preset_text,
    summary,
)
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import STAGES, TrainPolicy
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.registry import parse_dataset
from mopo_cli.data.source_generated import TASKS
from mopo_cli.errors import SettingsError, UsageError

# halfcheetah-medium-expert as released: Table 6 has lam 1.
H_LAM = {**papers.H_LAM, "halfcheetah-medium-expert": (5, 5)}
VARIANTS = {
    "hopper-medium-replay-first-paper": (1, 5),
    "halfcheetah-medium-expert-final-paper": (5, 1),
}
# The same, App. G.2; the angles but 30 are those of Table 4, with ant-angle's settings.
OUT_OF_DISTRIBUTION = {
    "halfcheetah-jump": (5, 1),
    **dict.fromkeys(("ant-angle", "ant-angle-45", "ant-angle-60", "ant-angle-90"), (25, 2)),
}
GENERATED = ("InvertedPendulum-v5", "Pendulum-v1", "Hopper-v5")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_says_what_it_is_for(name: str) -> None:
    assert preset_text(name).startswith("# ")
    assert len(summary(preset_text(name))) > 20
    sections = checked(load_preset(name), name)
    assert sections["fetch-data"]["dataset"]
    parse_dataset(preset_dataset(name))  # the data set is one that fetch-data knows
    for stage in STAGES.values():
        resolve(stage, dataset=preset_dataset(name), preset_name=name)


@pytest.mark.parametrize("name", [*H_LAM, *VARIANTS])
def test_the_papers_sets_have_the_papers_numbers(name: str) -> None:
    settings = resolve(TrainPolicy, preset_name=name).settings
    assert (settings.h, settings.lam) == {**H_LAM, **VARIANTS}[name]
    assert (settings.penalty, settings.epochs, settings.steps_per_epoch) == ("max-var", 1000, 1000)
    assert settings.target_entropy == -3
    header = [line for line in preset_text(name).splitlines() if line.startswith("#")]
    assert any("h, lam:" in line and ("Table" in line or "code" in line) for line in header)


@pytest.mark.parametrize("name", OUT_OF_DISTRIBUTION)
def test_the_out_of_distribution_tasks_have_the_papers_numbers(name: str) -> None:
    settings = resolve(TrainPolicy, dataset=name).settings
    assert (settings.h, settings.lam) == OUT_OF_DISTRIBUTION[name]
    assert (settings.penalty, settings.epochs, settings.rollout_actions) == ("max-var", 1000, "uniform")
    assert resolve(FetchData, dataset=name).settings.behaviour_steps == 1_000_000


def test_the_hiv_set_is_the_first_200_000_steps() -> None:
    assert resolve(FetchData, dataset="hiv").settings.behaviour_steps == 200_000
    assert resolve(TrainPolicy, dataset="hiv").settings.rollout_actions == "policy"


def test_every_set_of_the_paper_and_every_generated_set_has_its_preset() -> None:
    for dataset in [*H_LAM, *TASKS, *(f"generate:{env}:random" for env in GENERATED)]:
        name = find_preset(dataset)
        assert name is not None
        assert preset_dataset(name) == dataset
    assert preset_names()[0] == "quickstart"


@pytest.mark.parametrize(
    ("dataset", "preset"),
    [
        ("walker2d-medium-v0", "walker2d-medium"),
        ("walker2d-medium-v2", "walker2d-medium"),
        ("hopper-mixed", "hopper-medium-replay"),
        ("hopper-mixed-v0", "hopper-medium-replay"),
        ("generate:Hopper-v5:random", "generate-Hopper-v5-random"),
        ("minari:mujoco/walker2d/medium-v0", None),
        ("./walker2d-medium.h5", None),
        ("quickstart", None),
        ("hopper-medium-replay-first-paper", None),
        ("../presets/quickstart", None),
    ],
)
def test_a_data_set_finds_its_preset(dataset: str, preset: str | None) -> None:
    assert find_preset(dataset) == preset


def test_a_set_without_preset_has_the_defaults() -> None:
    settings = resolve(TrainPolicy, dataset="./mine.h5").settings
    assert (settings.h, settings.lam, settings.penalty) == (5, 1.0, "max-var")


def test_an_unknown_preset_is_a_usage_error_with_the_closest_name() -> None:
    with pytest.raises(UsageError, match=r"'quikstart' \(did you mean 'quickstart'"):
        load_preset("quikstart")
    with pytest.raises(UsageError):
        preset_text("../pyproject")


def test_presets_in_the_installed_package_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mopo_cli"
    (package / "config").mkdir(parents=True)
    (package / "presets").mkdir()
    (package / "presets" / "only.yaml").write_text("# The only preset\nfetch-data:\n  dataset: x\n")
    monkeypatch.setattr(presets, "__file__", str(package / "config" / "presets.py"))
    assert preset_names() == ["only"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train-policy: [", "line 1"),
        ("- 1\n- 2\n", "sections"),
        ("train-policy: 3\n", "train-policy"),
        ("rollout:\n  batch: 1\nevaluate:\n  !!python/object/apply:os.getcwd []\n", "YAML"),
        ("train-policy:\n  batch-size: 1\n  batch_size: 2\n", "batch-size twice"),
        ("train-policy:\n  lam: 1\n  h: 5\n  lam: 2\n", r"gives lam twice \(line 4\)"),
        ("train-model: {}\ntrain-policy: {}\ntrain-model: {}\n", r"gives train-model twice \(line 3\)"),
    ],
)
def test_what_is_not_sections_of_keys_and_values_is_refused(text: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault) as caught:
        parse_sections(text, "mine.yaml")
    assert "mine.yaml" in caught.value.message


def test_an_empty_file_and_an_empty_section_are_fine() -> None:
    assert parse_sections("", "x") == {}
    assert parse_sections("rollout:\n", "x") == {"rollout": {}}


def test_a_preset_of_the_users_own_data_set_keeps_its_version() -> None:
    assert resolve(FetchData, flags={"dataset": "walker2d-medium-v0"}).settings.dataset == "walker2d-medium-v0"
    assert resolve(FetchData, dataset="walker2d-medium-v0").settings.dataset == "walker2d-medium-v0"


# DROP's settings on D4RL's sets: its authors' configurations.
DROP_SETTINGS = ("eta", "h", "ratio_form", "ratio_min", "ratio_max", "dice_lr", "dice_norm", "dice_steps")
DROP: dict[str, tuple[Any, ...]] = {
    "halfcheetah-random": (0.5, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "halfcheetah-medium": (1.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "halfcheetah-medium-replay": (1.0, 5, "log", 0.01, 10, 1e-4, 1.0, 400),
    "halfcheetah-medium-expert": (0.1, 5, "log", 0.01, 50, 1e-4, 0.5, 200),
    "hopper-random": (1.0, 5, "tanh", 0.01, 10, 1e-4, 0.1, 400),
    "hopper-medium": (5.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "hopper-medium-replay": (1.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "hopper-medium-expert": (5.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400),
    "walker2d-random": (1.0, 1, "log", 0.01, 50, 1e-3, 0.1, 600),
    "walker2d-medium": (0.1, 5, "tanh-difference", 0.01, 10, 1e-4, 0.1, 400),
    "walker2d-medium-replay": (2.0, 1, "log", 0.01, 50, 1e-4, 0.1, 600),
    "walker2d-medium-expert": (5.0, 1, "tanh-difference", 0.01, 10, 1e-4, 0.1, 500),
}


@pytest.mark.parametrize("dataset", DROP)
def test_drop_s_settings_are_those_of_its_authors(dataset: str) -> None:
    assert dataset in preset_names() and preset_dataset(dataset) == dataset
    settings = resolve(TrainPolicy, dataset=dataset, flags={"method": "drop"}).settings
    assert tuple(getattr(settings, name) for name in DROP_SETTINGS) == DROP[dataset]
    # As everywhere: no penalty of MOPO's, and its share of real rows and target entropy on D4RL.
    assert (settings.algorithm, settings.penalty, settings.real_ratio) == ("drop", "none", 0.05)
    assert (settings.target_entropy, settings.dice_pretrain) == (-3, 1000)  # type: ignore[attr-defined]
    assert settings.policy_name() == f"drop_h{settings.h}"


@pytest.mark.parametrize("bad", [{"eta": -1}, {"ratio_form": "sqrt"}, {"ratio_min": 1.5}, {"ratio_max": 0.5}])
def test_what_means_nothing_to_drop_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        resolve(TrainPolicy, flags={"method": "drop", **bad})


def test_without_a_preset_drop_s_defaults_hold() -> None:
    settings = resolve(TrainPolicy, dataset="./mine.h5", flags={"method": "drop"}).settings
    assert tuple(getattr(settings, name) for name in DROP_SETTINGS) == (1.0, 5, "log", 0.01, 10, 1e-4, 0.1, 400)
