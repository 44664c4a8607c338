"""mopo ablate --table, tiny: two generated data sets and one that cannot be downloaded."""

import csv
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes.web import serving, status

import mopo_cli.stages.ablation.train_cells as cells
from mopo_cli.__main__ import main

POLE, PENDULUM = "generate:InvertedPendulum-v5:random", "generate:Pendulum-v1:random"
ABSENT = "hopper-medium-v0"
ROWS = "MOPO,MOPO, no pen.,MBPO,MBPO, no ens.,MOPO, true pen."
LABELS = ("MOPO", "MOPO, no pen.", "MBPO", "MBPO, no ens.", "MOPO, true pen.")
COMMAND = ["ablate", "--table", "mopo-3", "--datasets", f"{POLE},{PENDULUM},{ABSENT}", "--only", ROWS]
COMMAND += ["--config", "tiny.yaml", "--threads", "1", "--seeds", "2"]
ROOT = Path("runs/papers")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """A folder in which the table was made."""
    folder = tmp_path_factory.mktemp("table")
    shutil.copy(finished_run / "tiny.yaml", folder)
    with pytest.MonkeyPatch.context() as patch, serving(status(404)) as web:
        patch.chdir(folder)
        patch.setenv("MOPO_HOME", str(folder / "cache"))
        patch.setenv("MOPO_D4RL_MIRROR", web.url)
        assert main(COMMAND) == 0
    return folder


