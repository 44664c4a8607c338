"""The plan of a table of a paper: a run per data set, and the settings of everything made in it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.cli.context import Context, settle
from mopo_cli.cli.options import Call, show
from mopo_cli.config.ablation import named_after, set_by_user, set_for_all
from mopo_cli.config.paper_tables import PaperTable, Row
from mopo_cli.config.resolve import refuse_contradiction, resolve
from mopo_cli.config.schema import Ablate, FetchData, PolicyTraining, SelectElites, TrainModel, TrainPolicy
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import UsageError
from mopo_cli.evaluation.published import family
from mopo_cli.store.run import dataset_slug, named_run

if TYPE_CHECKING:
    from mopo_cli.stages.ablation.paper_table import Part
    from mopo_cli.stages.runner import Options


@dataclass(frozen=True)
class Plan:
    """What to do for one data set, with all settings resolved."""

    part: "Part"
    plain: dict[str, TrainPolicy]
    """The cells' settings without the user's flags and file."""
    context: Context
    fetch: "tuple[FetchData, Options]"
    model: "tuple[TrainModel, Options]"
    elites: "tuple[SelectElites, Options]"
    ablation: "tuple[Ablate, Options]"


def plan_dataset(call: Call, table: PaperTable, root: Path, dataset: str, env: str | None) -> Plan:
    """The plan for one data set of a table, in a run under ``root``; ``env`` is the environment of a data file.

    Raises what resolving the settings raises, InputError for an unknown data set or a missing file.
    """
    from mopo_cli.stages.ablation.paper_table import Part
    from mopo_cli.stages.fetch_data import check_request

    name = parse_dataset(dataset)
    run = named_run(root / dataset_slug(dataset))
    context = Context(call, run, dataset, call.preset)
    flags = {"dataset": dataset} | ({"env": env} if env and name.path else {})
    fetching, options = settle(call, FetchData, dataset, call.preset, flags)
    check_request(name, fetching)
    if call.preset:  # the run keeps it, as after fetch-data --preset
        options = replace(options, origins={**options.origins, "preset": f"preset {call.preset}"})
    ablation, ablation_options = context.settle(Ablate, call.flags)
    origins = ablation_options.origins
    shared, seeded = _shared(call, ablation, origins, table), bool({"seeds", "seed_list"} & set_by_user(origins))
    rows = [row for row in table.rows_for(family(name.dataset_id)) if row.method]
    for row in rows:
        refuse_contradiction(TrainPolicy, str(row.method), {**shared, **row.settings}, f"The table {table.name}")
    # The paper's number of seeds unless the user set one.
    common = {row.label: shared if seeded else {**shared, "seeds": table.seeds_for(row)} for row in rows}
    cells = {
        row.label: _cell(context.settle(TrainPolicy, {**common[row.label], **_row_flags(row)})[0], row) for row in rows
    }
    return Plan(
        Part(dataset, run, cells),
        {row.label: plain_settings(TrainPolicy, context, _row_flags(row)) for row in rows},
        context,
        (fetching, replace(options, force=False)),
        _unforced(context.settle(TrainModel)),
        _unforced(context.settle(SelectElites)),
        (ablation.model_copy(update={"name": table.name}), ablation_options),
    )


def _shared(call: Call, ablation: Ablate, origins: dict[str, str], table: PaperTable) -> dict[str, Any]:
    """What the user set for every cell."""
    for_all = set_for_all(origins)
    shared = {name: getattr(ablation, name) for name in PolicyTraining.model_fields if name in for_all}
    for name in ("lam", "h"):
        if name in call.flags:
            if len(values := getattr(ablation, name)) > 1:
                raise UsageError(f"--{name}: a cell of {table.name} has one {name}, not {show(values)}.")
            shared[name] = values[0]
    return shared


def _row_flags(row: Row) -> dict[str, Any]:
    return {**row.settings, "method": row.method}


def _cell(settings: TrainPolicy, row: Row) -> TrainPolicy:
    """The same, named after the settings that distinguish the row from others of its method."""
    marks = [name for name in row.settings if name not in ("h", "lam")]
    return settings.model_copy(update={"name": named_after(settings, marks)})


def plain_settings(stage: type[Any], context: Context, flags: dict[str, Any]) -> Any:
    """A stage's settings without the user's flags and file."""
    preset, data_file = context.preset, context.has_data_file
    return resolve(stage, dataset=context.dataset, preset_name=preset, flags=flags, data_file=data_file).settings


def _unforced(resolved: "tuple[Any, Options]") -> "tuple[Any, Options]":
    """--force is for the cells; data and model are only remade if they are not up to date."""
    return resolved[0], replace(resolved[1], force=False)
