"""The steps of `gpu.check`: each notes what it finds, and raises `Failed` where that is wrong."""

import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as Xml
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from gpu.check import Check, Failed, fork, wait
from gpu.inputs import HOPPER, random_data, recorder_of, run_mopo, settings_of, shapes_of, sizes_file
from gpu.parity import ALIKE, difference, parity
from gpu.profiles import profiled

from mopo_cli.bench.workloads import Shapes, model_training, taking
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.parallel import use_threads
from mopo_cli.engine.rows import RowLayout
from mopo_cli.stages.common import saving
from mopo_cli.stages.common.memory_estimates import model_bytes, policy_bytes
from mopo_cli.stages.common.open_world import uncertainty_names
from mopo_cli.stages.runner import Stage
from mopo_cli.store.atomic import read_json
from mopo_cli.store.checkpoint import load_tensors

__all__ = ["bench", "hopper", "memory", "parity", "quickstart", "resume", "tests"]

ROOT = Path(__file__).parents[2]
EPOCHS = 20
_LOW, _HIGH = 1 / 3, 1.1  # what an estimate may be of the memory that is taken


def tests(check: Check) -> None:
    """The tests marked `gpu`."""
    report, paths = check.folder / "tests.xml", ["tests/stages/test_inputs.py"] if check.quick else ["tests"]
    flags = ["-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([sys.executable, "-m", "pytest", *flags, *paths], cwd=ROOT)
    suite = next(Xml.parse(report).iter("testsuite")).attrib
    counts = {name: int(suite[name]) for name in ("tests", "failures", "errors", "skipped")}
    check.note(**counts)
    if done.returncode or (check.device == "cuda" and counts["skipped"]):
        raise Failed(f"pytest ended with {done.returncode}: {counts}")


def quickstart(check: Check) -> None:
    """`mopo run quickstart`, and what its policies return."""
    started = time.monotonic()
    run_mopo(check, f"run quickstart {f'--config {sizes_file(check)}' if check.quick else ''}")
    (evaluation,) = Path("runs/quickstart/evaluations").glob("*.json")
    check.note(run_seconds=round(time.monotonic() - started, 1), evaluation=read_json(evaluation))


def bench(check: Check) -> None:
    """`mopo bench` with stacks of several sizes."""
    stacks: dict[str, Any] = {}
    how = f"--config {sizes_file(check)} --rows 1000 --seconds 0.1 --preset generate-InvertedPendulum-v5-random"
    for seeds in (2,) if check.quick else (1, 6, 24):
        run_mopo(check, f"bench --seeds {seeds} --output bench.json {how if check.quick else '--seconds 0.5'}")
        result = read_json(Path("bench.json"))
        rates = {name: rate["per_second"] for name, rate in result["rates"].items()}
        notes = {name: rate["note"] for name, rate in result["rates"].items() if rate["note"]}
        stacks[str(seeds)] = {"rates": rates, "notes": notes, "peak_bytes": result["peak_bytes"]}
        check.note(seeds=stacks)


def hopper(check: Check) -> None:
    """Profiles of gradient steps, then `train-model` and `train-policy` on random data of hopper's shapes."""
    use_threads(1)
    (model, policy), shapes, device = settings_of(check), shapes_of(check), torch.device(check.device)
    profiles: dict[str, Any] = {}
    for engine, recorder in (("recorded", recorder_of(check)), ("eager", None)):
        fit, taken = model_training(model, shapes, device, recorder)
        profiles[f"train-model, {engine}"] = {**profiled(fit, 50, device), "doubt": taken.why_eager}
        with taking(policy, shapes, 1, device, record=recorder) as (loop, take, steps):
            profiles[f"train-policy, {engine}"] = {**profiled(take, steps, device), "doubt": loop.engine.why_eager}
        check.note(profiles=profiles)
    # Half of the time that is left is for the policy; rollouts are made every epoch.
    rate = profiles["train-policy, recorded"]["updates_per_second"]
    epochs, most = (2, policy.steps_per_epoch) if check.quick else (EPOCHS, 1000)
    per_epoch = max(10, min(most, int(rate * check.left / 2 / epochs) // 10 * 10))
    check.note(rows=shapes.rows, epochs=epochs, steps_per_epoch=per_epoch, full_epochs=per_epoch == 1000)
    random_data(check)
    lines = {
        "train-model": f"--max-epochs {epochs} --patience 1000",
        "select-elites": "",
        "train-policy": f"--epochs {epochs} --steps-per-epoch {per_epoch} --rollout-every {per_epoch} --eval-every 0",
    }
    for stage, flags in lines.items():
        started = time.monotonic()
        run_mopo(check, f"{stage} --run runs/hopper --config {sizes_file(check)} {flags}")
        check.note(**{f"{stage}_seconds": round(time.monotonic() - started, 2)})


def memory(check: Check) -> None:
    """The most memory that training takes on the device, beside the tool's estimate."""
    (model, policy), shapes, device = settings_of(check), shapes_of(check), torch.device(check.device)
    random_data(check)
    wide = shapes.obs_dim + shapes.act_dim, shapes.obs_dim + 1
    trained = "train-model", "--max-epochs 1", model_bytes(model, shapes.rows, *wide, device)
    needed: list[tuple[str, str, dict[str, int]]] = [trained]
    per_epoch = policy.steps_per_epoch if check.quick else 100
    for seeds, method in ((1, "mopo"), (6, "mopo"), (1, "combo")):
        flags: dict[str, Any] = {"method": method, "seeds": str(seeds)}
        some = resolve(TrainPolicy, config_file=sizes_file(check), flags=flags).settings
        rows = RowLayout(shapes.obs_dim, shapes.act_dim, len(uncertainty_names(some, [some.penalty])))
        schedule = f"--epochs 1 --steps-per-epoch {per_epoch} --rollout-every {per_epoch} --eval-every 0"
        line = f"--method {method} --seeds {seeds} --name {method}-{seeds} {schedule}"
        estimate = policy_bytes(some, rows, shapes.rows, device, 0, some.h, seeds)
        needed.append((f"train-policy, {method}, {seeds} seeds", line, estimate))
    result, wrong = {}, []
    for name, line, estimate in needed:
        gc.collect()
        if check.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        run_mopo(check, f"{name.split(',')[0]} {line} --run runs/hopper --config {sizes_file(check)} --force")
        if name == "train-model":
            run_mopo(check, f"select-elites --run runs/hopper --config {sizes_file(check)} --force")
        peak, total = _peak_bytes(check), sum(estimate.values())
        result[name] = {"peak_bytes": peak, "estimate_bytes": total, "share": total / peak, "parts": estimate}
        check.note(memory=result)
        if check.device == "cuda" and not _LOW <= total / peak <= _HIGH:
            wrong.append(f"{name}: the estimate is {total / peak:.2f} of what is taken")
    if wrong:
        raise Failed("; ".join(wrong))


def resume(check: Check) -> None:
    """`train-policy` killed in the middle and continued ends as one that was not."""
    few = "" if check.quick else "--epochs 3 --steps-per-epoch 200 --rollout-every 200 --rollout-batch 1000"
    line = f"train-policy --seeds 2 --eval-every 0 --config {sizes_file(check)} {few}"

    def prepare() -> None:
        random_data(check, "runs/whole", Shapes(HOPPER.obs_dim, HOPPER.act_dim, 2000))
        run_mopo(check, f"train-model --max-epochs 1 --run runs/whole --config {sizes_file(check)}")
        run_mopo(check, f"select-elites --run runs/whole --config {sizes_file(check)}")

    def killed() -> None:
        saves, save = count(1), Stage.save_state
        last = 2 if check.quick else 4

        def save_until(stage: Stage, *state: Any) -> None:
            if next(saves) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            save(stage, *state)

        vars(saving).update(SAVE_SECONDS=-1.0, SAVE_SHARE=float("inf"))  # after every block
        setattr(Stage, "save_state", save_until)  # noqa: B010
        run_mopo(check, f"{line} --run runs/killed")

    _apart(check, prepare, 0)
    shutil.copytree("runs/whole", "runs/killed")
    _apart(check, killed, -signal.SIGKILL)
    check.note(checkpoints=len(list(Path("runs/killed/.state").rglob("checkpoint.safetensors"))))
    for run in ("killed", "whole"):
        _apart(check, partial(run_mopo, check, f"{line} --run runs/{run}"), 0)
    resumed = "training goes on at gradient step" in check.log.read_text()
    policies = [sorted(Path("runs", run).rglob("policy.safetensors")) for run in ("killed", "whole")]
    off = [difference(load_tensors(one)[0], load_tensors(other)[0]) for one, other in zip(*policies, strict=True)]
    check.note(resumed=resumed, differences=off)
    if not resumed:
        raise Failed("the killed training began anew")
    if len(off) != 2 or max(off) > (ALIKE if check.device == "cuda" else 0.0):
        raise Failed(f"the resumed policies differ by {off}")


def _apart(check: Check, work: Callable[[], None], expected: int) -> None:
    """Do something in a process of its own, on a GPU that this one has not touched, that must end with this code."""
    code = wait(fork(work, check.log), check.left)
    if code != expected:
        raise Failed(f"a process ended with {code}, not {expected}")


def _peak_bytes(check: Check) -> int:
    if check.device == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
