"""Methods by name: what each sets, where it stands among the layers, and what the papers' tables say of each."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from probes.grids import made
from probes.papers import FIRST_VERSION

from mopo_cli.config.ablation import method_demands
from mopo_cli.config.fields import Settings
from mopo_cli.config.presets import load_method, method_names, parse_sections, preset_names, preset_text, text_of
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import STAGES, Ablate, SelectElites, TrainModel, TrainPolicy
from mopo_cli.errors import SettingsError, UsageError
from mopo_cli.store import yaml_text

# The methods of the papers' tables, written out a second time; issue 4 and the first version's Table 3.
V1 = ("mopo-v1", "mopo-v1-ens-pen", "mopo-v1-no-pen", "mopo-v1-true-pen")
NO_LIP = ("mopo-no-lip", "mopo-no-lip-ens-pen", "mopo-no-lip-true-pen")
FINAL = ("mopo", "mopo-ens-pen", "mopo-avg-var", "mopo-no-pen", "mopo-true-pen")
OTHERS = ("mbpo", "mbpo-no-ens", "sac-off", "bc", "mopo-kit")
# Issue 6: each is the algorithm of its name, without a penalty of MOPO's.
IN_MODEL = ("combo", "drop", "mobile", "morel")
ON_DATA = ("awr", "bear", "brac-p", "brac-v", "cql", "iql", "td3-bc")
RELATIVES = (*IN_MODEL, *ON_DATA)
PENALTY = {
    **dict.fromkeys(("mopo", "mopo-v1", "mopo-no-lip", "mopo-kit"), "max-var"),
    **dict.fromkeys(("mopo-ens-pen", "mopo-v1-ens-pen", "mopo-no-lip-ens-pen"), "ens"),
    **dict.fromkeys(("mopo-true-pen", "mopo-v1-true-pen", "mopo-no-lip-true-pen"), "oracle"),
    **dict.fromkeys(("mopo-no-pen", "mopo-v1-no-pen", "mbpo", "mbpo-no-ens", "sac-off", "bc"), "none"),
    "mopo-avg-var": "avg-var",
    **dict.fromkeys(RELATIVES, "none"),
}
# h of MBPO: MOPO, final version, Table 6.
MBPO_H = {
    **dict.fromkeys(FIRST_VERSION, 5),
    **dict.fromkeys(("walker2d-medium-replay", "walker2d-medium-expert"), 1),
}
# (h, coefficient) of MOPO for the v2 sets: OfflineRL-Kit's README.
KIT = {
    "halfcheetah-medium": (5, 0.5),
    "hopper-medium": (5, 5.0),
    "walker2d-medium": (5, 0.5),
    "halfcheetah-medium-replay": (5, 0.5),
    "hopper-medium-replay": (5, 2.5),
    "walker2d-medium-replay": (1, 2.5),
    "halfcheetah-medium-expert": (5, 2.5),
    "hopper-medium-expert": (5, 5.0),
    "walker2d-medium-expert": (1, 2.5),
}


@pytest.fixture(scope="module", autouse=True)
def each_text_parsed_once() -> Iterator[None]:
    """Thousands of layers are built here of a few dozen files, and YAML is what takes the time."""
    parse = cache(yaml_text.parse_yaml)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(yaml_text, "parse_yaml", lambda text: deepcopy(parse(text)))
        yield


def training(dataset: str | None, method: str, **flags: Any) -> TrainPolicy:
    return resolve(TrainPolicy, dataset=dataset, flags={"method": method, **flags}).settings


def test_these_are_the_methods() -> None:
    assert method_names() == sorted((*V1, *NO_LIP, *FINAL, *OTHERS, *RELATIVES))
    assert set(PENALTY) == set(method_names())


@pytest.mark.parametrize("method", method_names())
def test_a_method_is_its_penalty_and_what_it_asks_of_the_model(method: str) -> None:
    # A preset with numbers of its own, and one of other penalty and real share.
    for dataset, preset in (("halfcheetah-medium", None), (None, "quickstart"), (None, None)):
        settings = resolve(TrainPolicy, dataset=dataset, preset_name=preset, flags={"method": method}).settings
        assert settings.penalty == PENALTY[method]
        assert settings.needs_model == (method not in ("sac-off", "bc", *ON_DATA))
        assert settings.algorithm == (method if method in ("bc", *RELATIVES) else "sac")
        model = resolve(TrainModel, dataset=dataset, preset_name=preset, method=method).settings
        assert model.spectral_norm == ("per-network" if method in V1 else "none")
        assert model.networks == (1 if method == "mbpo-no-ens" else 7)
        elites = resolve(SelectElites, dataset=dataset, preset_name=preset, method=method).settings
        assert elites.n == (1 if method == "mbpo-no-ens" else 5)


@pytest.mark.parametrize("method", method_names())
def test_every_method_is_valid_for_every_preset(method: str) -> None:
    text = text_of("method", method)
    assert text.startswith("# ") and ("MOPO" in text or text.lower().replace("+", "-").startswith(f"# {method}: "))
    for preset in preset_names():
        for stage in STAGES.values():
            if stage is not Ablate:
                resolve(stage, dataset="any", preset_name=preset, method=method)
        method_demands(method, preset, None)


@pytest.mark.parametrize("preset", preset_names())
def test_a_preset_speaks_of_methods_that_there_are(preset: str) -> None:
    assert set(parse_sections(preset_text(preset), preset).get("methods", {})) <= {
        name.replace("-", "_") for name in method_names()
    }


@pytest.mark.parametrize("dataset", FIRST_VERSION)
def test_the_first_version_has_its_own_h_and_lam(dataset: str) -> None:
    for method in (*V1, *NO_LIP):
        settings = training(dataset, method)
        assert (settings.h, settings.lam) == FIRST_VERSION[dataset], method


@pytest.mark.parametrize("dataset", MBPO_H)
def test_mbpo_has_its_own_h(dataset: str) -> None:
    assert training(dataset, "mbpo").h == training(dataset, "mbpo-no-ens").h == MBPO_H[dataset]


@pytest.mark.parametrize("dataset", KIT)
def test_the_kit_has_its_own_h_and_lam_and_settings(dataset: str) -> None:
    settings = training(dataset, "mopo-kit")
    assert (settings.h, settings.lam) == KIT[dataset]
    assert (settings.actor_lr, settings.critic_lr, settings.alpha_lr) == (1e-4, 3e-4, 1e-4)
    assert (settings.actor_schedule, settings.epochs, settings.steps_per_epoch) == ("cosine", 3000, 1000)
    assert (settings.target_entropy, settings.alpha_max) == (None, 1)
    assert (settings.log_std_min, settings.log_std_max, settings.real_ratio, settings.batch_size) == (-5, 2, 0.05, 256)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("train-policy:\n  critic-lr: 0.01\n  alpha_lr: 0.01\n  epochs: 9\n")
    return path


def test_later_layers_beat_earlier_ones_and_origins_say_which(file: Path) -> None:
    resolved = resolve(
        TrainPolicy, dataset="hopper-mixed", config_file=file, flags={"method": "mopo-kit", "alpha_lr": "0.02"}
    )
    preset = "preset hopper-medium-replay"
    expected = {
        "gamma": (0.99, "default"),
        "steps_per_epoch": (1000, "method mopo-kit"),  # the preset's 1000 as well, but the method's word is later
        "target_entropy": (None, "method mopo-kit"),  # the preset's is -3
        "actor_lr": (1e-4, "method mopo-kit"),
        "h": (5, f"{preset}, method mopo-kit"),
        "lam": (2.5, f"{preset}, method mopo-kit"),
        "critic_lr": (0.01, str(file)),
        "epochs": (9, str(file)),
        "alpha_lr": (0.02, "flag"),
        "method": ("mopo-kit", "flag"),
    }
    for name, (value, origin) in expected.items():
        assert (getattr(resolved.settings, name), resolved.origins[name]) == (value, origin), name
    assert resolved.origins.keys() == TrainPolicy.model_fields.keys()

    plain = resolve(TrainPolicy, dataset="hopper-mixed", config_file=file)
    settings = plain.settings
    assert (settings.method, settings.lam, settings.target_entropy, settings.actor_lr) == (None, 1, -3, 3e-4)
    assert (plain.origins["target_entropy"], plain.origins["epochs"]) == (preset, str(file))


def test_flags_beat_a_method() -> None:
    settings = training("hopper-medium-replay", "mopo-v1", penalty="avg-var", lam="0.25", h="3")
    assert (settings.method, settings.penalty, settings.lam, settings.h) == ("mopo-v1", "avg-var", 0.25, 3)
    model = resolve(TrainModel, method="mopo-v1", flags={"spectral_norm": "shared"})
    assert (model.settings.spectral_norm, model.origins["spectral_norm"]) == ("shared", "flag")
    assert resolve(TrainModel, method="mopo-v1").origins["spectral_norm"] == "method mopo-v1"


def test_a_named_preset_s_word_on_the_method_counts_whatever_the_data_set() -> None:
    resolved = resolve(
        TrainPolicy, dataset="./mine.h5", preset_name="hopper-medium-replay", flags={"method": "mopo-v1"}
    )
    assert (resolved.settings.h, resolved.settings.lam) == (1, 5)
    assert resolved.origins["h"] == "preset hopper-medium-replay, method mopo-v1"


@pytest.mark.parametrize(("stage", "field"), [(TrainPolicy, "actor_lr"), (TrainModel, "patience")])
def test_a_method_in_a_settings_file_counts_for_the_model_too(
    tmp_path: Path, stage: type[Settings], field: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train-policy:\n  method: mopo-kit\n")
    resolved = resolve(stage, dataset="hopper-medium", config_file=path)
    assert resolved.origins[field] == "method mopo-kit"
    assert getattr(resolved.settings, field) == {"actor_lr": 1e-4, "patience": 4}[field]
    if stage is TrainPolicy:
        assert (resolved.settings.method, resolved.origins["method"]) == ("mopo-kit", str(path))  # type: ignore[attr-defined]
    # The command line's word beats the file's, also where it is for no method at all.
    other = resolve(stage, config_file=path, **by_flag(stage, "mopo"))
    assert other.origins[field] == "default"
    none = resolve(stage, config_file=path, **by_flag(stage, "none"))
    assert none.origins[field] == "default"
    if stage is TrainPolicy:
        assert (other.settings.method, none.settings.method) == ("mopo", None)  # type: ignore[attr-defined]


def test_what_a_settings_file_says_of_a_method_counts_for_it_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "train-policy: {lam: 9, tau: 0.1}\n"
        "methods: {mopo-v1: {train-policy: {lam: 8}, train-model: {hidden: 10}}, mopo: {train-policy: {lam: 7}}}\n"
    )
    resolved = resolve(TrainPolicy, dataset="hopper-mixed", config_file=path, flags={"method": "mopo-v1"})
    assert (resolved.settings.lam, resolved.origins["lam"]) == (8, f"{path}, method mopo-v1")
    assert (resolved.settings.h, resolved.origins["h"]) == (1, "preset hopper-medium-replay, method mopo-v1")
    assert (resolved.settings.tau, resolved.origins["tau"]) == (0.1, str(path))
    flags = {"method": "mopo-v1", "lam": "6"}
    assert resolve(TrainPolicy, config_file=path, flags=flags).origins["lam"] == "flag"
    assert resolve(TrainPolicy, config_file=path).settings.lam == 9
    assert resolve(TrainPolicy, config_file=path, flags={"method": "mbpo"}).settings.lam == 9
    assert resolve(TrainModel, config_file=path, method="mopo-v1").settings.hidden == 10
    assert resolve(TrainModel, config_file=path).settings.hidden == 200


@pytest.mark.parametrize(
    ("text", "error", "fault"),
    [
        ("methods: {mopo: {train-policy: {lamb: 8}}}", SettingsError, "method mopo: train-policy: unknown key 'lamb'"),
        ("methods: {mopo: {train-polcy: {}}}", SettingsError, "method mopo: unknown section 'train-polcy'"),
        ("methods: {mopo: 3}", SettingsError, "methods: mopo must hold sections"),
        ("methods: {mopo: {train-policy: 3}}", SettingsError, "method mopo: section train-policy must hold"),
        ("methods: 3", SettingsError, "section methods must hold"),
        ("methods: {mop: {}}", SettingsError, r"mine.yaml: there is no method 'mop' \(did you mean 'mopo'\?\)"),
        ("methods: {td3-bc: {train-policy: {algorithm: iql}}}", SettingsError, "algorithm iql, but the method td3-bc"),
        ("methods: {mopo: {train-policy: {penalty: none}}}", SettingsError, "mine.yaml, method mopo has penalty none"),
        ("methods: {mbpo-no-ens: {train-model: {networks: 3}}}", SettingsError, "networks 3, but the method mbpo-no"),
        ("methods: {combo: {train-policy: {method: bc}}}", SettingsError, "cannot name another"),
        ("methods: {combo: {ablate: {seeds: 3}}}", SettingsError, "ablate does not depend on the method"),
    ],
)
def test_faults_in_what_a_file_says_of_methods(tmp_path: Path, text: str, error: type[Exception], fault: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    for stage in (TrainPolicy, TrainModel, Ablate):  # whichever stage is to run, and with no method at all
        with pytest.raises(error, match=fault):
            resolve(stage, config_file=path)


def test_a_setting_of_another_algorithm_is_told_with_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("methods: {bc: {train-policy: {beta: 3}}}")
    with pytest.raises(SettingsError) as caught:
        resolve(TrainPolicy, config_file=path, flags={"method": "bc"})
    assert caught.value.message == (
        f"{path}, method bc sets beta, a setting of combo and cql, not of the algorithm bc."
    )


def by_flag(stage: type[Settings], method: str) -> dict[str, Any]:
    """``--method`` as the command of that stage passes it on."""
    return {"flags": {"method": method}} if stage is TrainPolicy else {"method": method}


def test_an_unknown_method_lists_the_known(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("train-policy:\n  method: mop\n")
    for call in ({"flags": {"method": "mop"}}, {"method": "mop"}, {"config_file": path}):
        with pytest.raises(UsageError) as caught:
            resolve(TrainPolicy, **call)
        assert "There is no method 'mop'" in caught.value.message
        assert all(name in caught.value.message for name in method_names())
        assert caught.value.hint == "mopo presets methods"


def test_names_of_policies_tell_the_method() -> None:
    assert training("hopper-medium-replay", "mopo-v1").policy_name() == "mopo-v1_lam5_h1"
    assert training("hopper-medium-replay", "mbpo").policy_name() == "mbpo_h5"
    assert training("hopper-medium-replay", "bc").policy_name() == "bc"
    assert training("hopper-medium-replay", "sac-off").policy_name() == "sac-off"
    assert training(None, "mopo-true-pen", name="mine").policy_name() == "mine"
    assert TrainPolicy(algorithm="bc", real_ratio=1, penalty="none").policy_name() == "bc"
    assert Ablate(method="mopo,bc").table_name() == "mopo+bc"  # type: ignore[arg-type]


def test_what_a_method_asks_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("methods: {mopo-v1: {train-model: {hidden: 10}, train-policy: {lam: 3}}}\ntrain-model: {layers: 2}")
    result = method_demands("mopo-v1", None, None, path)
    assert result["train-model"] == {"spectral_norm": "per-network", "hidden": 10} and result["select-elites"] == {}
    assert "hidden" not in method_demands("mopo", None, None, path)["train-model"]
    demands = method_demands("mbpo-no-ens", None, "hopper-medium")
    assert demands == {"train-model": {"networks": 1, "spectral_norm": "none"}, "select-elites": {"n": 1}}
    assert method_demands("mopo-v1", "hopper-medium-replay", None)["train-model"] == {"spectral_norm": "per-network"}
    assert not any(method_demands("bc", None, None).values())


def cells(dataset: str, line: dict[str, Any], file: Path | None = None) -> list[tuple[Any, ...]]:
    result = made(dataset=dataset, file=file, **line).cells
    return [(c.method, c.penalty, c.lam, c.h, c.epochs, c.all_seeds()) for c in result]


def test_cells_of_methods_have_their_own_settings_but_where_the_user_gave_others() -> None:
    line = {"method": "mopo,mopo-v1,mbpo,bc,mopo-kit", "epochs": "7", "seed_list": "2,4"}
    changed = cells("hopper-medium-replay", line)
    assert [cell[:4] for cell in changed] == [
        ("mopo", "max-var", 1, 5),
        ("mopo-v1", "max-var", 5, 1),
        ("mbpo", "none", 1, 5),
        ("bc", "none", 1, 5),
        ("mopo-kit", "max-var", 2.5, 5),
    ]
    assert {cell[4:] for cell in changed} == {(7, (2, 4))}
    grid = cells("hopper-medium-replay", {**line, "lam": "0.5,2", "h": "1,3"})
    by_method = {name: [cell[2:4] for cell in grid if cell[0] == name] for name in ("mopo", "mopo-v1", "mbpo", "bc")}
    every = [(0.5, 1), (2, 1), (0.5, 3), (2, 3)]
    assert by_method["mopo"] == by_method["mopo-v1"] == every
    assert [h for _, h in by_method["mbpo"]] == [1, 3], "lam means nothing without a penalty"
    assert len(by_method["bc"]) == 1, "nor h without a model"


# Paths that begin as an origin's label does are still the user's file.
@pytest.mark.parametrize("name", ["mine.yaml", "run.yaml", "default.yaml", "runs/mine.yaml"])
def test_cells_of_methods_take_over_what_a_file_gives(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path(name).write_text("ablate:\n  epochs: 3\n  lam: [0.5, 2]\n")
    result = cells("hopper-medium-replay", {"method": "mopo,mbpo"}, Path(name))
    assert [(cell[0], cell[2], cell[4]) for cell in result] == [("mopo", 0.5, 3), ("mopo", 2, 3), ("mbpo", 1, 3)]


def test_what_a_file_says_of_a_method_comes_before_what_it_says_of_all(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "train-policy: {epochs: 3, lam: 2}\nmethods: {mopo: {train-policy: {epochs: 4}}}\nablate: {h: [2, 6]}\n"
    )
    result = cells("hopper-medium-replay", {"method": "mopo,mopo-v1"}, path)
    assert [(cell[0], *cell[2:5]) for cell in result] == [
        *(("mopo", 2, 2, 4), ("mopo", 2, 6, 4)),
        *(("mopo-v1", 2, 2, 3), ("mopo-v1", 2, 6, 3)),
    ]
    result = cells("hopper-medium-replay", {"method": "mopo,mopo-v1", "epochs": "9"}, path)
    assert {cell[4] for cell in result} == {9}, "a flag is about all of them"


@pytest.mark.parametrize("name", [*method_names(), *preset_names()])
def test_what_presets_show_prints_is_a_settings_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text_of("method", name) if name in method_names() else preset_text(name))
    for stage in STAGES.values():
        resolve(stage, dataset="any", config_file=path)
    if name in method_names():
        shown = resolve(TrainPolicy, config_file=path)
        assert shown.settings.penalty == PENALTY[name]
        assert {f for f, origin in shown.origins.items() if origin == str(path)} == set(
            load_method(name)["train-policy"]
        )


def test_a_settings_file_must_not_change_what_a_method_is(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text("train-policy: {penalty: max-var, epochs: 9}\ntrain-model: {networks: 3}\n")
    for stage, method in ((TrainPolicy, "mbpo"), (TrainModel, "mbpo-no-ens")):
        with pytest.raises(SettingsError, match=f"q.yaml has .* but the method {method} is"):
            resolve(stage, config_file=path, method=method)
    assert resolve(TrainPolicy, config_file=path, method="mopo-v1").settings.epochs == 9
    flags = {"method": "mbpo", "penalty": "ens"}
    path.write_text("train-policy: {epochs: 9}\n")
    assert resolve(TrainPolicy, config_file=path, flags=flags).settings.penalty == "ens", "a flag is in sight"
    with pytest.raises(SettingsError, match=r"real-ratio 0\.5, but the method sac-off is real-ratio 1\.0"):
        made(method="mopo,sac-off", real_ratio="0.5")


def test_the_share_of_data_is_a_choice_where_there_is_one() -> None:
    result = made(method="combo", real_ratio="0.8").cells
    assert [(cell.algorithm, cell.real_ratio) for cell in result] == [("combo", 0.8)]


def test_cloning_takes_real_data_alone() -> None:
    with pytest.raises(UsageError, match="real-ratio"):
        resolve(TrainPolicy, flags={"algorithm": "bc"})
