"""Faults in bulk, to be run by hand: `python tests/faults/campaign.py kills --count 300`, `... mutations --count 5000`,
`... tables --count 1000`.

Kills: every stage is started, killed at random moments and started again until it ends. Then all that it made must have
the bytes of a run that nobody disturbed, and nothing else may be left, on disk or as a process.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[2]
SETTINGS = """\
fetch-data: {transitions: 20000, behaviour-steps: 1300}
train-model: {networks: 3, hidden: 32, layers: 2, weight-decay: [1e-5, 1e-5, 1e-5], max-epochs: 2}
select-elites: {n: 2}
rollout: {h: 5, batch: 20000}
train-policy:
  {h: 2, epochs: 6, steps-per-epoch: 50, rollout-every: 25, rollout-batch: 200, hidden: 16, eval-episodes: 2}
evaluate: {episodes: 20}
"""
RUN = "--run runs/tiny --config tiny.yaml --device cpu --products mkl"
POLE = "fetch-data --dataset generate:InvertedPendulum-v5"
LINES = {
    "full-replay": f"{POLE}:full-replay --run runs/replay --config tiny.yaml --device cpu --products mkl --threads 2",
    "random": f"{POLE}:random {RUN}",
    "train-model": f"train-model {RUN} --threads 2 --seeds 2",
    "select-elites": f"select-elites {RUN}",
    "rollout": f"rollout {RUN} --threads 1",
    "train-policy": f"train-policy {RUN} --threads 2 --seeds 2 --method mopo",
    "evaluate": f"evaluate {RUN}",
    "ablate": f"ablate {RUN} --threads 2 --seeds 2 --name grid --penalty max-var --lam 1,5 --epochs 3",
}
HELPED = ("train-model", "train-policy", "ablate")  # they start processes of their own

# How the command may end after a signal, which may come before it listens.
ENDINGS = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2), signal.SIGUSR1: (138, -10)}
HANG = 120.0  # seconds
STARTUP = 3.0  # seconds that the imports take, about
IMPORTS = (
    *("fetch_data", "rollout", "evaluate", "ablate", "train_model"),
    *("common.policy_stack", "common.train_behaviour"),
)
OUTCOMES = ("equal", "different", "other")
TIMES = ("wall_seconds", "finished", "versions")


@dataclass(frozen=True)
class Site:
    """A folder with the one where stages run and, of each, what was before, what it makes undisturbed and how fast."""

    root: Path
    place: Path
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def start(place: Path, line: str, *, fresh: bool, save_always: bool) -> int:
    """Start a command, in a new interpreter or in a fork of this one, which has all imports done; its pid."""
    (place.parent / "stderr").write_text("")
    if pid := os.fork():
        return pid
    code = 1
    try:
        os.chdir(place)
        os.dup2(os.open(place.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ |= {"MOPO_HOME": str(place / "cache"), "MOPO_DEBUG": "1", "PYTHONPATH": str(TREE)}
        if fresh:
            os.execv(sys.executable, [sys.executable, "-m", "mopo_cli", *line.split()])
        if save_always:
            vars(import_module("mopo_cli.stages.common.saving")).update(SAVE_SECONDS=-1.0, SAVE_SHARE=float("inf"))
        code = import_module("mopo_cli.__main__").main(line.split())
    except (KeyboardInterrupt, SystemExit) as end:
        code = 130 if isinstance(end, KeyboardInterrupt) else int(end.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """The exit code of a process, None if it runs on."""
    end = time.monotonic() + seconds
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < end:
        time.sleep(0.002)
    return os.waitstatus_to_exitcode(ended[1]) if ended[0] else None


def at_work(place: Path) -> set[int]:
    """The processes whose working directory is the place."""
    results = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            results |= {int(entry.name)} if os.readlink(entry / "cwd") == str(place) else set()
    return results


def attempt(site: Site, line: str, chance: random.Random, moment: float, signum: int, helper: bool) -> Any:
    """Start a command and, unless `signum` is 0, send it to the command or to one of its helpers at the moment.

    Returns whether the signal reached anybody, whether the command has done its work, and what was wrong.
    """
    fresh, wrong = chance.random() < 0.2, []
    pid = target = start(site.place, line, fresh=fresh, save_always=chance.random() < 0.5)
    code = wait(pid, moment + (chance.uniform(0, STARTUP) if fresh else 0)) if signum else None
    while signum and helper and code is None and target == pid:
        target = chance.choice(sorted(at_work(site.place) - {pid}) or [pid])
        code = wait(pid, 0.01) if target == pid else None
    hit = bool(signum) and code is None
    if hit:
        with suppress(ProcessLookupError):
            os.kill(target, signum)
    if code is None and (code := wait(pid, HANG)) is None:
        wrong.append("hang")
        for process in {pid, *at_work(site.place)}:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os.waitpid(pid, 0)
    # Without a helper it may end with an error, which is over the next time: 3, or 4 while a simulator is imported.
    allowed = () if not hit else (3, 4) if helper else ENDINGS[signal.Signals(signum)]
    if code not in (0, None, *allowed):
        wrong.append(f"exit {code}")
    if re.search("Traceback|This is a bug", (site.root / "stderr").read_text(errors="replace")):
        wrong.append("traceback")
    return hit, code == 0, wrong


def contents(path: Path) -> bytes:
    """What must be the same of a file: all but how long things took, and when and by which versions."""
    if path.suffix == ".json":
        return json.dumps(without_times(json.loads(path.read_text())), sort_keys=True).encode()
    if path.name in ("table.csv", "table.md"):  # the seconds are the last column
        return re.sub(r"[,|][^,|\n]*\|?$", "", path.read_text(), flags=re.MULTILINE).encode()
    return path.read_bytes()


def without_times(value: Any) -> Any:
    if isinstance(value, list):
        return [without_times(item) for item in value]
    if not isinstance(value, dict):
        return value
    dropped = (*TIMES, "sha256") if "/table." in str(value.get("path")) else TIMES
    return {key: without_times(item) for key, item in value.items() if key not in dropped}


def digests(place: Path) -> dict[str, str]:
    """Of every file by its path, but for locks and times."""
    files = (path for path in place.rglob("*") if path.is_file() and path.name not in (".lock", "timing.json"))
    return {str(path.relative_to(place)): hashlib.sha256(contents(path)).hexdigest() for path in files}


def left_over(place: Path) -> list[str]:
    """Temporary files, checkpoints of what is finished, and processes that have not ended after five seconds."""
    files = [str(path) for path in place.rglob("*") if "mopo-tmp" in path.name]
    files += [str(path) for path in place.rglob(".state/**/*") if path.is_file() and path.parent.name != "finished"]
    end = time.monotonic() + 5
    while (orphans := at_work(place)) and time.monotonic() < end:
        time.sleep(0.05)
    return files + [f"process {pid}" for pid in orphans]


def prepare(root: Path) -> Site:
    """Run every stage undisturbed, one after another, and keep what was before each."""
    site = Site(root, root / "place")
    site.place.mkdir(parents=True)
    (site.place / "tiny.yaml").write_text(SETTINGS)
    for stage, line in LINES.items():
        shutil.copytree(site.place, site.root / "before" / stage)
        begun = time.monotonic()
        code = wait(start(site.place, line, fresh=False, save_always=False), 10 * HANG)
        if code != 0:
            raise SystemExit(f"{line}\nended with {code}:\n{(root / 'stderr').read_text()}")
        site.seconds[stage], site.digests[stage] = time.monotonic() - begun, digests(site.place)
        print(f"{stage}: {site.seconds[stage]:.1f} s, {len(site.digests[stage])} files", flush=True)
    return site


def trial(site: Site, stage: str, chance: random.Random, hits: Counter[Any]) -> tuple[list[Any], list[str]]:
    """Kill a stage up to three times, then let it end; who was hit by what, and what was wrong."""
    shutil.rmtree(site.place)
    shutil.copytree(site.root / "before" / stage, site.place)
    struck: list[Any] = []
    wrong, done, left = list[str](), False, chance.randint(1, 3)
    while not done and not wrong:
        who = min(("command", "helper") if stage in HELPED else ("command",), key=lambda who: hits[stage, who])
        signum, moment = chance.choice(list(ENDINGS)), chance.uniform(0, site.seconds[stage])
        hit, done, wrong = attempt(site, LINES[stage], chance, moment, signum if left > 0 else 0, who == "helper")
        left -= 1
        if hit:
            struck.append((stage, signum.name, who))
            hits[stage, who] += 1
    now, then = digests(site.place), site.digests[stage]
    different = [f"other bytes: {name}" for name in sorted({*now, *then}) if now.get(name) != then.get(name)]
    return struck, wrong + left_over(site.place) + different


def kills(options: argparse.Namespace) -> int:
    """Kill until so many signals have hit somebody; 1 where anything was wrong."""
    site = prepare(Path(tempfile.mkdtemp(prefix="mopo-kills-")).resolve())
    chance, hits, outcomes, kept = random.Random(options.seed), Counter[Any](), Counter[Any](), 0
    while hits.total() < options.count:
        stage = min(options.stages, key=lambda stage: hits[stage, "command"] + hits[stage, "helper"])
        struck, wrong = trial(site, stage, chance, hits)
        bytes_only = all(fault.startswith("other bytes") for fault in wrong)
        outcome = "equal" if not wrong else "different" if bytes_only else "other"
        outcomes.update((*place, outcome) for place in struck)
        if wrong:
            kept += 1
            shutil.copytree(site.place, site.root / "kept" / str(kept))
            shutil.copy(site.root / "stderr", site.root / "kept" / str(kept))
            print(f"{site.root}/kept/{kept}: {stage} hit by {struck}: {wrong}", flush=True)
    row = "{:14} {:8} {:8} {:>5} {:>5} {:>9} {:>5}"
    print(row.format("stage", "signal", "hit", "tried", *OUTCOMES))
    for place in sorted({key[:3] for key in outcomes}):
        counts = [outcomes[*place, outcome] for outcome in OUTCOMES]
        print(row.format(*place, sum(counts), *counts))
    print(f"seed {options.seed}: {hits.total()} kills, {kept} faults")
    if not kept:
        shutil.rmtree(site.root)
    return int(kept > 0)


def mutations(options: argparse.Namespace) -> int:
    """See `mutations.py`."""
    return int(import_module("mutations").mutations(options))


def tables(options: argparse.Namespace) -> int:
    """See `known_tables.py`."""
    return int(import_module("faults.known_tables").tables(options))


def main() -> int:
    """Parse the command line and run what it names."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("kills", help="kill every stage at random moments and start it again")
    command.add_argument("--count", type=int, default=300, help="signals that hit a process (default 300)")
    command.add_argument("--seed", type=int, default=0, help="of the moments, signals and processes (default 0)")
    command.add_argument("--stages", nargs="+", choices=LINES, default=list(LINES), help="default: all")
    command.set_defaults(run=kills)
    command = commands.add_parser("mutations", help="damage or edit files in bulk, each before a command that reads it")
    command.add_argument("--count", type=int, default=5000, help="files (default 5000)")
    command.add_argument("--seed", type=int, default=0, help="of the changes (default 0)")
    command.add_argument("--limit", type=int, default=60, help="seconds after which a command hangs (default 60)")
    command.set_defaults(run=mutations)
    command = commands.add_parser("tables", help="read tables of which the truth is known, some with a planted fault")
    command.add_argument("--count", type=int, default=1000, help="tables (default 1000)")
    command.add_argument("--seed", type=int, default=0, help="of the tables (default 0)")
    command.add_argument("--only", type=int, nargs="+", help="the numbers of tables, to make only these")
    command.set_defaults(run=tables)
    options = parser.parse_args()
    sys.path[:0] = [str(TREE), str(TREE / "tests")]
    for module in (
        ()
        if options.run is tables
        else ("torch._dynamo", "mujoco", "matplotlib.figure", *(f"mopo_cli.stages.{name}" for name in IMPORTS))
    ):
        import_module(module)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
