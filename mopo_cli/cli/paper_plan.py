"""The plan of a table of a paper: a run per data set, and the settings of everything made in it.

And how it differs from the paper's: smaller, other settings, or one model for all seeds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mopo_cli.cli.context import Context, settle
from mopo_cli.cli.options import Call
from mopo_cli.config.ablation import named_after, set_by_user, set_for_all
from mopo_cli.config.checks import stage_name
from mopo_cli.config.fields import Settings, written
from mopo_cli.config.paper_tables import PaperTable, Row
from mopo_cli.config.resolve import refuse_contradiction, resolve
from mopo_cli.config.schema import Ablate, PolicyTraining, SelectElites, TrainModel, TrainPolicy
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import UsageError
from mopo_cli.evaluation.published import family
from mopo_cli.store.documents import as_key
from mopo_cli.store.run import dataset_slug, named_run

if TYPE_CHECKING:
    from mopo_cli.stages.ablation.paper_table import Part
    from mopo_cli.stages.common.options import Options

# Seeds have a remark of their own, and names change no result.
_NOT_COMPARED = ("seeds", "seed_list", "name", "dataset", "env")


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
                raise UsageError(f"--{name}: a cell of {table.name} has one {name}, not {written(values)}.")
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


def table_remarks(full: PaperTable, table: PaperTable, plans: list[Plan]) -> list[str]:
    """A sentence for each way in which ``table``, the chosen part of ``full``, is not as in the paper."""
    named = dict.fromkeys(plan.context.preset for plan in plans if plan.context.preset)
    presets = [f"Settings of every data set from the preset {preset}" for preset in named]
    return [*_smaller(full, table, plans), *presets, *_changed(plans), *_one_model(plans)]


def _smaller(full: PaperTable, table: PaperTable, plans: list[Plan]) -> list[str]:
    paper_seeds = {row.label: full.seeds_for(row) for row in full.rows}
    seeds = {(len(cell.all_seeds()), paper_seeds[label]) for plan in plans for label, cell in plan.part.cells.items()}
    families = {plan.part.dataset: family(parse_dataset(plan.part.dataset).dataset_id) for plan in plans}
    updates = {
        (cell.updates, full.updates_for(families[plan.part.dataset]))
        for plan in plans
        for cell in plan.part.cells.values()
    }
    datasets = {plan.part.dataset for plan in plans} & set(full.datasets)
    counts = [
        *((*pair, "seeds") for pair in sorted(seeds)),
        *((*steps, "updates") for steps in sorted(updates)),
        (len(datasets), len(full.datasets), "data sets"),
        (len(table.rows), len(full.rows), "rows"),
    ]
    fewer = [f"{have:,} of {of:,} {what}" for have, of, what in counts if have < of]
    return [f"Smaller than the paper's (*): {', '.join(fewer)}"] if fewer else []


def _changed(plans: list[Plan]) -> list[str]:
    changes: dict[str, dict[tuple[str, str], set[str]]] = {}
    for plan in plans:
        for stage, name, value, without in _differences(plan):
            changes.setdefault(stage, {}).setdefault((name, value), set()).add(without)
    return [
        f"Other settings, {stage}: "
        + ", ".join(f"{name} {value} instead of {' or '.join(sorted(old))}" for (name, value), old in changed.items())
        for stage, changed in changes.items()
    ]


def _differences(plan: Plan) -> Iterator[tuple[str, str, str, str]]:
    """Stage, setting, its value, and its value without the user's flags and file."""
    from mopo_cli.stages.fetch_data import unused_settings

    ignored = {*_NOT_COMPARED, *unused_settings(parse_dataset(plan.part.dataset))}
    pairs: list[tuple[Settings, Settings, set[str]]] = [
        (plan.fetch[0], plain_settings(FetchData, plan.context, {"dataset": plan.part.dataset}), ignored),
        (plan.model[0], plain_settings(TrainModel, plan.context, {}), {"seeds", "seed_list"}),
        (plan.elites[0], plain_settings(SelectElites, plan.context, {}), set()),
        *((plan.part.cells[label], cell, {*_NOT_COMPARED}) for label, cell in plan.plain.items()),
    ]
    for now, plain, left_out in pairs:
        for name in sorted(set(type(now).model_fields) - left_out):
            value, without = getattr(now, name), getattr(plain, name)
            if value != without:
                yield stage_name(type(now)), as_key(name), written(value), written(without)


def _one_model(plans: list[Plan]) -> list[str]:
    models = {len(plan.model[0].all_seeds()) for plan in plans if any(c.needs_model for c in plan.part.cells.values())}
    seeds = {len(cell.all_seeds()) for plan in plans for cell in plan.part.cells.values()}
    if models == {1} and seeds and max(seeds) > 1:
        return ["All seeds of a cell use one model (train-model: seeds 1), so ± excludes differences between models"]
    return []
