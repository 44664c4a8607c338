"""mopo report, from a run to a page, and what it refuses."""

import json
import re
from copy import deepcopy
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probes.pages import checked
from probes.runs import record_anew

from mopo_cli.agents.actor import Actor
from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import DatasetInfo, Transitions
from mopo_cli.nets.stacked import mlp_layout
from mopo_cli.report.console import format_value
from mopo_cli.report.run_page import run_page
from mopo_cli.report.run_page_contents import Contents
from mopo_cli.report.tables import format_range
from mopo_cli.stages.analysis.report_page import actions_in_data
from mopo_cli.stages.common.policies import greedy_policy, open_policy, save_policy
from mopo_cli.store.atomic import read_json, write_json
from mopo_cli.store.lineage import StageRecord

NAME = "mopo_max-var_lam1_h2"
SECTIONS = [
    "What was logged",
    "What the model predicts well and badly",
    "Where the model is unsure, and where it errs",
    "How training went",
    "How good each policy is",
    "What the policies do in the data's states",
    "How it was made",
]


def dataset_of(run: Path) -> Path:
    return Path(read_json(run / "run.json")["stages"]["fetch-data"]["outputs"]["dataset"]["path"])


def test_the_page_has_the_numbers_of_the_run(tiny_run: Path, mopo: Any, contents: Any) -> None:
    before = contents(tiny_run)
    outcome = mopo("report runs/tiny --json")
    assert outcome.code == 0, outcome.err
    path = tiny_run / "report.html"
    page = path.read_text()
    assert json.loads(outcome.out) == {
        **{"run": "runs/tiny", "path": str(path), "sections": SECTIONS, "bytes": path.stat().st_size}
    }
    assert {name: content for name, content in contents(tiny_run).items() if name != str(path)} == before
    seen = checked(page)
    model, evaluation = read_json(tiny_run / "model/model.json"), read_json(tiny_run / f"evaluations/{NAME}.json")
    portrait = json.loads(mopo(f"show {dataset_of(tiny_run)} --json").out)["portrait"]
    numbers = [target[key] for target in model["dimensions"] for key in ("explained_variance", "rmse", "std")]
    numbers += [*model["holdout_mse"]["0"], *model["holdout_nll"]["0"], evaluation["return_mean"]]
    errors = model["errors_by_input"]
    assert [d["target"] for d in model["dimensions"]] == [*(f"change of obs[{d}]" for d in range(4)), "reward"]
    assert len(errors["least_sure"]) == len(errors["worst"]) == 5, "four observations and an action"
    parts = [*errors["least_sure"], *errors["worst"]]
    numbers += [part[key] for part in parts for key in ("rows", "uncertainty", "error")]
    assert {format_range(part["low"], part["high"]) for part in parts} <= {word.strip() for word in seen.words}
    assert f"true error is {errors['relation']['spearman']:.2f}" in seen.text
    numbers += [evaluation["dataset_return_mean"], evaluation["return_iqm"], *evaluation["return_per_seed"].values()]
    numbers += [column[key] for column in portrait["observations"] for key in ("min", "median", "max", "std")]
    cells = [word.strip() for word in seen.words]
    assert [number for number in numbers if format_value(number) not in cells] == []
    for record in read_json(tiny_run / "run.json")["stages"].values():
        files = [*record["inputs"].values(), *record["outputs"].values()]
        assert {file["sha256"] for file in files} <= set(cells)
    assert "tiny.yaml" in cells and "weight-decay" in cells
    assert mopo("report runs/tiny").code == 0 and path.read_text() == page


def test_the_policy_acts_on_the_page_as_in_mopo(tiny_run: Path, mopo: Any) -> None:
    assert mopo("report runs/tiny -o page.html").code == 0
    transitions, _ = read_dataset(dataset_of(tiny_run))
    actor, _ = open_policy(tiny_run / f"policies/{NAME}/seed-0/policy.safetensors", torch.device("cpu"))
    rows = np.linspace(0, len(transitions) - 1, 1000).round().astype(int)
    actions = greedy_policy(actor, [-3.0], [3.0])(transitions.observations[rows])
    apart = np.abs(actions - transitions.actions[rows]).mean()
    page = checked(Path("page.html").read_text()).text
    assert f"{apart:.3f}" in page and f"{100 * apart / 6:.1f} %" in page
    assert not (tiny_run / "report.html").exists()


