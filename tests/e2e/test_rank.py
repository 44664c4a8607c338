"""ablate --rank offline: the order of the cells, and every number of it a second time from the files of the run."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from probes.runs import run_in
from scipy.stats import rankdata, spearmanr

from mopo_cli.data.transition_files import read_dataset
from mopo_cli.data.transitions import episode_lengths, normalise_actions
from mopo_cli.engine.streams import stream
from mopo_cli.evaluation.fitted_q import (
    FqeSettings,
    Log,
    TargetPolicy,
    advance_fqe,
    fqe_values,
    start_fqe,
    start_values,
)
from mopo_cli.evaluation.judgement import some_starts
from mopo_cli.stages.analysis import evidence
from mopo_cli.stages.common.policies import open_policy
from mopo_cli.store.checkpoint import load_tensors

SMALL = "--config tiny.yaml --threads 1"
METHODS = ("mopo", "mbpo", "mbpo-no-ens", "sac-off", "bc")
CELLS = {"mopo_lam1_h2", "mbpo_h2", "mbpo-no-ens_h2", "sac-off", "bc"}
ABLATE = f"ablate {SMALL} --name five --method {','.join(METHODS)} --seeds 2"
CRITERIA = {
    "penalised-return": "highest",
    "model-return": "highest",
    "uncertainty": "lowest",
    "action-distance": "lowest",
    "unlike": "lowest",
    "q": "highest",
}


@pytest.fixture(scope="module")
def ranked(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run whose ablation of five methods, one of them with another model, is ranked."""
    folder = tmp_path_factory.mktemp("ranked") / "here"
    shutil.copytree(finished_run, folder)
    return run_in(folder, [f"{ABLATE} --rank offline"])


