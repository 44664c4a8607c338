"""The library of each kind of product on this machine: measured once and kept in the cache, named, or resumed."""

import hashlib
import json
import platform
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mopo_cli.errors import CorruptError, InputError, UsageError
from mopo_cli.nets import libraries
from mopo_cli.nets.fastest import Measured, fastest
from mopo_cli.nets.libraries import KINDS, LIBRARIES, all_by, named
from mopo_cli.nets.products import possible, usual
from mopo_cli.report.console import Report
from mopo_cli.store.atomic import write_json
from mopo_cli.store.documents import MeasuredProducts, read_document
from mopo_cli.store.run import cache_dir

AUTO = "auto"


def use_products(name: str) -> None:
    """Multiply by the libraries that --products names, `auto` being the faster ones here.

    UsageError where this machine does not have the library.
    """
    if name == AUTO:
        libraries.use(measured_here().choice)
        return
    (library,) = (one for one in LIBRARIES if one == name)
    choice = all_by(library)
    if possible(choice)["float32 layer"] != library:
        raise UsageError(f"--products {name}: torch has no oneDNN for this processor.", hint="--products mkl")
    libraries.use(possible(choice))


def resume_products(recorded: Any, asked: str, what: str, report: Report) -> None:
    """Multiply as an interrupted stage did, so that its bits hold, and say so where that is not to be.

    `recorded` is what its checkpoint says; one from before products were chosen says nothing. --products counts more,
    if it was `asked` for.
    """
    present = libraries.in_use()
    if present is None:  # a GPU multiplies
        return
    begun = usual()
    if isinstance(recorded, dict):
        begun = {kind: "onednn" if recorded.get(kind) == "onednn" else "mkl" for kind in KINDS}
    if asked != AUTO:
        if begun != present:
            report.warn(
                f"{what} was begun with --products {named(begun)} and goes on with --products {asked}: the result "
                "differs from an uninterrupted run's in the last bits."
            )
        return
    libraries.use(possible(begun))
    if possible(begun) != begun:
        report.warn(
            f"{what} was begun with oneDNN's products, which torch does not have for this processor; it goes on with "
            "MKL's, and the result differs from an uninterrupted run's in the last bits."
        )


def measured_here() -> Measured:
    """What was measured on a machine like this with this torch; measured now where the cache does not have it."""
    machine = _machine()
    with suppress(InputError, CorruptError):
        kept = read_document(_file(machine), MeasuredProducts)
        if kept["machine"] == machine:
            return Measured(possible(kept["choice"]), kept["speeds"])
    # What other work takes of the processor is no time of this thread; on Windows that clock is too coarse.
    measured = fastest(time.perf_counter if sys.platform == "win32" else time.thread_time, time.perf_counter)
    with suppress(InputError):  # without a place to keep it, the next command measures again
        write_json(_file(machine), {"machine": machine, **asdict(measured)})
    return measured


def _machine() -> dict[str, Any]:
    """What decides which library is faster. Not the number of threads: each multiplies alone, and results are equal."""
    about: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    processor = {name: value for name, value in about.items() if not name.startswith("num_")}
    where = [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()]
    return {"torch": torch.__version__, "processor": processor, "machine": where, "kinds": list(KINDS)}


def _file(machine: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(machine, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "products" / f"{digest[:12]}.json"
