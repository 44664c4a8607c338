"""ablate --grid and --rank combo from the command line to the files: cells, their table, and who is chosen."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes.runs import run_in
from scipy.stats import spearmanr

import mopo_cli.stages.ablation.train_cells as cells
import mopo_cli.stages.analysis.rank as rank

LINE = "--config tiny.yaml --threads 1"
GRID = f"ablate {LINE} --name rates --method sac-off,bc --grid critic-lr=1e-3,1e-2 --seeds 2"
COMBO = f"ablate {LINE} --name rule --method combo,mbpo --grid beta=0,1,50 --grid layers=1 --seeds 2"
CELLS = ["sac-off_critic-lr0.001", "sac-off_critic-lr0.01", "bc"]
BETAS = {f"combo_h2_beta{beta}_layers1": float(beta) for beta in (0, 1, 50)}


@pytest.fixture(scope="module")
def compared(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run with both grids. Not to be written to."""
    folder = tmp_path_factory.mktemp("grid")
    shutil.copytree(finished_run, folder, dirs_exist_ok=True)
    return run_in(folder, [GRID, f"{COMBO} --rank combo"])


@pytest.fixture
def run(compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run of a copy of it."""
    shutil.copytree(compared, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("cache"))
    monkeypatch.chdir(tmp_path)
    return Path("runs/tiny")


def table(run: Path, name: str = "rates") -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads((run / f"ablations/{name}/table.json").read_text())["cells"]
    return result


def test_the_table_has_a_column_per_axis(run: Path) -> None:
    records = table(run)
    assert [record["cell"] for record in records] == CELLS
    assert [record["grid"] for record in records] == [{"critic_lr": rate} for rate in (1e-3, 1e-2, None)]
    with (run / "ablations/rates/table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["critic_lr"], row["seed"]) for row in rows] == [
        (method, rate, seed)
        for method, rate in (("sac-off", "0.001"), ("sac-off", "0.01"), ("bc", ""))
        for seed in ("0", "1")
    ]
    lines = (run / "ablations/rates/table.md").read_text().splitlines()
    header, _, *body = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")]
    column = header.index("critic-lr")
    assert [row[column] for row in body] == ["0.001", "0.01", ""]


def test_a_cell_is_the_policy_that_these_settings_train_alone(run: Path, mopo: Any) -> None:
    assert mopo(f"train-policy {LINE} --method sac-off --critic-lr 1e-2 --seed-list 1").code == 0
    folder = run / "policies/sac-off/seed-1"
    same, other = (run / f"ablations/rates/cells/{name}/seed-1" for name in CELLS[1::-1])
    for name in ("policy.safetensors", "metrics.jsonl"):
        assert (folder / name).read_bytes() == (same / name).read_bytes() != (other / name).read_bytes()


def test_a_second_run_changes_nothing_and_a_wider_grid_trains_what_is_new(
    run: Path, mopo: Any, contents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(Path())
    assert mopo(GRID).code == 0 and contents(Path()) == before
    stacks: list[float] = []

    def train_stack(*arguments: Any) -> Any:
        stacks.append(arguments[-1].critic_lr)
        return original(*arguments)

    original = vars(cells)["train_stack"]
    monkeypatch.setattr(cells, "train_stack", train_stack)
    assert mopo(GRID.replace("1e-3,1e-2", "0.001,0.01,0.1")).code == 0
    assert stacks == [0.1], "the same numbers, however they are written"
    assert [record["cell"] for record in table(run)] == [*CELLS[:2], "sac-off_critic-lr0.1", "bc"]


def ranking(run: Path, name: str = "rule") -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / f"ablations/{name}/ranking-combo.json").read_text())
    return result


def test_combo_s_rule_chooses_the_lowest_regulariser_of_the_last_epoch(run: Path) -> None:
    result = ranking(run)
    logged = {
        cell: [
            json.loads((run / f"ablations/rule/cells/{cell}/seed-{seed}/metrics.jsonl").read_text().splitlines()[-1])
            for seed in (0, 1)
        ]
        for cell in (*BETAS, "mbpo_h2_layers1")
    }
    means = {cell: np.mean([one["regulariser"] for one in logged[cell]]) for cell in BETAS}
    order = sorted(BETAS, key=lambda cell: means[cell])
    assert [cell["cell"] for cell in result["cells"]] == [*order, "mbpo_h2_layers1"]
    assert [cell["rank"] for cell in result["cells"]] == [1, 2, 3, 4]
    for cell in result["cells"][:3]:
        assert cell["values"] == {"regulariser": pytest.approx(means[cell["cell"]])}
        assert [cell["per_seed"][str(seed)]["regulariser"] for seed in (0, 1)] == [
            one["regulariser"] for one in logged[cell["cell"]]
        ]
    assert result["cells"][3]["values"] == {"regulariser": None}, "mbpo logs none"
    assert means["combo_h2_beta50_layers1"] < means["combo_h2_beta0_layers1"], "what beta weighs, it lowers"
    settings = {"method": "combo", "h": 2, "beta": BETAS[order[0]], "layers": 1}
    assert result["chosen"] == {"cell": order[0], "settings": settings}
    assert not {"penalty", "lam", "starts", "horizon"} & set(result), "nothing of the model is asked"


def test_where_true_returns_are_known_the_rule_is_compared_with_them(run: Path) -> None:
    result = ranking(run)
    truth = {record["cell"]: record["last"][0] for record in table(run, "rule")}
    assert {cell["cell"]: cell["return"] for cell in result["cells"]} == truth and result["compared"] == 4
    values = {cell["cell"]: cell["values"]["regulariser"] for cell in result["cells"][:3]}
    worth = result["criteria"]["regulariser"]
    assert (worth["best"], worth["chooses"]) == ("lowest", result["chosen"]["cell"])
    true = [truth[cell] for cell in values]
    expected = spearmanr([-value for value in values.values()], true).statistic if len(set(true)) > 1 else None
    assert worth["spearman"] == (expected and pytest.approx(expected))
    assert worth["regret"] == pytest.approx(max(truth.values()) - truth[worth["chooses"]])


def test_no_simulator_and_no_model_is_needed_and_the_choice_is_told_in_a_line(
    run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "open_world", None)
    line = f"{COMBO.replace('rule', 'blind')} --eval-every 0 --rank combo"
    done = mopo(f"{line} --json")
    assert done.code == 0 and done.err == ""
    result = json.loads(done.out)["ranking"]
    assert result["compared"] == 0 and all(cell["return"] is None for cell in result["cells"])
    assert result["criteria"]["regulariser"]["spearman"] is result["criteria"]["regulariser"]["regret"] is None
    assert result["chosen"] == ranking(run, "blind")["chosen"] == ranking(run)["chosen"], "evaluation changes nothing"
    (run / "ablations/blind/ranking-combo.md").unlink()
    again = mopo(line)
    assert again.code == 0 and "Training" not in again.err
    chosen = result["chosen"]
    flags = f"--method combo --h 2 --beta {chosen['settings']['beta']:g} --layers 1"
    (said,) = [text for text in again.err.splitlines() if text.startswith("Chosen: ")]
    assert said == f"Chosen: {chosen['cell']} ({flags})"
    assert "Ranked last, as regulariser is missing for some seeds: mbpo_h2_layers1." in again.err
    assert said in (run / "ablations/blind/ranking-combo.md").read_text()


def test_both_rankings_of_a_table_stand_side_by_side(run: Path, mopo: Any) -> None:
    kept = (run / "ablations/rule/ranking-combo.json").read_bytes()
    assert mopo(f"{COMBO} --rank offline").code == 0
    offline = json.loads((run / "ablations/rule/ranking.json").read_text())
    assert offline["rank"] == "offline" and offline["chosen"]["cell"] == offline["cells"][0]["cell"]
    assert (run / "ablations/rule/ranking-combo.json").read_bytes() == kept
    assert "ablate/rule/rank-combo is up to date" in mopo(f"{COMBO} --rank combo").err


@pytest.mark.parametrize("line", ["--method mopo,bc", "--penalty none", "--method sac-off --grid tau=0.1,0.2"])
def test_the_rule_is_refused_where_nothing_logs_a_regulariser(tiny_run: Path, refuses: Any, line: str) -> None:
    for said in ("Error: --rank combo needs the metric regulariser, which ", "--method combo"):
        refuses(f"ablate {LINE} {line} --rank combo", 2, said)


def test_a_name_that_no_folder_can_have_is_refused(tiny_run: Path, refuses: Any) -> None:
    rates = ",".join(f"{k}.{k}e-5" for k in range(1, 60))
    said = "Error: The default name of this grid is too long for a folder.\nTry: --name NAME\n"
    refuses(f"ablate {LINE} --method sac-off --grid critic-lr={rates}", 2, said)
