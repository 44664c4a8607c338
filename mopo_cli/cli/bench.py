"""``mopo bench``: how fast is this machine, and how long would a run take?"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mopo_cli.agents.algorithms import NAMES
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.config.fields import MOST_SEEDS
from mopo_cli.config.presets import find_preset, method_names, preset_dataset
from mopo_cli.config.resolve import resolve
from mopo_cli.config.schema import TrainModel, TrainPolicy
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import CorruptError, InputError, UsageError
from mopo_cli.nets.libraries import LIBRARIES
from mopo_cli.report import Report
from mopo_cli.store.atomic import read_json, write_json

if TYPE_CHECKING:
    from mopo_cli.bench.measure import Task
    from mopo_cli.bench.rates import Rate
    from mopo_cli.bench.run_time import Projection

EXAMPLES = (
    "mopo bench",
    "mopo bench --preset walker2d-medium --seeds 6 --device cuda",
    "mopo bench --methods all",
    "mopo bench --output before.json",
    "mopo bench --compare before.json",
)

_PRESET = "hopper-medium-replay"
_WIDTH = 55  # of the longest name of a rate and its unit
_SPREAD = 13  # of what is said where it is not steady

Seeds = Annotated[int, typer.Option("--seeds", help="policies to train together", metavar="INT", min=1, max=MOST_SEEDS)]
Rows = Annotated[int, typer.Option("--rows", help="transitions in the data", metavar="INT", min=1000, max=10**15)]
Seconds = Annotated[float, typer.Option("--seconds", help="seconds per measurement", metavar="FLOAT", min=0.1)]
Methods = Annotated[str | None, plain_option("--methods", "also measure the updates of these methods", "A,B,...|all")]
Output = Annotated[Path | None, plain_option("--output", "write the result to this file", "FILE.json")]
Compare = Annotated[Path | None, plain_option("--compare", "compare with an earlier --output", "FILE.json")]


@command(without=("run", "force", "allow_mismatch", "log"))
def bench(
    call: Call,
    seeds: Seeds = 3,
    rows: Rows = 200_000,
    seconds: Seconds = 3.0,
    methods: Methods = None,
    output: Output = None,
    compare: Compare = None,
) -> None:
    """Measure the training speed of this machine and estimate how long a run takes; downloads nothing."""
    from mopo_cli.agents.parallel_members import crew_size
    from mopo_cli.bench.run_time import check_room
    from mopo_cli.engine.parallel import thread_count
    from mopo_cli.stages.common.device import open_device, open_recorder
    from mopo_cli.stages.common.watch import free_processes
    from mopo_cli.store.lineage import tool_versions

    before = _earlier(compare)
    task, preset = _task(call, rows, methods)
    device = open_device(call.options)
    check_room(task, seeds, device)
    record, threads = open_recorder(call.options, device), thread_count()
    engine = "eager" if record is None else "compile" if call.options.engine == "compile" else "cudagraph"
    about = {
        "preset": preset,
        "device": str(device),
        "engine": engine,
        "threads": threads,
        "seeds": seeds,
        "rows": rows,
    }
    if compare is not None and before is not None:
        _check_alike(compare, before, about)
    products = _products(call)
    size = crew_size(seeds, device)
    processes = free_processes(call.options, device, seeds, size)
    rates, projection = _measure(task, seeds, device, seconds, record, processes, call.report)
    result: dict[str, Any] = {
        **about,
        "versions": tool_versions(),
        "products": products,
        "rates": {rate.name: {**asdict(rate), "share": rate.share} for rate in rates},
        "projection": {**asdict(projection), "total_seconds": projection.total_seconds},
        "peak_bytes": _peak_bytes(device),
    }
    _show(result, before, call.report)
    if output is not None:
        write_json(output, result)
    call.report.result(result, _summary(result))


def _task(call: Call, rows: int, methods: str | None) -> "tuple[Task, str | None]":
    """What to measure: the preset or data set of the call, else hopper's, and further methods."""
    from mopo_cli.bench.measure import Task
    from mopo_cli.bench.workloads import Shapes
    from mopo_cli.data.spaces import spaces_of_id

    preset = call.preset or (find_preset(call.dataset) if call.dataset else _PRESET)
    name = parse_dataset(call.dataset or preset_dataset(str(preset)))
    if name.env_id is None:
        raise InputError(
            f"The size of the observations of {name.dataset_id} is not known before it is fetched.",
            hint="mopo bench --preset hopper-medium, or another preset with observations of that size",
        )
    about: Any = {"dataset": call.dataset, "preset_name": preset, "config_file": call.config}
    fetching = resolve(FetchData, **about, flags={"dataset": call.dataset or preset_dataset(str(preset))}).settings
    kwargs = {**name.env_kwargs, **(fetching.env_kwargs or {})}
    spaces = spaces_of_id(name.env_id, kwargs)
    model = resolve(TrainModel, **about, method=call.method).settings
    policy = resolve(TrainPolicy, **about, method=call.method).settings
    shapes = Shapes(spaces.obs_dim, spaces.act_dim, rows)
    others = {method: resolve(TrainPolicy, **about, method=method).settings for method in _methods(methods)}
    return Task(shapes, name.env_id, kwargs, model, policy, others), preset


