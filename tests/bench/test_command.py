"""mopo bench: one table, one JSON object, and nothing that needs data or a run."""

import json
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.nets.libraries import named
from mopo_cli.nets.products import usual
from mopo_cli.stages.common import memory

TINY = """
train-model: {networks: 2, hidden: 16, layers: 1, weight-decay: [0.1, 0.1], batch-size: 8}
train-policy: {hidden: 16, batch-size: 8, rollout-batch: 50, h: 2, steps-per-epoch: 10, rollout-every: 10}
"""
QUICK = "--rows 1000 --seconds 0.1 --config tiny.yaml --preset generate-InvertedPendulum-v5-random"


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY)


def test_it_measures_projects_and_compares(mopo: Any) -> None:
    measured = mopo(f"bench {QUICK} --seeds 2 --output before.json --json")
    assert measured.code == 0
    result = json.loads(measured.out)
    assert result == json.loads(Path("before.json").read_text())
    updates = result["rates"]["policy updates, 2 seeds"]
    assert updates["per_second"] > 0 and updates["iqr"] >= 0 and updates["ceiling_iqr"] >= 0
    assert updates["share"] == pytest.approx(updates["per_second"] / updates["ceiling"])
    assert result["products"]["choice"] == usual() and result["versions"]["products"] == named(usual())
    assert result["projection"]["total_seconds"] == pytest.approx(sum(result["projection"]["seconds"].values()))
    assert sorted(path.name for path in Path().iterdir()) == ["before.json", "tiny.yaml"], "no run, no data"
    again = mopo(f"bench {QUICK} --seeds 2 --compare before.json --products mkl")
    assert again.code == 0 and "Then and now" in again.err and "ratio" in again.err
    assert "float32 gradient" in again.err and "IQR" in again.err
    assert "A run of generate-InvertedPendulum-v5-random with 2 seeds on cpu" in again.out


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        (f"bench {QUICK} --compare nowhere.json", 4, "nowhere.json"),
        (f"bench {QUICK} --compare tiny.json", 5, "tiny.json is not a result of mopo bench"),
        (f"bench {QUICK} --compare damaged.json", 5, "damaged.json is not a result of mopo bench"),
        ("bench --dataset ./my.csv", 4, "is not known before it is fetched"),
        ("bench --preset nothing", 2, "There is no preset 'nothing'"),
        ("bench --seeds 0", 2, "seeds"),
    ],
)
def test_bad_requests(mopo: Any, line: str, code: int, sentence: str) -> None:
    Path("tiny.json").write_text("{}")
    Path("damaged.json").write_text('{"rates": {"policy updates": {}}}')
    outcome = mopo(line)
    assert outcome.code == code and sentence in outcome.err


def test_what_was_measured_otherwise_is_not_compared(mopo: Any) -> None:
    assert mopo(f"bench {QUICK} --seeds 2 --output before.json").code == 0
    other = mopo(f"bench {QUICK} --seeds 3 --compare before.json")
    assert other.code == 2 and "before.json was measured with seeds 2, but now seeds is 3" in other.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--rows 100000000000", "--rows 100000000000 needs about"),
        ("--rows 1000 --seeds 1000000", "--seeds 1000000 needs about"),
        ("--rows 1000 --config wide.yaml", "--hidden 1000000 with 1 seed needs about"),
        ("--rows 1000 --config mobile.yaml --methods mobile", "--mobile-samples 10000000 with 1 seed needs about"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused(
    mopo: Any, monkeypatch: pytest.MonkeyPatch, flags: str, said: str
) -> None:
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 8_000_000_000)
    Path("wide.yaml").write_text("train-policy: {hidden: 1000000}")
    Path("mobile.yaml").write_text("methods: {mobile: {train-policy: {mobile-samples: 10000000}}}")
    outcome = mopo(f"bench --seconds 0.1 --preset generate-InvertedPendulum-v5-random {flags}")
    assert (outcome.code, outcome.out) == (3, "")
    assert f"Error: {said}" in outcome.err