@pytest.fixture
def here(ranked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder to work in; the run's path."""
    shutil.copytree(ranked, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MOPO_HOME", str(tmp_path / "here/cache"))
    return Path("runs/tiny")


def table(run: Path) -> Path:
    return run / "ablations/five"


def ranking(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((table(run) / "ranking.json").read_text())
    return result


def folder(run: Path, cell: str, seed: int) -> Path:
    """Where a seed of a cell lies: one of another model in the variant of the run that has it."""
    homes = run.glob("variants/*") if cell.startswith("mbpo-no-ens") else [run]
    (home,) = homes
    return table(home) / "cells" / cell / f"seed-{seed}"


def test_cells_come_in_the_order_of_the_first_criterion(ranked: Path) -> None:
    result = ranking(ranked / "runs/tiny")
    assert {cell["cell"] for cell in result["cells"]} == CELLS
    values = [cell["values"]["penalised-return"] for cell in result["cells"]]
    assert values == sorted(values, reverse=True) and len(set(values)) > 2
    assert [cell["rank"] for cell in result["cells"]] == [1, 2, 3, 4, 5]
    assert {name: worth["best"] for name, worth in result["criteria"].items()} == CRITERIA
    assert (result["penalty"], result["lam"], result["starts"], result["horizon"]) == ("max-var", 1.0, 100, 1000)
    assert [c["cell"] for c in result["cells"] if not c["trained_in_this_model"]] == ["mbpo-no-ens_h2"]


def test_true_returns_and_the_rank_correlation_by_scipy(ranked: Path) -> None:
    run = ranked / "runs/tiny"
    result = ranking(run)
    true = {cell["cell"]: cell["last"][0] for cell in json.loads((table(run) / "table.json").read_text())["cells"]}
    assert {cell["cell"]: cell["return"] for cell in result["cells"]} == true and result["compared"] == 5
    for name, best in CRITERIA.items():
        values = {c["cell"]: c["values"][name] for c in result["cells"] if c["values"][name] is not None}
        assert set(values) == (CELLS - {"bc"} if name == "q" else CELLS)
        sign = 1 if best == "highest" else -1
        worth = result["criteria"][name]
        expected = spearmanr([sign * v for v in values.values()], [true[cell] for cell in values]).statistic
        assert worth["spearman"] == pytest.approx(expected)
        chosen = max(values, key=lambda cell: sign * values[cell])
        assert worth["chooses"] == chosen and worth["regret"] == pytest.approx(max(true.values()) - true[chosen])


def test_the_csv_has_every_seed_and_a_cell_is_their_mean(ranked: Path) -> None:
    run = ranked / "runs/tiny"
    with (table(run) / "ranking.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows[::2]] == [cell["cell"] for cell in ranking(run)["cells"]]
    assert [row["seed"] for row in rows] == ["0", "1"] * 5
    for cell in ranking(run)["cells"]:
        lines = [row for row in rows if row["cell"] == cell["cell"]]
        assert cell["return"] == pytest.approx(np.mean([float(row["return_last"]) for row in lines]))
        for name, value in cell["values"].items():
            assert cell["per_seed"]["1"][name] == (float(lines[1][name]) if lines[1][name] else None)
            assert value == (pytest.approx(np.mean([float(row[name]) for row in lines])) if lines[0][name] else None)


@pytest.mark.parametrize("cell", sorted(CELLS))
def test_q_is_the_last_of_the_log_and_the_distance_that_of_the_policy_file(ranked: Path, cell: str) -> None:
    run = ranked / "runs/tiny"
    dataset = json.loads((run / "run.json").read_text())["stages"]["fetch-data"]["outputs"]["dataset"]["path"]
    data, _ = read_dataset(Path(dataset))
    rows = torch.randint(len(data), (10_000,), generator=stream(0, "rank/rows")).numpy()
    result = next(each for each in ranking(run)["cells"] if each["cell"] == cell)
    for seed in (0, 1):
        log = (folder(run, cell, seed) / "metrics.jsonl").read_text().splitlines()
        assert result["per_seed"][str(seed)]["q"] == json.loads(log[-1]).get("q")
        tensors, _ = load_tensors(folder(run, cell, seed) / "policy.safetensors")
        x = data.observations[rows]
        for layer in (0, 1):
            x = np.maximum(x @ tensors[f"w{layer}"][0].numpy() + tensors[f"b{layer}"][0].numpy(), 0)
        actions = np.tanh(x @ tensors["w2"][0].numpy() + tensors["b2"][0].numpy())[:, :1]
        expected = ((actions - data.actions[rows] / 3) ** 2).mean()
        assert result["per_seed"][str(seed)]["action-distance"] == pytest.approx(expected, rel=1e-5)


def test_the_model_s_returns_are_those_of_evaluate_bound(here: Path, mopo: Any) -> None:
    """The policy that the run already had was taken over as a cell: both measure the same thing."""
    assert mopo(f"evaluate {SMALL} --bound --policy mopo_max-var_lam1_h2").code == 0
    bound = json.loads((here / "evaluations/mopo_max-var_lam1_h2-bound.json").read_text())["seeds"]["0"]
    cell = next(each for each in ranking(here)["cells"] if each["cell"] == "mopo_lam1_h2")["per_seed"]["0"]
    for where, name in (("model", "model-return"), ("penalised", "penalised-return")):
        assert cell[name] == pytest.approx(bound[where]["discounted"]["mean"])
    steps = bound["model"]["length"]
    total = bound["model"]["undiscounted"]["mean"] - bound["penalised"]["undiscounted"]["mean"]
    assert cell["uncertainty"] == pytest.approx(total / steps)


def test_a_finished_ablation_is_only_ranked_and_a_ranked_one_left_alone(here: Path, mopo: Any, contents: Any) -> None:
    before = contents(Path())
    again = mopo(f"{ABLATE} --rank offline --json")
    assert again.code == 0 and again.err == "" and contents(Path()) == before
    result = json.loads(again.out)
    assert result["up_to_date"] and result["ranking"]["up_to_date"]
    assert result["ranking"]["cells"] == ranking(here)["cells"]

    first = {kind: (table(here) / f"ranking.{kind}").read_bytes() for kind in ("json", "csv", "md")}
    for kind in first:
        (table(here) / f"ranking.{kind}").unlink()
    done = mopo(f"{ABLATE} --rank offline")
    assert done.code == 0 and "Training" not in done.err and "five is up to date" in done.err
    assert "* trained in another model" in done.err and "penalised-return" in done.err
    assert {kind: (table(here) / f"ranking.{kind}").read_bytes() for kind in first} == first
    assert first["md"].count(b"\n| ") == 2 * 2 + len(CELLS) + len(CRITERIA)


def test_lam_is_the_ablation_s_where_it_has_one(here: Path, mopo: Any) -> None:
    line = f"ablate {SMALL} --name other --penalty max-var --rank offline --json --epochs 1"
    one = json.loads(mopo(f"{line} --lam 3").out)["ranking"]
    assert one["lam"] == 3
    (cell,) = one["cells"]
    (seed,) = cell["per_seed"].values()
    taken_off = seed["model-return"] - seed["penalised-return"]
    assert taken_off > 2.5 * seed["uncertainty"]  # at least the first step's, and u hardly varies here
    several = json.loads(mopo(f"{line} --lam 3,4").out)["ranking"]
    assert several["lam"] == 1
    assert several["compared"] == 2 and several["criteria"]["q"]["spearman"] is None


def test_without_an_environment_cells_are_ranked_and_nothing_is_compared(here: Path, mopo: Any) -> None:
    (dataset,) = Path("cache/datasets").rglob("dataset.h5")
    with h5py.File(dataset) as file:
        np.savez("logs.npz", **{name: file[name][...] for name in file if isinstance(file[name], h5py.Dataset)})
    assert mopo(f"fetch-data --dataset logs.npz --config tiny.yaml --run {here}").code == 0
    for stage in ("train-model", "select-elites"):
        assert mopo(f"{stage} {SMALL}").code == 0
    done = mopo(f"ablate {SMALL} --method mopo,bc,sac-off --name five --epochs 1 --rank offline")
    assert done.code == 0 and "No cell has a true return" in done.err
    result = ranking(here)
    assert len(result["cells"]) == 3 and all(cell["return"] is None for cell in result["cells"])
    assert all(w["spearman"] is w["regret"] is None and w["chooses"] for w in result["criteria"].values())


def test_by_the_log_a_cell_is_worth_what_critics_of_it_alone_say(
    here: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = FqeSettings(critics=2, hidden=8, batch_size=16, first_steps=20, steps=30)
    monkeypatch.setattr(evidence, "FQE", tiny)
    outcome = mopo(f"{ABLATE} --rank ope --json")
    assert outcome.code == 0, outcome.err
    result = json.loads((table(here) / "ranking-ope.json").read_text())
    assert set(result["criteria"]) == {"joint", "fqe", "fqe-low", "model-fqe", *CRITERIA} and result["by"] == "joint"
    values = {name: [cell["values"][name] for cell in result["cells"]] for name in ("joint", "fqe-low", "model-fqe")}
    assert len({*values["fqe-low"]}) == 5 and values["joint"] == sorted(values["joint"])
    ranks = rankdata([values["fqe-low"], values["model-fqe"]], axis=1).mean(axis=0)
    assert values["joint"] == list(6 - ranks)
    data, info = read_dataset(next(Path("cache/datasets").rglob("dataset.h5")))
    log = Log(
        torch.from_numpy(data.observations),
        torch.from_numpy(normalise_actions(data.actions, info)),
        torch.from_numpy(data.rewards),
        torch.from_numpy(data.terminals).float(),
        torch.from_numpy(data.next_observations),
        torch.from_numpy(np.repeat(np.arange(len(episode_lengths(data))), episode_lengths(data))),
    )
    actor, _ = open_policy(table(here) / "cells/bc/seed-1/policy.safetensors", torch.device("cpu"))
    everywhere = torch.ones(len(data), dtype=torch.bool)
    question = TargetPolicy("bc/seed-1", actor.greedy(log.next_observation), everywhere)
    fqe = start_fqe(log, [question], tiny, 0.99)
    advance_fqe(fqe, tiny.all_steps)
    cell = next(cell for cell in result["cells"] if cell["cell"] == "bc")
    of_critics = start_values(fqe, actor.greedy, 0).numpy()
    assert cell["per_seed"]["1"]["fqe"] == pytest.approx(of_critics.mean())
    assert cell["per_seed"]["1"]["fqe-low"] == pytest.approx(of_critics.mean() - of_critics.std(ddof=1))
    # The networks' rewards differ from the critics' words, and what is cut at once is worth what these say.
    of_model = cell["per_seed"]["1"]["model-fqe"]
    assert of_model != pytest.approx(of_critics.mean()) and np.isfinite(of_model)
    monkeypatch.setattr(evidence, "data_quantile", lambda *_: -1.0)
    assert mopo(f"{ABLATE} --rank ope --force").code == 0
    again = json.loads((table(here) / "ranking-ope.json").read_text())
    cell = next(cell for cell in again["cells"] if cell["cell"] == "bc")
    some = some_starts(log)
    expected = fqe_values(fqe, 0, some, actor.greedy(some))
    networks = load_tensors(here / "model/ensemble.safetensors", "cpu")[1]["networks"]
    by_network = [float(expected[k % 2].mean()) for k in range(networks)]
    assert cell["per_seed"]["1"]["model-fqe"] == pytest.approx(np.mean(by_network))


@pytest.mark.parametrize("value", ["online", "combo,offline", ""])
def test_an_unknown_ranking_lists_the_known(tiny_run: Path, refuses: Any, value: str) -> None:
    error = f"Error: --rank must be one of offline, ope, combo, not {value!r}."
    refuses(f"{ABLATE} --rank={value}", 2, f"{error}\nTry: mopo ablate --help\n")


def test_a_ranking_needs_a_model_even_where_the_cells_do_not(tiny_run: Path, mopo: Any, refuses: Any) -> None:
    assert mopo("fetch-data --config tiny.yaml --dataset generate:InvertedPendulum-v5:random --run bare").code == 0
    for said in ("has no model yet", "mopo train-model --run bare"):
        refuses(f"ablate {SMALL} --method bc --rank offline --run bare", 4, said)