def test_a_policy_sees_the_observations_in_the_users_units(tmp_path: Path) -> None:
    layout = mlp_layout((2, 8, 2))
    actor = Actor(torch.randn(1, layout.size, generator=torch.Generator().manual_seed(0)), layout, -5.0, 2.0)
    one, offset = np.ones(1, np.float32), [1000.0, -3.0]
    info = DatasetInfo("my.csv", None, "", -one, one, "none", observation_offset=np.array(offset))
    meta = {"obs_dim": 2, "act_dim": 1, "hidden": 8, "layers": 1, "action_low": [-1.0], "action_high": [1.0]}
    meta |= {"seed": 4, "inputs": {"dataset": "0" * 64}, "observation_offset": offset}
    save_policy(tmp_path / "policy.safetensors", actor, meta)
    stored = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    logged, nothing = (stored[:, :1] / 9).astype(np.float32), np.zeros(5, np.float32)
    transitions = Transitions(stored, logged, nothing, stored, nothing > 0, nothing > 0)
    actions = actions_in_data({4: tmp_path / "policy.safetensors"}, transitions, info)
    np.testing.assert_allclose(actions.chosen[4], actor.greedy(torch.from_numpy(stored)).numpy(), atol=1e-4)
    assert (actions.logged == logged).all() and actions.names == ["action[0]"]


@pytest.mark.parametrize(
    ("episodes", "bounds", "shown"),
    [
        (20, (1.25, 4.75), ("2.5 (1.25 to 4.75)", "20 episodes, ", "the policy acts too differently")),
        (1, (-inf, inf), ("2.5 (no interval)", "1 episode, ", "the judge has too few episodes")),
    ],
)
def test_the_verdict_of_the_log_is_on_the_page(
    tiny_run: Path, mopo: Any, episodes: int, bounds: tuple[float, float], shown: tuple[str, ...]
) -> None:
    interval = {"value": 2.5, "low": bounds[0], "high": bounds[1]}
    weighted = {"importance": 1.0, "doubly_robust": 2.0, "effective": 1.5, "means_something": False}
    estimates = {
        "fqe": interval,
        "model": interval | {"cut": 0.0, "cut_steps": 0.0},
        "weighted": weighted,
        "outside": 0.05,
    }
    judgement = {
        **{"policy": NAME, "transitions": 10, "episodes": episodes, "unseen": True, "gamma": 0.9},
        **{
            "floor": {"discounted": interval, "undiscounted": interval},
            "clone": estimates,
            "seeds": {"0": estimates},
            "struck_out": [],
        },
        "sentence": "It is better.",
        "calibration": {},
        "allowed": 1.0,
    }
    write_json(tiny_run / f"evaluations/{NAME}-ope.json", judgement)
    document = read_json(tiny_run / "run.json")
    judged = deepcopy(document["stages"][f"evaluate/{NAME}"])
    judged["outputs"] = {"ope": {"path": f"evaluations/{NAME}-ope.json", "sha256": "0" * 64}}
    document["stages"][f"evaluate/{NAME}/ope"] = judged
    write_json(tiny_run / "run.json", document)
    record_anew(tiny_run)
    assert mopo("report runs/tiny").code == 0
    page = checked((tiny_run / "report.html").read_text()).text
    assert all(text in page for text in ("It is better.", f"{NAME}: real returns", *shown))
    assert not re.search(
        r"\b(inf|None|nan)\b", page.partition("by the log alone")[2].partition("in the data's states")[0]
    )


