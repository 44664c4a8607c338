"""Flags and settings files with faults: each is told with its name, and nothing on disk changes."""

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mopo_cli.stages.common import memory


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train-polcy", "train-policy"),
        ("train-policy --penlty max-var", "--penlty"),
        ("train-policy --penalty max-vra", "penalty"),
        ("train-policy --lam -1", "lam"),
        ("train-policy --lam nan", "lam"),
        ("train-policy --h 0", "h "),
        ("train-policy --seed-list 1,1", "seed-list"),
        ("train-policy --seed-list 1,x", "seed-list"),
        ("train-policy --name ../escape", "name"),
        ("train-policy --epochs", "--epochs"),
        ("train-policy --log-std-min 3", "log-std-min"),
        ("train-policy --device gpu", "--device"),
        ("train-policy --threads 0", "--threads"),
        ("train-policy --threads many", "--threads"),
        ("train-policy --threads 1000000", "--threads must be at most 4096"),
        ("train-policy --layers 100000", "--layers must be less than or equal to 1000"),
        ("train-policy --seeds 1000000000", "--seeds must be less than or equal to 1000000"),
        ("train-policy --epochs 10000000000000000000", "--epochs must be at most 9223372036854775807"),
        ("train-policy --method td3-bc --policy-delay 1000000000", "--policy-delay must be less than or equal to 1000"),
        ("rollout --batch 10000000000000000000000", "--batch must be at most"),
        ("select-elites --networks 0,10000000000000000000", "--networks must be at most"),
        ("train-policy --preset hopper-medum", "did you mean 'hopper-medium'"),
        ("train-model --layers 3", "weight-decay needs 4 values"),
        ("select-elites --metric mae", "metric"),
        ("rollout --batch 1e3.5", "batch"),
        ("ablate --penalty max-var,maxvar", "penalty"),
        ("evaluate --episodes 0", "episodes"),
        ("evaluate extra", "extra"),
        ("presets show nothing", "nothing"),
        ("run", "PRESET-OR-DATA-SET"),
    ],
)
def test_a_command_line_with_a_fault(tiny_run: Path, refuses: Any, line: str, said: str) -> None:
    refuses(line, 2, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train-policy: {lamb: 1}", "did you mean 'lam'"),
        ("train-policy: {penalty: maximum}", "penalty must be"),
        ("train-policy: {epochs: 1.5}", "epochs must be"),
        ("train-policy: {epochs: true}", "epochs must not be true or false"),
        ("train-policy: {log-std-min: 5}", "log-std-min 5 must be below log-std-max 2"),
        ("train-policy: {lam: 1, h: 0, tau: 2}", "2 errors"),
        ("train-policy: {lam: 1, 'lam': 2}", "gives lam twice (line 1)"),
        ("train-policy: {lam: 1}\nrollout: {batch-size: 3}", "batch-size"),
        ("trainpolicy: {lam: 1}", "did you mean 'train-policy'"),
        ("train-policy: [lam, 1]", "section train-policy"),
        ("- train-policy", "must hold sections"),
        ("train-policy: {lam: 1", "line 1"),
        ("evaluate: {episodes: !!python/object/apply:os.getcwd []}", "not valid YAML"),
    ],
)
def test_a_settings_file_with_a_fault(tiny_run: Path, refuses: Any, text: str, said: str) -> None:
    Path("mine.yaml").write_text(text)
    refuses("train-policy --config mine.yaml", 3, said)
    refuses("run quickstart --config mine.yaml", 3, said)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", "folder"])
def test_a_settings_file_that_cannot_be_read(tiny_run: Path, refuses: Any, content: Any) -> None:
    if content == "folder":
        Path("mine.yaml").mkdir()
    elif content:
        Path("mine.yaml").write_bytes(content)
    refuses("train-policy --config mine.yaml", 4, "mine.yaml")


@pytest.mark.parametrize(
    ("line", "said"),
    [("select-elites --n 4", "3 networks.\nTry: mopo select-elites --n 3"), ("select-elites --networks 0,3", "0 to 2")],
)
def test_more_elites_than_networks(tiny_run: Path, refuses: Any, line: str, said: str) -> None:
    refuses(line, 3, said)


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with 8 GB free, on which nobody gets more than two."""
    monkeypatch.setattr(memory, "_free_bytes", lambda device: 8_000_000_000)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        now = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 2_000_000_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, limits)


LOGGED = "fetch-data --run runs/new --dataset generate:InvertedPendulum-v5"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("train-policy --batch-size 10000000", "--batch-size 10000000 with 1 seed needs about"),
        ("train-policy --hidden 1000000000", "--hidden 1000000000 with 1 seed needs about"),
        ("train-policy --seeds 1000000", "--seeds 1000000 needs about"),
        ("train-policy --h 1000000000", "--h 1000000000"),
        ("train-policy --rollout-batch 1000000000", "--rollout-batch 1000000000"),
        ("train-policy --pool-epochs 1000000000", "--pool-epochs 1000000000"),
        ("train-policy --eval-episodes 1000000000", "--eval-episodes 1000000000"),
        ("train-policy --method cql --actions 1000000", "--actions 1000000"),
        ("train-policy --method combo --actions 1000000", "--actions 1000000"),
        ("train-policy --algorithm mobile --mobile-samples 10000000", "--mobile-samples 10000000"),
        ("train-policy --method bear --behaviour-hidden 1000000", "--behaviour-hidden 1000000"),
        ("train-policy --method brac-v --divergence mmd --batch-size 100000000", "--batch-size 100000000"),
        ("train-model --batch-size 100000000", "--batch-size 100000000"),
        ("train-model --networks 1000000000", "--networks 1000000000"),
        ("train-model --hidden 1000000000", "--hidden 1000000000"),
        ("train-model --seeds 1000000", "--seeds 1000000"),
        ("rollout --batch 1000000000000", "--batch 1000000000000"),
        ("evaluate --episodes 1000000000", "--episodes 1000000000"),
        ("ablate --name x --seeds 1000000", "--seeds 1000000"),
        ("ablate --name x --h 1,1000000000", "--h 1000000000"),
        ("ablate --name x --grid gamma=0.5,0.9 --grid batch-size=16,10000000", "--batch-size 10000000"),
        (f"{LOGGED}:random --transitions 1000000000000", "--transitions 1000000000000"),
        (f"{LOGGED}:medium --medium-return 1 --behaviour-steps 1000000000000", "--behaviour-steps 1000000000000"),
        (f"{LOGGED}:expert --transitions 1000000000000", "--transitions 1000000000000"),
    ],
)
def test_what_would_not_fit_into_memory(tiny_run: Path, refuses: Any, bounded: None, line: str, said: str) -> None:
    more = "" if line.startswith("fetch-data") else " --config tiny.yaml --force --threads 1"
    refuses(f"{line}{more} --device cpu" if "evaluate" not in line else f"{line}{more}", 3, said)


def test_a_grid_that_nobody_could_train(tiny_run: Path, refuses: Any) -> None:
    values = ",".join(f"{k / 1000:g}" for k in range(1, 1000))
    axes = f"--grid gamma={values} --grid tau={values} --grid target-entropy={values}"
    refuses(f"ablate --name x {axes}", 3, "The grid has 1,994,005,998 cells, but at most 10,000 can be compared.")
