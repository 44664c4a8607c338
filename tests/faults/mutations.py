"""Damaged and edited files in bulk, each before a command that reads it; see `campaign.py`.

Every outcome must be right: done (exit 0) where the damage is of no consequence, else an exit code from 2 to 5 with one
sentence; never a traceback, a hang, or a result made from a file that is not what its producer recorded.
"""

import io
import json
import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import torch
from conftest import DATASET, STAGES, TINY
from probes.runs import record_anew
from pyarrow import csv, parquet

from mopo_cli.__main__ import main as mopo
from mopo_cli.store.atomic import read_json
from mopo_cli.store.checkpoint import load_tensors, save_tensors

RUN = Path("runs/tiny")
POLICY = "policies/mopo_max-var_lam1_h2/seed-0/policy.safetensors"
FINISHED = ".state/train-policy/mopo_max-var_lam1_h2/finished"
ROLLOUTS = "rollouts/uniform_h2.h5"
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
    ("run.json", f"train-policy {TINY_STEPS} --seeds 2"),
    ("run.json", f"fetch-data --dataset {DATASET} --run runs/tiny {TINY_STEPS}"),
    ("ablations/table/cells/CELL/cell.json", "ablate ABLATE"),
    ("ablations/table/table.json", "ablate ABLATE --rank offline"),
    (".state/train-policy/stopped/seeds-0/checkpoint.safetensors", "train-policy STOPPED"),
    (".state/train-policy/stopped/seeds-0.json", "train-policy STOPPED --seed-list 1"),
    (f"{FINISHED}/seed-0_epoch-2.safetensors", f"train-policy {TINY_STEPS} --epochs 3"),
    (".state/train-model/checkpoint.safetensors", f"train-model {TINY_STEPS} --max-epochs 3"),
    ("cache/behaviour.safetensors", "fetch-data BEHAVIOUR 320"),
    ("cache/dataset.h5", "show {path}"),
    ("cache/dataset.h5", f"train-model {TINY_STEPS} --max-epochs 1 --force"),
    ("cache/dataset.json", f"fetch-data --dataset {DATASET} --run runs/other {TINY_STEPS}"),
    *((f"own.{kind}", "fetch-data --dataset ./{path} --check") for kind in ("h5", "npz", "csv", "parquet")),
    ("own.h5", "show {path}"),
    ("map.yaml", "fetch-data --dataset ./own.csv --columns {path} --check"),
    ("tiny.yaml", ROLLOUT),
]
ABLATE = (
    f"{TINY_STEPS} --penalty max-var,none --lam 1 --h 2 --epochs 1 --steps-per-epoch 10 --eval-every 0 --name table"
)
OWN = ("own.h5", "own.npz", "own.csv", "own.parquet", "map.yaml", "tiny.yaml")
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
    errors, out = io.StringIO(), io.StringIO()
    with redirect_stderr(errors), redirect_stdout(out):
        code = mopo(line.split())
    return code, errors.getvalue()


def stop_after(looks: int, line: str) -> None:
    """Run a command until it has looked for signals so often, then let it stop and save."""
    from mopo_cli.stages.runner import Stage

    seen, look = 0, Stage.should_stop

    def should_stop(self: Stage) -> bool:
        nonlocal seen
        seen += 1
        if seen == looks:
            self.signal = signal.SIGTERM
        return look(self)

    Stage.should_stop = should_stop  # type: ignore[method-assign]
    try:
        code, output = run(line)
    finally:
        Stage.should_stop = look  # type: ignore[method-assign]
    assert code == 143, output


