"""Cells of an ablation take over what the run holds already: the same bytes, and no training."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from probes.runs import stop_at

from mopo_cli.store.checkpoint import load_tensors, save_tensors

# The policy that the finished run holds: mopo_max-var_lam1_h2, seed 0.
ABLATE = "ablate --config tiny.yaml --threads 1 --penalty max-var --lam 1 --h 2"
HELD = "policies/mopo_max-var_lam1_h2/seed-0"
FILES = ("policy.safetensors", "metrics.jsonl")
INTERRUPTED = "train-policy --config tiny.yaml --threads 1 --name p --seeds 2 --epochs 6 --steps-per-epoch 25"


def cell(name: str = "grid", policy: str = "mopo_max-var_lam1_h2") -> str:
    return f"ablations/{name}/cells/{policy}"


def same(run: Path, one: str, other: str) -> bool:
    return all((run / one / name).read_bytes() == (run / other / name).read_bytes() for name in FILES)


def test_a_trained_policy_becomes_the_cell(tiny_run: Path, mopo: Any, trained: list[int]) -> None:
    outcome = mopo(f"{ABLATE} --name grid")
    assert outcome.code == 0 and trained == []
    assert "mopo_max-var_lam1_h2: 1 of 1 seeds are in the run already and are reused" in outcome.err
    assert same(tiny_run, HELD, f"{cell()}/seed-0")
    table = json.loads((tiny_run / "ablations/grid/table.json").read_text())
    record = json.loads((tiny_run / "run.json").read_text())["stages"]["train-policy/mopo_max-var_lam1_h2"]
    assert table["cells"][0]["returns"] == record["extra"]["returns"]


def test_only_the_seeds_that_are_not_there_are_trained_and_all_are_as_if_trained_together(
    tiny_run: Path, mopo: Any, trained: list[int], tmp_path: Path
) -> None:
    fresh = tmp_path / "runs/fresh"
    shutil.copytree(tiny_run, fresh, ignore=shutil.ignore_patterns("policies", "evaluations"))
    assert mopo(f"{ABLATE} --name grid --seeds 3 --run {fresh}").code == 0
    assert trained == [0, 1, 2]
    trained.clear()
    assert mopo(f"{ABLATE} --name grid --seeds 2 --run {tiny_run}").code == 0
    assert trained == [1]
    trained.clear()
    assert mopo(f"{ABLATE} --name grid --seeds 3 --run {tiny_run}").code == 0  # its own cell has two of them
    assert trained == [2]
    for file in [f"{cell()}/{name}" for name in ("cell.json", *(f"seed-{n}/{f}" for n in range(3) for f in FILES))]:
        assert (tiny_run / file).read_bytes() == (fresh / file).read_bytes(), file
    assert mopo(f"{ABLATE} --name grid --seed-list 2,0 --run {tiny_run}").code == 0
    assert trained == [2]  # fewer are there already


def test_another_ablations_cell_is_taken_over_too_whatever_its_name(
    tiny_run: Path, mopo: Any, trained: list[int]
) -> None:
    assert mopo(f"{ABLATE} --name one --gamma 0.9").code == 0
    assert trained == [0]
    assert mopo("ablate --config tiny.yaml --threads 1 --method mopo --lam 1 --h 2 --name two --gamma 0.9").code == 0
    assert trained == [0]
    assert same(tiny_run, f"{cell('one')}/seed-0", f"{cell('two', 'mopo_lam1_h2')}/seed-0")


@pytest.mark.parametrize("more", ["--gamma 0.9", "--epochs 3", "--seed-list 1", "--force"])
def test_what_differs_is_trained(tiny_run: Path, mopo: Any, trained: list[int], more: str) -> None:
    assert mopo(f"{ABLATE} --name grid {more}").code == 0
    assert trained == ([1] if "seed" in more else [0])


@pytest.mark.parametrize("what", ["policy", "metrics", "elites"])
def test_a_damaged_policy_or_one_of_another_model_is_not_taken_over(
    tiny_run: Path, mopo: Any, trained: list[int], what: str
) -> None:
    if what == "elites":
        assert mopo("select-elites --config tiny.yaml --networks 2").code == 0
    else:
        path = tiny_run / HELD / dict(zip(("policy", "metrics"), FILES, strict=True))[what]
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert mopo(f"{ABLATE} --name grid").code == 0
    assert trained == [0]


def test_cells_with_equal_settings_are_trained_once(tiny_run: Path, mopo: Any, trained: list[int]) -> None:
    ablate = "ablate --config tiny.yaml --threads 1 --seeds 2 --method mopo-no-pen,mbpo --name twins"
    assert mopo(ablate).code == 0
    assert trained == [0, 1]
    one, other = cell("twins", "mopo-no-pen_h2"), cell("twins", "mbpo_h2")
    assert all(same(tiny_run, f"{one}/seed-{seed}", f"{other}/seed-{seed}") for seed in (0, 1))
    table = json.loads((tiny_run / "ablations/twins/table.json").read_text())
    first, second = table["cells"]
    assert (first["method"], second["method"]) == ("mopo-no-pen", "mbpo")
    assert first["returns"] == second["returns"] and first["policies"] == second["policies"]
    assert "up to date" in mopo(ablate).err and trained == [0, 1]


def test_the_table_tells_how_long_a_seed_took_whoever_trained_it(tiny_run: Path, mopo: Any) -> None:
    def shown(name: str) -> list[tuple[str, str]]:
        with (tiny_run / f"ablations/{name}/table.csv").open(newline="") as file:
            return [(row["seed"], row["wall_seconds"]) for row in csv.DictReader(file)]

    def table(name: str) -> str:
        return (tiny_run / f"ablations/{name}/table.md").read_text()

    timing = tiny_run / HELD / "timing.json"
    timing.write_text('{"wall_seconds": 1234.5}')
    assert mopo(f"{ABLATE} --name grid").code == 0
    assert shown("grid") == [("0", "1234.5")] and "s per seed" in table("grid") and "1234.5 |" in table("grid")
    assert mopo(f"{ABLATE} --name grid --seeds 2").code == 0
    (_, first), (_, second) = shown("grid")
    assert first == "1234.5" and 0 < float(second) < 100
    assert "wall_seconds" not in (tiny_run / "ablations/grid/table.json").read_text()
    # One that does not tell is taken over none the less, and what was there before is not told of it.
    timing.unlink()
    (tiny_run / f"ablations/grid/cells/{Path(HELD).parent.name}/seed-0/policy.safetensors").write_bytes(b"?")
    assert mopo(f"{ABLATE} --name grid").code == 0
    assert shown("grid") == [("0", "")] and "s per seed" not in table("grid")


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"wall_seconds": null}', '{"wall_seconds": -1}', "[NaN]"])
def test_a_time_that_cannot_be_read_is_not_told(tiny_run: Path, mopo: Any, trained: list[int], content: str) -> None:
    (tiny_run / HELD / "timing.json").write_text(content.replace("[NaN]", '{"wall_seconds": NaN}'))
    outcome = mopo(f"{ABLATE} --name grid")
    assert outcome.code == 0 and trained == [] and "s per seed" not in outcome.err


BROKEN = '{"settings": {}, "inputs": {}, "files": {"x": "y"}, "returns": {}, "diverged": []}'


@pytest.mark.parametrize("content", ["", "null", "[]", '{"settings": [], "inputs": [], "files": []}', BROKEN])
def test_a_damaged_description_is_made_anew_and_hinders_no_other(
    tiny_run: Path, mopo: Any, trained: list[int], content: str
) -> None:
    assert mopo(f"{ABLATE} --name grid --gamma 0.9").code == 0
    before = json.loads((tiny_run / cell() / "cell.json").read_text())
    (tiny_run / cell() / "cell.json").write_text(content)
    assert mopo(f"{ABLATE} --name other").code == 0 and trained == [0]
    assert mopo(f"{ABLATE} --name grid --gamma 0.9").code == 0 and trained == [0, 0]
    assert json.loads((tiny_run / cell() / "cell.json").read_text()) == before


def test_what_a_file_says_of_one_method_makes_the_table_out_of_date(tiny_run: Path, mopo: Any) -> None:
    def ablate(rate: float) -> tuple[bool, str]:
        of_method = f"methods: {{bc: {{train-policy: {{actor-lr: {rate}}}}}}}"
        Path("mine.yaml").write_text(f"{Path('tiny.yaml').read_text()}\n{of_method}")
        outcome = mopo("ablate --config mine.yaml --threads 1 --method bc --name rates --json")
        assert outcome.code == 0
        result = json.loads(outcome.out)
        return result["up_to_date"], result["cells"][0]["policies"]["0"]

    (first, slow), (second, fast), (third, same) = ablate(0.001), ablate(0.01), ablate(0.01)
    assert (first, second, third) == (False, False, True) and slow != fast == same


def test_what_diverged_is_told_on_stdout_too(tiny_run: Path, mopo: Any) -> None:
    rates = "--config tiny.yaml --threads 1 --actor-lr 1e30 --json"
    outcome = mopo(f"ablate {rates} --method bc,mopo --name lost")
    assert outcome.code == 7 and "diverged" in outcome.err
    assert json.loads(outcome.out)["diverged"]
    outcome = mopo(f"ablate {rates} --method mopo --name all --rank ope")
    assert outcome.code == 7 and json.loads(outcome.out)["ranking"]["chosen"] is None
    outcome = mopo(f"train-policy {rates} --method mopo --name lost")
    assert outcome.code == 7 and json.loads(outcome.out)["diverged"] == ["seed 0"]


def test_the_time_of_every_attempt_is_counted_and_a_stack_shares_it(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = interrupt(tiny_run, mopo, monkeypatch)
    tensors, saved = load_tensors(checkpoint)
    assert 0 < saved["meta"]["seconds"] < 100
    saved["meta"]["seconds"] = 2000.0
    save_tensors(checkpoint, tensors, saved)
    assert mopo(INTERRUPTED).code == 0
    for seed in (0, 1):
        result = json.loads((tiny_run / f"policies/p/seed-{seed}/timing.json").read_text())
        assert 1000 < result["wall_seconds"] < 1050


def interrupt(run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stop a training of two seeds at gradient step 100; returns its checkpoint."""
    stop_at(3, monkeypatch)
    assert mopo(INTERRUPTED).code == 143
    return run / ".state/train-policy/p/seeds-0-1/checkpoint.safetensors"


def test_what_was_stopped_before_a_setting_was_new_goes_on(
    tiny_run: Path, mopo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = interrupt(tiny_run, mopo, monkeypatch)
    tensors, saved = load_tensors(checkpoint)
    assert saved["meta"].pop("seconds") > 0
    for settings in (saved["settings"], saved["meta"]["stack"][0]):
        assert settings.pop("update_precision") == "fp32"
    save_tensors(checkpoint, tensors, saved)
    outcome = mopo(INTERRUPTED)
    assert outcome.code == 0 and "goes on at gradient step 100" in outcome.err