@pytest.fixture
def in_table(table: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(table)
    monkeypatch.setenv("MOPO_HOME", str(table / "cache"))
    return table


@pytest.fixture
def table_lines(in_table: Path) -> dict[tuple[str, str], dict[str, Any]]:
    document = json.loads((ROOT / "mopo-3.json").read_text())
    return {(line["data_set"], line["row"]): line for line in document["lines"]}


def test_every_row_of_every_data_set_has_a_line(table_lines: dict[Any, Any]) -> None:
    assert list(table_lines) == [(name, label) for name in (POLE, PENDULUM, ABSENT) for label in LABELS]


def test_what_was_had_has_the_seeds_returns_of_the_ablations(table_lines: dict[Any, Any]) -> None:
    had = {key for key, line in table_lines.items() if line["last"]}
    assert had == {key for key in table_lines if key[0] != ABSENT} - {(PENDULUM, "MOPO, true pen.")}
    for name in (POLE, PENDULUM):
        run = ROOT / name.replace(":", "-")
        ablation = json.loads((run / "ablations/mopo-3/table.json").read_text())
        returns = {record["method"]: record["returns"] for record in ablation["cells"]}
        for label in LABELS[:4]:
            line = table_lines[name, label]
            assert line["returns"] == returns[line["method"]]
            last = [value["last"] for value in line["returns"].values()]
            assert len(last) == 2 and line["last"] == pytest.approx([np.mean(last), np.std(last)])


def test_a_method_with_another_model_is_trained_with_that_one(table_lines: dict[Any, Any]) -> None:
    for name in (POLE, PENDULUM):
        run = ROOT / name.replace(":", "-")
        assert len(list(run.glob("variants/*/model/model.json"))) == 1
        (single,) = run.glob("variants/*/ablations/mopo-3/cells/*")
        assert single.name == "mbpo-no-ens_h2"
    assert table_lines[POLE, "MBPO, no ens."]["policies"] != table_lines[POLE, "MBPO"]["policies"]
    assert table_lines[POLE, "MOPO, no pen."]["policies"] == table_lines[POLE, "MBPO"]["policies"]


def test_what_could_not_be_had_says_why(table_lines: dict[Any, Any]) -> None:
    for label in LABELS:
        line = table_lines[ABSENT, label]
        assert line["last"] is None and "404" in line["missing"] and line["missing"] in line["notes"]
    assert "true dynamics" in table_lines[PENDULUM, "MOPO, true pen."]["missing"]
    assert table_lines[POLE, "MOPO, true pen."]["missing"] is None
    assert not (ROOT / ABSENT).exists()


def test_the_table_says_in_what_it_is_smaller(in_table: Path) -> None:
    remarks = json.loads((ROOT / "mopo-3.json").read_text())["remarks"]
    assert remarks[0] == (
        "Smaller than the paper's (*): 2 of 3 seeds, 2 of 6 seeds, 100 of 1,000,000 updates, 0 of 4 data sets, "
        "5 of 7 rows"
    )
    changed = {remark.split(":")[0]: remark for remark in remarks[1:]}
    assert "networks 3 instead of 7" in changed["Other settings, train-model"]
    assert "hidden 16 instead of 256" in changed["Other settings, train-policy"]
    assert "seeds" not in changed["Other settings, train-policy"]
    assert any("one model" in remark for remark in remarks)
    markdown = (ROOT / "mopo-3.md").read_text()
    assert all(f"- {remark}\n" in markdown for remark in remarks) and "| 2 x 2* " in markdown


def test_the_csv_has_every_seed_and_every_gap(table_lines: dict[Any, Any]) -> None:
    rows = list(csv.DictReader((ROOT / "mopo-3.csv").open()))
    assert [(r["data_set"], r["row"], r["seed"]) for r in rows] == [
        (*key, seed) for key in table_lines for seed in "01"
    ]
    for row in rows:
        line = table_lines[row["data_set"], row["row"]]
        if line["missing"]:
            assert (row["last"], row["missing"]) == ("", line["missing"])
        else:
            assert float(row["last"]) == line["returns"][row["seed"]]["last"] and row["missing"] == ""


def test_a_second_run_trains_nothing_and_changes_nothing(
    in_table: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, contents: Any
) -> None:
    monkeypatch.setattr(cells, "train_stack", None)

    def now() -> dict[str, Any]:
        address = re.compile(rb"http://127.0.0.1:\d+")  # another server's each time
        return {name: content and address.sub(b"", content) for name, content in contents(in_table).items()}

    before = now()
    with serving(status(404)) as web:
        monkeypatch.setenv("MOPO_D4RL_MIRROR", web.url)
        assert main([*COMMAND, "--json"]) == 0
    out, err = capfd.readouterr()
    assert {kind: Path(path).name for kind, path in json.loads(out)["outputs"].items()} == {
        kind: f"mopo-3.{kind}" for kind in ("md", "csv", "json", "png")
    }
    assert now() == before
    assert err.count("Warning") == 1 and "hopper_medium" in err


def test_it_says_first_what_it_will_do_and_fewer_rows_lose_none_of_the_others(
    in_table: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(cells, "train_stack", None)
    before = (ROOT / "mopo-3.json").read_text()
    line = f"ablate --table mopo-3 --only mopo,mbpo-no-ens --datasets {POLE} --config tiny.yaml --threads 1 --seeds 2"
    assert main(line.split()) == 0
    out, err = capfd.readouterr()
    assert err.startswith("mopo-3: 1 data set, 2 cells x 2 seeds = 4 policies, 4 of them already trained\n")
    assert out == "runs/papers/mopo-3.md\n"
    assert [line["row"] for line in json.loads((ROOT / "mopo-3.json").read_text())["lines"]] == [
        "MOPO",
        "MBPO, no ens.",
    ]
    with serving(status(404)) as web:
        monkeypatch.setenv("MOPO_D4RL_MIRROR", web.url)
        assert main(COMMAND) == 0
    address = r"http://127.0.0.1:\d+"
    assert re.sub(address, "", (ROOT / "mopo-3.json").read_text()) == re.sub(address, "", before)


def test_equal_cells_are_shared_between_tables(
    in_table: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(cells, "train_stack", None)
    line = f"ablate --table mopo-1 --only mopo,mbpo --datasets {POLE} --config tiny.yaml --threads 1 --seeds 2"
    assert main(line.split()) == 0
    run = ROOT / POLE.replace(":", "-") / "ablations"
    for cell in ("mopo_lam1_h2", "mbpo_h2"):
        for seed in (0, 1):
            file = f"cells/{cell}/seed-{seed}/policy.safetensors"
            assert (run / "mopo-1" / file).read_bytes() == (run / "mopo-3" / file).read_bytes()
    lines = json.loads((ROOT / "mopo-1.json").read_text())["lines"]
    assert [(line["row"], line["unit"], line["last"] is None) for line in lines] == [
        ("MOPO", "return", False),
        ("MBPO", "return", False),
    ]


def test_nothing_to_be_had_ends_with_the_error(in_table: Path, tmp_path: Path, capfd: Any) -> None:
    line = f"ablate --table mopo-1 --only bc --datasets {ABSENT} --config tiny.yaml --run {tmp_path}"
    with pytest.MonkeyPatch.context() as patch, serving(status(404)) as web:
        patch.setenv("MOPO_D4RL_MIRROR", web.url)
        assert main(line.split()) == 8
    out, err = capfd.readouterr()
    assert out == "" and "Error: No cell of mopo-1 could be made" in err
    assert "missing" in (tmp_path / "mopo-1.md").read_text()  # told all the same


def test_rows_that_need_no_model_have_none_and_come_and_go(
    in_table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(only: str, *more: str) -> list[str]:
        line = f"ablate --table mopo-1 --datasets {POLE} --config tiny.yaml --threads 1 --seeds 1 --run {tmp_path}"
        assert main([*line.split(), "--only", only, *more]) == 0
        lines = json.loads((tmp_path / "mopo-1.json").read_text())["lines"]
        assert all(line["last"] for line in lines if line["method"])
        return [line["row"] for line in lines]

    assert rows("sac,bc") == ["SAC", "BC"]
    assert not (tmp_path / POLE.replace(":", "-") / "model").exists()
    assert rows("bc", "--force") == ["BC"]
    monkeypatch.setattr(cells, "train_stack", None)
    assert rows("sac,bc") == ["SAC", "BC"]


def test_a_stopped_table_goes_on_and_ends_with_the_same_bytes(
    table: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def interrupted(*arguments: Any) -> Any:
        stacks.append(arguments)
        if len(stacks) == 2:  # that of the second data set
            os.kill(os.getpid(), signal.SIGINT)
        return train_stack(*arguments)

    stacks: list[Any] = []
    train_stack = vars(cells)["train_stack"]
    shutil.copy(finished_run / "tiny.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOPO_HOME", str(table / "cache"))
    line = f"ablate --table mopo-3 --only mopo,mbpo --datasets {POLE},{PENDULUM} --config tiny.yaml --threads 1"
    with monkeypatch.context() as patch:
        patch.setattr(cells, "train_stack", interrupted)
        assert main([*line.split(), "--seeds", "2"]) == 130
    assert "Stopped by SIGINT" in capfd.readouterr().err
    assert not Path("runs/current").exists(), "nobody named these runs"
    lines = json.loads((ROOT / "mopo-3.json").read_text())["lines"]
    assert [line["missing"] for line in lines] == [None, None, "not reached yet", "not reached yet"]
    assert main([*line.split(), "--seeds", "2"]) == 0
    assert "goes on at gradient step" in capfd.readouterr().err
    for name in (POLE, PENDULUM):
        for cell in ("mopo_lam1_h2", "mbpo_h2"):
            file = ROOT / name.replace(":", "-") / f"ablations/mopo-3/cells/{cell}/seed-1/policy.safetensors"
            assert (tmp_path / file).read_bytes() == (table / file).read_bytes()
    lines = json.loads((ROOT / "mopo-3.json").read_text())["lines"]
    assert len(lines) == 4 and all(line["last"] for line in lines)
