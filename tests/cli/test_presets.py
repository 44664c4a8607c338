"""``mopo presets``: what ships, and every setting with its default and source and what a method makes of it."""

import json
from typing import Any

import pytest

from mopo_cli.config.presets import names_of, preset_names
from mopo_cli.config.schema import STAGES


def rows(shell: Any, line: str) -> dict[tuple[str, str], dict[str, str]]:
    assert shell(f"presets settings {line} --json") == 0
    return {(row["stage"], row["setting"]): row for row in json.loads(shell.out)["settings"]}


def block(text: str, stage: str) -> dict[str, list[str]]:
    """The cells of a stage's block by setting."""
    (lines,) = (part.splitlines()[1:] for part in text.split("\n\n") if part.splitlines()[0] == stage)
    return {line.split()[0]: line.split(maxsplit=4) for line in lines}


@pytest.mark.parametrize(
    ("command", "title", "names"),
    [
        ("ls", "presets", preset_names()),
        ("methods", "methods", names_of("method")),
        ("tables", "tables", names_of("table")),
    ],
)
def test_what_ships_is_listed_with_what_it_is_for(shell: Any, command: str, title: str, names: list[str]) -> None:
    assert shell(f"presets {command}") == 0
    lines = shell.out.splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 3 for line in lines)
    papers = ("MOPO, ", "COMBO, ", "DROP, ")
    assert title != "tables" or all(any(paper in line for paper in papers) for line in lines)
    assert shell(f"presets {command} --json") == 0
    assert list(json.loads(shell.out)[title]) == names


@pytest.mark.parametrize(
    ("name", "line", "keys", "value"),
    [
        ("hopper-medium", "lam: 5", ("train-policy", "lam"), 5),
        ("mbpo-no-ens", "networks: 1", ("train-model", "networks"), 1),
        ("mopo-1", "paper: MOPO-v2", ("paper",), "MOPO-v2"),
    ],
)
def test_what_ships_is_shown(shell: Any, name: str, line: str, keys: tuple[str, ...], value: Any) -> None:
    assert shell(f"presets show {name}") == 0
    assert shell.out.startswith("#") and line in shell.out
    assert shell(f"presets show {name} --json") == 0
    settings = json.loads(shell.out)["settings"]
    for key in keys:
        settings = settings[key]
    assert settings == value


def test_settings_of_a_method_have_value_origin_default_and_source(shell: Any) -> None:
    assert shell("presets settings mopo-v1") == 0
    model = block(shell.out, "train-model")
    assert model["setting"] == ["setting", "value", "from", "default", "source"]
    assert model["hidden"] == ["hidden", "200", "default", "200", "MOPO App. G.2"]
    spectral = shell.out.split("spectral-norm")[1].splitlines()[0].split()
    assert spectral == ["per-network", "method", "mopo-v1", "none", "MOPO", "v1", "App.", "D.2"]
    assert block(shell.out, "train-policy")["lam"] == ["lam", "1", "default", "1", "MOPO Table 6"]


@pytest.mark.parametrize(("method", "setting", "value"), [("combo", "rho", "mix"), ("bc", "real-ratio", "1")])
def test_settings_of_a_method_are_those_of_its_algorithm(shell: Any, method: str, setting: str, value: str) -> None:
    of_method = rows(shell, method)
    assert of_method["train-policy", setting]["value"] == value
    assert of_method["train-policy", "method"] | {"stage": ""} == {
        "stage": "",
        "setting": "method",
        "value": method,
        "from": f"method {method}",
        "default": "none",
        "source": "",
    }
    assert ("train-policy", "expectile") not in of_method  # of iql


def test_settings_without_a_method_are_all_settings(shell: Any) -> None:
    every = rows(shell, "")
    for stage, kind in STAGES.items():
        if stage != "ablate":  # the settings that it shares with train-policy are there
            assert {(stage, name.replace("_", "-")) for name in kind.model_fields} <= every.keys()
    assert every["fetch-data", "dataset"]["default"] == "required"
    assert every["ablate", "grid"]["default"] == "none"
    assert every["train-policy, combo", "beta"]["default"] == "0.5"
    assert every["train-policy, cql", "beta"]["default"] == "5"
    assert shell("presets settings") == 0
    assert block(shell.out, "train-policy, iql")["expectile"] == ["expectile", "0.7", "IQL"]