def test_what_was_analysed_is_on_the_page(tiny_run: Path, mopo: Any) -> None:
    ablate = "ablate --config tiny.yaml --threads 1 --penalty max-var,none --epochs 1 --seeds 1 --name grid"
    for line in ("rollout --config tiny.yaml --threads 1 --diagnose", ablate, f"{ablate} --rank offline"):
        assert mopo(line).code == 0, line
    result = json.loads(mopo("report runs/tiny --json").out)
    assert set(result["sections"]) - set(SECTIONS) == {"Ablations"}
    seen = checked((tiny_run / "report.html").read_text())
    cells = [word.strip() for word in seen.words]
    table = read_json(tiny_run / "ablations/grid/table.json")
    assert [format_value(cell["iqm"]) in cells for cell in table["cells"]] == [True, True]
    assert {cell["cell"] for cell in table["cells"]} <= set(cells)
    assert "What each criterion is worth" in cells
    diagnosis = read_json(next(tiny_run.glob("rollouts/*-diagnosis.json")))
    numbers = [relation["spearman"] for relation in diagnosis["uncertainties"].values()]
    assert all(format_value(number) in cells for number in numbers if number is not None)


def test_a_file_that_is_gone_is_left_out_and_one_that_changed_is_refused(
    tiny_run: Path, mopo: Any, refuses: Any
) -> None:
    dataset_of(tiny_run).rename("away.h5")
    try:
        assert mopo("report runs/tiny").code == 0
    finally:
        Path("away.h5").rename(dataset_of(tiny_run))
    page = checked((tiny_run / "report.html").read_text()).text
    assert f"Not shown, as it is gone: {dataset_of(tiny_run)}." in page
    assert "What was logged" not in page and "How good each policy is" in page
    (tiny_run / "model/model.json").write_text("{}")
    refuses("report runs/tiny", 5, "model.json is not what train-model wrote")


def test_stages_are_in_the_order_of_their_end_and_settings_have_every_digit() -> None:
    record = StageRecord({"critic_lr": 0.000123456789, "actor_lr": 1e-4, "lam": 20.0}, {}, {}, {}, 1.0, "")
    stages = ("fetch-data", "train-policy/p", "evaluate/p", "ablate/q", "train-policy/r")
    page, _ = run_page(Contents("run", dict.fromkeys(stages, record)))
    seen = [word.strip() for word in checked(page).words]
    assert {"0.000123456789", "0.0001", "20"} <= {*seen}
    assert "Finished stages: fetch-data, train-policy, evaluate, ablate." in page


def test_only_its_pages_are_overwritten(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    Path("mine.html").write_text("<p>mine</p>")
    refuses("report runs/tiny -o mine.html", 4, "mine.html is there already and is not a page that mopo report made")
    assert mopo("report runs/tiny -o mine.html --force").code == 0
    assert mopo("report runs/tiny -o mine.html").code == 0
    checked(Path("mine.html").read_text())


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("report runs", 4, "runs is not a run folder: it holds no run.json."),
        ("report nowhere", 4, "nowhere is not a run folder"),
        ("report tiny.yaml", 4, "tiny.yaml is a file, not a folder."),
        ("report runs/tiny -o page.pdf", 2, "-o page.pdf must end in .html."),
        ("report runs/tiny -o tiny.yaml/page.html", 4, "tiny.yaml"),
    ],
)
def test_what_is_no_run_or_no_place_is_refused(tiny_run: Path, refuses: Any, line: str, code: int, said: str) -> None:
    refuses(line, code, said)


def test_a_data_set_of_a_nasty_name_is_harmless(tiny_run: Path, mopo: Any) -> None:
    document = read_json(tiny_run / "run.json")
    nasty = "<script>alert(1)</script>"
    document["stages"]["fetch-data"]["extra"] |= {"dataset_id": nasty, "source": nasty}
    write_json(tiny_run / "run.json", document)
    evaluation = read_json(tiny_run / f"evaluations/{NAME}.json")
    write_json(tiny_run / f"evaluations/{NAME}.json", evaluation | {"environment": nasty})
    record_anew(tiny_run)
    assert mopo("report runs/tiny").code == 0
    assert checked((tiny_run / "report.html").read_text()).text.count(nasty) >= 3
