"""Damaged and edited files by the thousand, each before the command that reads it. To be run by hand:

    python tests/faults/mutations.py --count 5000

Every outcome must be right: done (exit 0) where the damage is of no consequence, else an exit code from 2 to 5 with one
sentence; never a traceback, a hang, or a result made from a file that is not what its producer recorded.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import h5py
import numpy as np
import torch
from conftest import DATASET, STAGES, TINY
from probes.runs import record_anew

from mopo_cli.__main__ import main as mopo
from mopo_cli.store.atomic import read_json
from mopo_cli.store.checkpoint import load_tensors, save_tensors

RUN = Path("runs/tiny")
POLICY = "policies/mopo_max-var_lam1_h2/seed-0/policy.safetensors"
ROLLOUTS = "rollouts/uniform_h2.h5"
CELLS = "ablations/mopo_max-var_lam1_h2+mopo_none_lam1_h2"
TINY_STEPS = "--config tiny.yaml --threads 1"
TRAIN = f"train-policy {TINY_STEPS} --epochs 1 --steps-per-epoch 10 --eval-every 0 --name new"
ROLLOUT = f"rollout {TINY_STEPS} --batch 20 --name new"
READERS: list[tuple[str, str]] = [
    ("model/ensemble.safetensors", "select-elites --n 1"),
    ("model/ensemble.safetensors", ROLLOUT),
    ("model/ensemble.safetensors", "show {path}"),
    ("elites.json", ROLLOUT),
    ("elites.json", "show {path}"),
    (ROLLOUTS, f"{TRAIN} --rollouts {{path}}"),
    (ROLLOUTS, f"rollout {TINY_STEPS} --map"),
    (ROLLOUTS, "show {path}"),
    (POLICY, "evaluate --episodes 1 --threads 1"),
    (POLICY, f"{ROLLOUT} --actions {{path}}"),
    (POLICY, "show {path}"),
    ("policies/mopo_max-var_lam1_h2/seed-0/metrics.jsonl", "evaluate --episodes 1 --threads 1"),
    ("run.json", "show runs/tiny"),
    ("run.json", "evaluate --episodes 1 --threads 1"),
    ("run.json", f"{ROLLOUT}"),
    ("run.json", f"fetch-data --dataset {DATASET} --run runs/tiny {TINY_STEPS}"),
    ("ablations/table/cells/CELL/cell.json", "ablate ABLATE"),
    ("ablations/table/table.json", "ablate ABLATE --rank offline"),
    (".state/train-policy/stopped/checkpoint.safetensors", "train-policy STOPPED"),
    (".state/train-model/checkpoint.safetensors", f"train-model {TINY_STEPS} --max-epochs 3"),
    ("cache/behaviour.safetensors", "fetch-data BEHAVIOUR 320"),
    ("cache/dataset.h5", "show {path}"),
    ("cache/dataset.h5", f"train-model {TINY_STEPS} --max-epochs 1 --force"),
    ("cache/dataset.json", f"fetch-data --dataset {DATASET} --run runs/other {TINY_STEPS}"),
]
ABLATE = (
    f"{TINY_STEPS} --penalty max-var,none --lam 1 --h 2 --epochs 1 --steps-per-epoch 10 --eval-every 0 --name table"
)
STOPPED = f"{TINY_STEPS} --name stopped"
BEHAVIOUR = "--dataset generate:InvertedPendulum-v5:full-replay --run runs/replay --threads 1 --behaviour-steps"
# What people and programs put where something else belongs.
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**22,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x00",
    [],
    [1],
    [[]],
    {},
    {"a": 1},
]


def run(line: str) -> tuple[int, str]:
    """Exit code and what a command told, in this process."""
    told, out = io.StringIO(), io.StringIO()
    with redirect_stderr(told), redirect_stdout(out):
        code = mopo(line.split())
    return code, told.getvalue()


def stop_after(looks: int, line: str) -> None:
    """Run a command until it has looked for signals so often, then let it stop and save."""
    from mopo_cli.stages.runner import Stage

    seen, look = 0, Stage.should_stop

    def should_stop(stage: Stage) -> bool:
        nonlocal seen
        seen += 1
        if seen == looks:
            stage.signal = signal.SIGTERM
        return look(stage)

    Stage.should_stop = should_stop  # type: ignore[method-assign]
    try:
        code, told = run(line)
    finally:
        Stage.should_stop = look  # type: ignore[method-assign]
    assert code == 143, told


def prepare() -> dict[str, Path]:
    """A finished run with unfinished stages beside it, in the working directory; the place of each file by its name."""
    Path("tiny.yaml").write_text(TINY)
    for stage in STAGES:
        data = f" --dataset {DATASET}" if stage == "fetch-data" else " --threads 1"
        code, told = run(f"{stage} --run runs/tiny --config tiny.yaml{data}")
        assert code == 0, told
    for line in (f"ablate {ABLATE}", f"rollout {TINY_STEPS}", f"fetch-data {BEHAVIOUR} 300"):
        code, told = run(line)
        assert code == 0, told
    (RUN.parent / "current").write_text("tiny\n")
    stop_after(2, f"train-policy {STOPPED}")
    stop_after(2, f"train-model {TINY_STEPS} --max-epochs 3 --force")
    places = {name: RUN / name for name, _ in READERS}
    (places["ablations/table/cells/CELL/cell.json"],) = sorted(RUN.glob("ablations/table/cells/*/cell.json"))[:1]
    dataset = Path(read_json(RUN / "run.json")["stages"]["fetch-data"]["outputs"]["dataset"]["path"])
    places |= {"cache/dataset.h5": dataset, "cache/dataset.json": dataset.with_suffix(".json")}
    (places["cache/behaviour.safetensors"],) = Path(os.environ["MOPO_HOME"]).rglob("behaviour.safetensors")
    return places


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The bytes with a flipped bit, a cut, a piece twice, a piece of zeros, or one of noise."""
    place, length = chance.randrange(max(len(content), 1)), chance.randrange(1, 65)
    kinds: list[Callable[[], bytes]] = [
        lambda: content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :],
        lambda: content[:place],
        lambda: content[:place] + content[place : place + length] + content[place:],
        lambda: content[:place] + bytes(min(length, len(content) - place)) + content[place + length :],
        lambda: content[:place] + chance.randbytes(length) + content[place + length :],
    ]
    return chance.choice(kinds)()


