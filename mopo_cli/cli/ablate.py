"""``mopo ablate``"""

from typing import Annotated, Any

import typer

from mopo_cli.cli.context import Context, open_context
from mopo_cli.cli.methods import ablate_by_model
from mopo_cli.cli.options import Call, command
from mopo_cli.config.ablation import check_grid, grid, method_cells
from mopo_cli.config.schema import Ablate, TrainPolicy
from mopo_cli.errors import UsageError

EXAMPLES = (
    "mopo ablate --penalty max-var,none --lam 0.5,1,5 --h 1,5 --seeds 3",
    "mopo ablate --method mopo,mbpo,sac-off,bc --seeds 3",
    "mopo ablate --dataset walker2d-medium --lam 1,5 --epochs 100",
    "mopo ablate --method mopo,mbpo,sac-off,bc --seeds 3 --rank offline",
    "mopo ablate --method combo --grid beta=0.5,1,5 --grid real-ratio=0.5,0.8 --eval-every 0 --rank combo",
    "mopo ablate --table mopo-1",
    "mopo ablate --table mopo-3 --datasets ./my-logs.h5 --env Hopper-v5 --seeds 3 --epochs 100",
)


_LONGEST_NAME = 200  # file systems end at 255


def _of_table(name: str, metavar: str, help: str) -> Any:
    return typer.Option(name, metavar=metavar, help=help, show_default=False, rich_help_panel="Tables of the papers")


Table = Annotated[
    str | None,
    _of_table("--table", "NAME", "make a table of the papers beside the published numbers (mopo presets tables)"),
]
Datasets = Annotated[
    str | None, _of_table("--datasets", "A,B,...", "with --table: these data sets, of the table or others")
]
Only = Annotated[str | None, _of_table("--only", "A,B,...", "with --table: only these rows, by label or method")]
Env = Annotated[
    str | None, _of_table("--env", "ENV-ID", "with --table: environment that data files were logged in, e.g. Hopper-v5")
]

Rank = Annotated[
    str | None,
    typer.Option(
        "--rank",
        metavar="offline|combo",
        help="order the cells too, by what data and model alone say of them or by COMBO's rule, the lowest regulariser"
        " of its critics, and tell how well that agrees with their true returns",
        show_default=False,
    ),
]


@command(Ablate)
def ablate(
    call: Call,
    rank: Rank = None,
    table: Table = None,
    datasets: Datasets = None,
    only: Only = None,
    env: Env = None,
) -> None:
    """Compare methods, or penalties, and values of any setting; or make a table of the papers on its data sets."""
    if table is not None:
        return _table(call, table, datasets, only, env, rank)
    if stray := [f"--{name}" for name, value in (("datasets", datasets), ("only", only), ("env", env)) if value]:
        raise UsageError(f"{stray[0]} is for --table NAME only.", hint="mopo presets tables")
    from mopo_cli.stages.common.policy_stack import raise_if_diverged

    _check_ranking(rank)
    context = open_context(call)
    settings, options = context.settle(Ablate, call.flags)
    cells = _cells(context, settings, options.origins)
    acts = rank is not None and _acts_in_model(rank, cells)
    if acts or any(cell.needs_model for cell in cells):
        context.needs("train-model", "model")
        context.select_elites_if_missing()
    result = ablate_by_model(context, settings, cells, options, call.report)
    if rank:
        from mopo_cli.stages.analysis.rank import run_rank

        result["ranking"] = run_rank(context.run, settings, rank, options, call.report)
    call.report.result(result)
    raise_if_diverged(result)


def _table(call: Call, table: str, datasets: str | None, only: str | None, env: str | None, rank: str | None) -> None:
    from mopo_cli.cli.paper_table import paper_table

    if rank is not None:
        raise UsageError("--rank orders the cells of one data set; a table has several.", hint="leave --rank out")
    paper_table(call, table, datasets, only, env)


def _check_ranking(rank: str | None) -> None:
    if rank is None:
        return
    from mopo_cli.evaluation.ranking import RANKINGS

    if rank not in RANKINGS:
        raise UsageError(f"--rank must be one of {', '.join(RANKINGS)}, not {rank!r}.", hint="mopo ablate --help")


def _acts_in_model(rank: str, cells: tuple[TrainPolicy, ...]) -> bool:
    """Whether a ranking needs the model. UsageError where it reads a number that none of the cells will log."""
    from mopo_cli.agents.algorithms import load
    from mopo_cli.evaluation.ranking import RANKINGS

    metric = RANKINGS[rank].metric
    algorithms = sorted({cell.algorithm for cell in cells})
    if metric is not None and not any(metric in load(name).metrics for name in algorithms):
        sentence = f"--rank {rank} goes by the {metric}, and nothing of that name is logged by {', '.join(algorithms)}."
        raise UsageError(sentence, hint=f"--method {rank}, or --rank offline")
    return metric is None


def _cells(context: Context, settings: Ablate, origins: dict[str, str]) -> tuple[TrainPolicy, ...]:
    check_grid(settings, origins)
    if len(settings.table_name()) > _LONGEST_NAME:
        raise UsageError("The name made from this grid is too long for a folder.", hint="--name NAME")
    if not settings.method:
        return grid(settings)
    if origins["penalty"] == "flag":
        raise UsageError("--penalty and --method are two grids: a method has its own penalty.")

    def settle(flags: dict[str, Any]) -> TrainPolicy:
        return context.settle(TrainPolicy, flags)[0]

    return method_cells(settings, origins, settle)