def _methods(text: str | None) -> list[str]:
    """The methods in ``text``; "all" means the method named after each algorithm."""
    if text != "all":
        return [method.strip() for method in text.split(",")] if text else []
    return [name for name in method_names() if name in NAMES]


def _measure(
    task: "Task", seeds: int, device: Any, seconds: float, record: Any, processes: int, report: Report
) -> "tuple[list[Rate], Projection]":
    from mopo_cli.bench.measure import measure
    from mopo_cli.bench.run_time import project
    from mopo_cli.bench.timing import spread_in_words
    from mopo_cli.evaluation.play import time_limit

    rates = []
    with report.live_table(
        ("what", "per second", f"{'IQR':>{_SPREAD}}", "ceiling", f"{'IQR':>{_SPREAD}}", "of the ceiling")
    ) as table:
        for rate in measure(task, seeds, device, seconds, record):
            rates.append(rate)
            what = f"{rate.name} ({rate.unit})".rjust(_WIDTH)
            measured = (rate.per_second, spread_in_words(rate.spread))
            ceiling = (rate.ceiling, spread_in_words(rate.ceiling_spread))
            table.row(what, *measured, *ceiling, None if rate.share is None else f"{rate.share:.0%}")
            if rate.note is not None:
                report.say(f"{rate.name}: steps run eagerly, which is slower: {rate.note}")
    episode = time_limit(task.env_id, task.env_kwargs) or 1000
    return rates, project(task, seeds, rates, episode, processes)


def _products(call: Call) -> dict[str, Any] | None:
    """The library of each kind of product, and what each made of them a second where that was measured."""
    from mopo_cli.nets.libraries import in_use
    from mopo_cli.stages.common.chosen_products import AUTO, measured_here

    choice = in_use()
    if choice is None:
        return None
    speeds: Any = measured_here().speeds if call.options.products == AUTO else {}
    rows = [(kind, *(speeds.get(kind, {}).get(name) for name in LIBRARIES), chosen) for kind, chosen in choice.items()]
    title = "Products: billion operations a second on one thread, measured once on this machine"
    call.report.table(title if speeds else "Products", ("kind", *LIBRARIES, "by"), rows)
    return {"choice": choice, "speeds": speeds}


def _earlier(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    result = read_json(path)
    try:
        rates = [rate["per_second"] for rate in result["rates"].values()]
    except (AttributeError, LookupError, TypeError):
        rates = [None]
    if not all(isinstance(rate, int | float) and rate > 0 for rate in rates):
        raise CorruptError(f"{path} is not a result of mopo bench.", hint="mopo bench --output FILE.json")
    measured: dict[str, Any] = result
    return measured


def _check_alike(path: Path, before: dict[str, Any], about: dict[str, Any]) -> None:
    if differing := [name for name, value in about.items() if before.get(name) != value]:
        name = differing[0]
        raise UsageError(
            f"{path} was measured with {name} {before.get(name)}, but now {name} is {about[name]}.",
            hint="compare runs with the same settings on the same machine",
        )


def _show(result: dict[str, Any], before: dict[str, Any] | None, report: Report) -> None:
    hours = [(name, seconds / 3600) for name, seconds in result["projection"]["seconds"].items()]
    report.table(f"A run of {result['preset']} with {result['seeds']} seeds, estimated", ("what", "hours"), hours)
    if before is None:
        return
    then = {name: rate["per_second"] for name, rate in before["rates"].items()}
    now = {name: rate["per_second"] for name, rate in result["rates"].items() if name in then}
    ratios = [(name, then[name], value, value / then[name]) for name, value in now.items()]
    report.table("Then and now", ("what", "then", "now", "ratio"), ratios)


def _summary(result: dict[str, Any]) -> str:
    projection, threads = result["projection"], f"{result['threads']} threads"
    memory = sum(projection["bytes"].values()) / 1e9
    return (
        f"A run of {result['preset']} with {result['seeds']} seeds on {result['device']} ({threads}): about "
        f"{projection['total_seconds'] / 3600:.1f} hours and {memory:.1f} GB for data and pools; "
        f"this benchmark itself took {result['peak_bytes'] / 1e9:.1f} GB at most."
    )


def _peak_bytes(device: Any) -> int:
    import resource
    import sys

    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
