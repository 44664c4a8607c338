"""``mopo fetch-data``"""

from dataclasses import replace

from mopo_cli.cli.context import fetched, settle
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import FetchData
from mopo_cli.errors import InputError
from mopo_cli.store.run import resolve_run

EXAMPLES = (
    "mopo fetch-data --dataset generate:InvertedPendulum-v5:random --transitions 20000",
    "mopo fetch-data --dataset ./my-logs.h5 --env Hopper-v5",
)


@command(FetchData, without=("device", "threads", "allow_mismatch"))
def fetch_data(call: Call) -> None:
    """Bring the data: generate a set or read a file, check every column, write dataset.h5."""
    from mopo_cli.stages.fetch_data import run_fetch_data

    settings, options = settle(call, FetchData, _held_dataset(call), call.preset, call.flags)
    held = options.origins["dataset"] == "run"
    run = resolve_run(call.run, None if held else settings.dataset)
    if call.preset:  # the run keeps it, even where flags beat all it says of the data
        options = replace(options, origins={**options.origins, "preset": f"preset {call.preset}"})
    call.report.result(run_fetch_data(run, settings, options, call.report))


def _held_dataset(call: Call) -> str | None:
    """The data set that the named or current run holds already, None where there is none."""
    if call.dataset:
        return None
    try:
        record = fetched(resolve_run(call.run, None))
    except InputError:
        return None
    return str(record.settings["dataset"]) if record else None
