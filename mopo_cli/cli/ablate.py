"""``mopo ablate``"""

from typing import Annotated, Any

from mopo_cli.cli.context import Context, open_context
from mopo_cli.cli.elsewhere import OPTIONS, make_or_plan, open_hand_out
from mopo_cli.cli.methods import ablate_by_model
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.config.ablation import check_grid, grid, method_cells
from mopo_cli.config.schema import Ablate, TrainPolicy
from mopo_cli.errors import UsageError

EXAMPLES = (
    "mopo ablate --penalty max-var,none --lam 0.5,1,5 --h 1,5 --seeds 3",
    "mopo ablate --method mopo,mbpo,sac-off,bc --seeds 3 --rank offline",
    "mopo ablate --penalty max-var,none --lam 0.5,1,5 --rank ope",
    "mopo ablate --method combo --grid beta=0.5,1,5 --grid real-ratio=0.5,0.8 --eval-every 0 --rank combo",
    "mopo ablate --table mopo-1 --on ray://head:10001",
    "mopo ablate --lam 0.5,1,5 --on slurm --slurm partition=gpu --gpus-per-job 1",
    "mopo ablate --lam 0.5,1,5 --plan jobs.txt",
    "mopo ablate --table mopo-3 --datasets ./my-logs.h5 --env Hopper-v5 --seeds 3 --epochs 100",
)

_LONGEST_NAME = 200  # file systems end at 255
_TABLES = "Tables of the papers"
Table = Annotated[
    str | None,
    plain_option("--table", "make a table of a paper (mopo presets tables)", "NAME", _TABLES),
]
Datasets = Annotated[
    str | None, plain_option("--datasets", "with --table: data sets to use instead", "A,B,...", _TABLES)
]
Only = Annotated[
    str | None, plain_option("--only", "with --table: rows to make, by label or method", "A,B,...", _TABLES)
]
Env = Annotated[str | None, plain_option("--env", "with --table: environment of data files", "ENV-ID", _TABLES)]
Rank = Annotated[
    str | None,
    plain_option(
        "--rank",
        "rank cells without a simulator: ope (by the log; default if the data name no environment), offline (by data "
        "and model) or combo (its regulariser)",
        "RANKING",
    ),
]


@command(Ablate, more=OPTIONS)
def ablate(
    call: Call,
    rank: Rank = None,
    table: Table = None,
    datasets: Datasets = None,
    only: Only = None,
    env: Env = None,
) -> None:
    """Compare methods, penalties or values of any setting, or make a paper's table; here or on a cluster."""
    hand_out = open_hand_out(call)
    if table is not None:
        from mopo_cli.cli.paper_table import paper_table

        if rank is not None:
            raise UsageError("--rank compares cells of one data set, but a table has several.", hint="leave --rank out")
        return paper_table(call, table, datasets, only, env, hand_out)
    if stray := [f"--{name}" for name, value in (("datasets", datasets), ("only", only), ("env", env)) if value]:
        raise UsageError(f"{stray[0]} needs --table NAME.", hint="mopo presets tables")
    from mopo_cli.evaluation.ranking import RANKINGS
    from mopo_cli.stages.common.published_policies import raise_if_diverged, raise_if_failed

    if rank is not None and rank not in RANKINGS:
        raise UsageError(f"--rank must be one of {', '.join(RANKINGS)}, not {rank!r}.", hint="mopo ablate --help")
    context = open_context(call)
    settings, options = context.settle(Ablate, call.flags)
    cells = _cells(context, settings, options.origins)
    ranks_by_model = rank is not None and _ranks_by_model(rank, cells)
    if ranks_by_model or any(cell.needs_model for cell in cells):
        context.needs("train-model", "model")
        context.select_elites_if_missing()

    def make() -> dict[str, Any]:
        return ablate_by_model(context, settings, cells, options, call.report, hand_out)

    if (result := make_or_plan(call, hand_out, make)) is None:
        return None
    rank = rank or _default_ranking(context, cells, result)
    if rank and result.get("failed"):
        call.report.warn("The cells are ranked when all of them are there.")
    elif rank:
        from mopo_cli.stages.analysis.rank import run_rank

        result["ranking"] = run_rank(context.run, settings, rank, options, call.report)
    call.report.result(result)
    raise_if_diverged(result)
    raise_if_failed(result)


def _default_ranking(context: Context, cells: tuple[TrainPolicy, ...], result: dict[str, Any]) -> str | None:
    """Without an environment only a ranking can compare cells; it lets them act in the model."""
    from mopo_cli.data.transition_files import read_dataset_info
    from mopo_cli.stages.common.inputs import dataset_path

    made = result.get("cells", [])
    if not made or any(cell["last"] for cell in made) or not any(cell.needs_model for cell in cells):
        return None
    return None if read_dataset_info(dataset_path(context.run)).env_id else "ope"


def _ranks_by_model(rank: str, cells: tuple[TrainPolicy, ...]) -> bool:
    """Whether a ranking needs the model. UsageError if it needs a metric that none of the cells will log."""
    from mopo_cli.agents.algorithms import load
    from mopo_cli.evaluation.ranking import RANKINGS

    metric = RANKINGS[rank].metric
    algorithms = sorted({cell.algorithm for cell in cells})
    if metric is not None and not any(metric in load(name).metrics for name in algorithms):
        sentence = f"--rank {rank} needs the metric {metric}, which {', '.join(algorithms)} does not log."
        raise UsageError(sentence, hint=f"--method {rank}, or --rank offline")
    return metric is None


def _cells(context: Context, settings: Ablate, origins: dict[str, str]) -> tuple[TrainPolicy, ...]:
    check_grid(settings, origins)
    if len(settings.table_name()) > _LONGEST_NAME:
        raise UsageError("The default name of this grid is too long for a folder.", hint="--name NAME")
    if not settings.method:
        return grid(settings)
    if origins["penalty"] == "flag":
        raise UsageError("Use either --penalty or --method: a method sets its penalty itself.")

    def settle(flags: dict[str, Any]) -> TrainPolicy:
        return context.settle(TrainPolicy, flags)[0]

    return method_cells(settings, origins, settle)
