"""How our table of a paper differs from the paper's: smaller, other settings, or one model for all seeds."""

from collections.abc import Iterator

from mopo_cli.cli.options import show
from mopo_cli.cli.paper_plan import Plan, plain_settings
from mopo_cli.config.checks import stage_name
from mopo_cli.config.fields import Settings
from mopo_cli.config.paper_tables import PaperTable
from mopo_cli.config.schema import FetchData, SelectElites, TrainModel
from mopo_cli.data.registry import parse_dataset
from mopo_cli.evaluation.published import family

# Seeds have a remark of their own, and names change no result.
_NOT_COMPARED = ("seeds", "seed_list", "name", "dataset", "env")


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
                yield stage_name(type(now)), name.replace("_", "-"), show(value), show(without)


def _one_model(plans: list[Plan]) -> list[str]:
    models = {len(plan.model[0].all_seeds()) for plan in plans if any(c.needs_model for c in plan.part.cells.values())}
    seeds = {len(cell.all_seeds()) for plan in plans for cell in plan.part.cells.values()}
    if models == {1} and seeds and max(seeds) > 1:
        return ["All seeds of a cell use one model (train-model: seeds 1), so ± excludes differences between models"]
    return []
