"""Everything that only a machine with an NVIDIA GPU can say, in ten minutes, one JSON file: `.ci/run gpu`.

It needs no network. Each step runs in a process of its own, which is ended when its time is up, so that a step that
crashes or hangs costs no other. The file is written after every step. `--device cpu --quick` takes the same path with
tiny sizes: what that says of speed means nothing, but it shows that no line here is broken.
"""

import argparse
import importlib
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

SECONDS = 540.0
"""What all steps may take together."""
BUDGETS = {"tests": 70, "parity": 110, "quickstart": 80, "bench": 100, "hopper": 100, "memory": 40, "resume": 40}
"""Seconds that each step may take, and what the steps before it have left; the functions of these names in `steps`."""
_LAST_LINES = 15


class Failed(Exception):
    """A step found something wrong."""


@dataclass
class Check:
    """What a step gets: the device, whether sizes are tiny, a folder that all steps share, and its seconds."""

    device: str
    quick: bool
    folder: Path
    seconds: float = 0.0
    name: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds until the step is ended."""
        return self.seconds - (time.monotonic() - self.started)

    def note(self, **values: Any) -> None:
        """Keep what the step has found, also if it is ended later."""
        self.figures |= values
        write(self.result, self.figures)

    @property
    def result(self) -> Path:
        """The file of what the step has found."""
        return self.folder / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """The file of what the step prints."""
        return self.folder / f"{self.name}.log"


Step = Callable[[Check], None]


def write(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file as a whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(document, indent=2) + "\n")
    part.replace(path)


def wait(pid: int, seconds: float) -> int | None:
    """The exit code of a child process (negative: ended by that signal), or None if it runs on after these seconds."""
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            return None
        time.sleep(0.02)


def fork(work: Callable[[], int | None], log: Path) -> int:
    """Start `work` in a process that prints to a file; returns its id. Its exit code is what `work` returns, or 1.

    Nothing here may touch the GPU before: CUDA does not work in a process forked after that.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings(action="ignore"):  # that there are threads: they do nothing yet
        pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
        code = work() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)


def run_step(step: Step, check: Check) -> dict[str, Any]:
    """Run a step in a process of its own: its status (ok, failed or timeout), its seconds and what it found."""
    started = check.started = time.monotonic()

    def work() -> int:
        os.setsid()  # what it starts is ended with it
        os.chdir(check.folder)
        os.environ["MOPO_HOME"] = str(check.folder / "home")
        os.environ.pop("MOPO_RUN", None)
        try:
            step(check)
        except Failed as error:
            check.note(why=str(error))
            return 1
        return 0

    pid, code = fork(work, check.log), None
    try:
        code = wait(pid, check.seconds)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        if code is None:
            os.kill(pid, signal.SIGKILL)  # where it has no group of its own yet
            os.waitpid(pid, 0)
    result = json.loads(check.result.read_text()) if check.result.exists() else {}
    status = "timeout" if code is None else "failed" if code else "ok"
    if status != "ok":
        result.setdefault("why", "its time was up" if code is None else f"it ended with {code}")
        result["log"] = check.log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    return {"status": status, "seconds": round(time.monotonic() - started, 1), **result}


def about(check: Check) -> None:
    """The step before all others: the machine and the versions; Failed where the device cannot be used."""
    import torch

    import mopo_cli

    try:
        torch.zeros(1, device=check.device)
    except (AssertionError, RuntimeError) as error:
        raise Failed(str(error).splitlines()[0].split(". ")[0].rstrip(".")) from error
    name = platform.processor()
    if check.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        name = properties.name
        check.note(capability=[properties.major, properties.minor], memory_bytes=properties.total_memory)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "cuda": torch.version.cuda}
    check.note(device=check.device, name=name, mopo=mopo_cli.__version__, **versions)


def main(argv: list[str] | None = None) -> int:
    """Run all steps and write the file; 0 if all are ok, 1 if one is not, 2 without a usable device."""
    parser = argparse.ArgumentParser(prog=".ci/run gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="what all steps may take together")
    parser.add_argument("--output", type=Path, default=Path("gpu-check.json"))
    options = parser.parse_args(argv)
    begun = time.monotonic()
    try:
        steps = importlib.import_module("gpu.steps")
    except ImportError as error:
        print(f".ci/run gpu: {error}; install mopo's packages first (pip install '.[test]')", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        machine = run_step(about, Check(options.device, options.quick, folder, 60.0, "about"))
        if machine["status"] != "ok":
            what = "CUDA device" if options.device == "cuda" else options.device
            print(
                f"no {what} is usable here: {machine['why']}; run this on a machine with an NVIDIA GPU",
                file=sys.stderr,
            )
            return 2
        document: dict[str, Any] = {"about": machine, "quick": options.quick, "ok": False, "steps": {}}
        for step, budget in zip(BUDGETS, accumulate(BUDGETS.values()), strict=True):
            seconds = begun + min(budget, options.seconds) - time.monotonic()
            if seconds <= 0:
                result: dict[str, Any] = {"status": "skipped", "why": f"the {options.seconds:g} seconds were over"}
            else:
                check = Check(options.device, options.quick, folder, seconds, step)
                result = run_step(getattr(steps, step), check)
            document["steps"][step] = result
            document["ok"] = all(document["steps"].get(each, {}).get("status") == "ok" for each in BUDGETS)
            write(options.output, document)
            print(f"{step:12}{result['status']:9}{result.get('seconds', 0):6} s  {result.get('why', '')}", flush=True)
    print(f"all is in {options.output}")
    return 0 if document["ok"] else 1