def write_own_logs() -> None:
    """A log of somebody's own in every kind of file that is read, and a column map."""
    draws = np.random.default_rng(0)
    columns: dict[str, Any] = {"obs_0": draws.normal(size=60), "action_0": draws.uniform(-1, 1, 60)}
    columns |= {"reward": draws.normal(size=60), "episode": np.arange(60) // 20}
    arrays: dict[str, Any] = {"observations": columns["obs_0"][:, None], "actions": columns["action_0"][:, None]}
    arrays |= {"rewards": columns["reward"], "terminals": np.arange(60) % 20 == 19}
    np.savez_compressed("own.npz", **arrays)
    with h5py.File("own.h5", "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip")
    table = pa.table(columns)
    csv.write_csv(table, "own.csv")
    parquet.write_table(table, "own.parquet")
    Path("map.yaml").write_text("obs: [obs_0]\naction: action_0\nreward: reward\nepisode: episode\n")


def prepare() -> dict[str, Path]:
    """A finished run with unfinished stages beside it, in the working directory; the place of each file by its name."""
    Path("tiny.yaml").write_text(TINY)
    write_own_logs()
    for stage in STAGES:
        data = f" --dataset {DATASET}" if stage == "fetch-data" else " --threads 1"
        code, output = run(f"{stage} --run runs/tiny --config tiny.yaml{data}")
        assert code == 0, output
    for line in (f"ablate {ABLATE}", f"rollout {TINY_STEPS}", f"fetch-data {BEHAVIOUR} 300"):
        code, output = run(line)
        assert code == 0, output
    (RUN.parent / "current").write_text("tiny\n")
    stop_after(2, f"train-policy {STOPPED}")
    stop_after(2, f"train-model {TINY_STEPS} --max-epochs 3 --force")
    places = {name: Path(name) if name in OWN else RUN / name for name, _ in READERS}
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
        code, output = 1, "no answer"
        try:
            code, output = run(line)
        finally:
            os.write(writer, f"{code}\n{output[-60_000:]}".encode(errors="replace"))
            os._exit(0)
    os.close(writer)
    with open(reader, errors="replace") as pipe:
        code_text, _, output = pipe.read().partition("\n")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return ("hang" if os.WTERMSIG(status) == signal.SIGALRM else f"signal {os.WTERMSIG(status)}"), output
    code = int(code_text)
    errors = sum(text.startswith("Error: ") for text in output.splitlines())
    if code == 1 or "Traceback" in output:
        return "traceback", output
    return ("done" if code == 0 else "refused" if 2 <= code <= 5 and errors == 1 else f"exit {code}"), output


def restore(kept: Path) -> None:
    """Put everything back as `prepare` left it."""
    for place, copy in ((Path("runs"), kept / "runs"), (Path(os.environ["MOPO_HOME"]), kept / "home")):
        shutil.rmtree(place)
        shutil.copytree(copy, place)


def mutate(name: str, path: Path, chance: random.Random) -> str:
    """Change a file in one way or another, which is returned in words."""
    ways = ["damaged"] if name in OWN else ["damaged", "edited"] + ["edited and recorded"] * (name != "run.json")
    way = chance.choice(ways)
    if way == "damaged":
        path.write_bytes(damaged(path.read_bytes(), chance))
    else:
        edit(path, chance)
    if way == "edited and recorded":
        record_anew(RUN)
    return way


def is_used(name: str, line: str) -> bool:
    """Whether a command that ends well has made its result from the file, and has neither shown nor remade it."""
    others = ("show", "ablate", "fetch-data", f"rollout {TINY_STEPS} --map")
    return not line.startswith(others) and ".state" not in name and name not in (*OWN, "run.json")


def mutations(options: Any) -> int:
    """Run the campaign; 1 where an outcome was wrong."""
    torch.set_num_threads(1)
    chance, work = random.Random(options.seed), Path(tempfile.mkdtemp(prefix="mutations-"))
    os.chdir(work)
    os.environ["MOPO_HOME"] = str(work / "home")
    places = prepare()
    shutil.copytree("runs", work / "kept/runs")
    shutil.copytree("home", work / "kept/home")
    counts: dict[str, Counter[str]] = {}
    faults = 0
    for turn in range(options.count):
        name, template = READERS[turn % len(READERS)]
        path = places[name]
        before = path.read_bytes()
        way, changed = mutate(name, path, chance), path.read_bytes() != before
        line = template.format(path=path)
        for word, meant in (("ABLATE", ABLATE), ("STOPPED", STOPPED), ("BEHAVIOUR", BEHAVIOUR)):
            line = line.replace(word, meant)
        came, output = outcome(line, options.limit)
        if came == "done" and changed and way != "edited and recorded" and is_used(name, line):
            came = "accepted"
        counts.setdefault(name, Counter())[came] += 1
        if came not in ("done", "refused"):
            faults += 1
            shutil.copy(path, work / f"wrong-{turn}{path.suffix}")
            print(f"{work}/wrong-{turn}: {name} {way}: {came}: {line}\n{output[-600:]}", flush=True)
        restore(work / "kept")
        path.write_bytes(before)
    for name, words in counts.items():
        shares = ", ".join(f"{word} {n}" for word, n in words.most_common())
        print(f"{name:{max(map(len, counts))}}  {sum(words.values()):5}  {shares}")
    print(f"seed {options.seed}: {options.count} files, {faults} faults")
    return int(faults > 0)