def edited(value: Any, chance: random.Random) -> Any:
    """A JSON value in which one part, at any depth, is gone or is something odd."""
    if isinstance(value, dict | list) and value and chance.random() < 0.8:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = chance.choice(keys)
        copy = value.copy()
        if chance.random() < 0.15:
            copy.pop(key)
        else:
            copy[key] = edited(value[key], chance)
        return copy
    return chance.choice(ODD)


def edit(path: Path, chance: random.Random) -> None:
    """Change what a file says in a way that its format allows."""
    if path.suffix == ".json":
        path.write_text(json.dumps(edited(read_json(path), chance)))
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        odd = edited(lines, chance)
        path.write_text("".join(json.dumps(line) + "\n" for line in (odd if isinstance(odd, list) else [odd])))
    elif path.suffix == ".safetensors":
        tensors, meta = load_tensors(path)
        if chance.random() < 0.2:
            name = chance.choice(sorted(tensors))
            odd = [
                torch.zeros(0),
                torch.zeros(3, dtype=torch.int64),
                tensors[name][..., :-1],
                torch.ones(2, 2, 2).bool(),
            ]
            tensors[name] = chance.choice(odd)
        new = edited(meta, chance)
        save_tensors(path, tensors, new if isinstance(new, dict) else {"kind": new})
    else:
        with h5py.File(path, "r+") as file:
            file.attrs.pop("content_sha256", None)
            name = chance.choice(sorted(file.attrs))
            value = chance.choice(
                [None, 1, -1.5, "x", b"\xff", np.zeros(3), np.zeros((2, 2), "f4"), np.array([]), True]
            )
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value


def outcome(line: str, limit: int) -> tuple[str, str]:
    """What becomes of a command in a process of its own: in a word, and what it told."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.setsid()
        signal.alarm(limit)
        code, told = 1, "no answer"
        try:
            code, told = run(line)
        finally:
            os.write(writer, f"{code}\n{told[-60_000:]}".encode(errors="replace"))
            os._exit(0)
    os.close(writer)
    with open(reader, errors="replace") as pipe:
        code_text, _, told = pipe.read().partition("\n")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return ("hang" if os.WTERMSIG(status) == signal.SIGALRM else f"signal {os.WTERMSIG(status)}"), told
    code = int(code_text)
    errors = sum(text.startswith("Error: ") for text in told.splitlines())
    if code == 1 or "Traceback" in told:
        return "traceback", told
    return ("done" if code == 0 else "refused" if 2 <= code <= 5 and errors == 1 else f"exit {code}"), told


def restore(kept: Path) -> None:
    """Put everything back as `prepare` left it."""
    for place, copy in ((Path("runs"), kept / "runs"), (Path(os.environ["MOPO_HOME"]), kept / "home")):
        shutil.rmtree(place)
        shutil.copytree(copy, place)


def main() -> int:
    """Run the campaign; 1 where an outcome was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=60, help="seconds after which a command hangs")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    chance = random.Random(asked.seed)
    work = Path(tempfile.mkdtemp(prefix="mutations-"))
    os.chdir(work)
    os.environ["MOPO_HOME"] = str(work / "home")
    places = prepare()
    shutil.copytree("runs", work / "kept/runs")
    shutil.copytree("home", work / "kept/home")
    counts: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    for turn in range(asked.count):
        name, template = READERS[turn % len(READERS)]
        path, how = places[name], chance.choice(["damaged", "edited", "edited and recorded"])
        before = path.read_bytes()
        path.write_bytes(damaged(before, chance)) if how == "damaged" else edit(path, chance)
        changed = path.read_bytes() != before
        recorded = name != "run.json" and how != "edited and recorded"
        if how == "edited and recorded" and name != "run.json":
            record_anew(RUN)
        line = template.format(path=path).replace("ABLATE", ABLATE).replace("STOPPED", STOPPED)
        word, told = outcome(line.replace("BEHAVIOUR", BEHAVIOUR), asked.limit)
        # Looking at a file is allowed, and so is making it anew; learning from it is not.
        reads = (
            not line.startswith(("show", "ablate", "fetch-data", f"rollout {TINY_STEPS} --map"))
            and ".state" not in name
        )
        if word == "done" and changed and recorded and reads:
            word = "accepted"
        counts.setdefault(name, Counter())[word] += 1
        if word not in ("done", "refused"):
            wrong.append(f"{name} {how} ({turn}): {word}: {line}\n{told[-1500:]}")
            shutil.copy(path, work / f"wrong-{turn}{path.suffix}")
        restore(work / "kept")
    width = max(map(len, counts))
    for name, words in counts.items():
        print(
            f"{name:{width}}  {sum(words.values()):5}  " + ", ".join(f"{word} {n}" for word, n in words.most_common())
        )
    print(*wrong[:60], sep="\n---\n")
    print(f"{sum(sum(words.values()) for words in counts.values())} tried, {len(wrong)} wrong; files in {work}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
