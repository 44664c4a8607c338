"""``mopo ablate``"""

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import Ablate

EXAMPLES = (
    "mopo ablate --penalty max-var,none --lam 0.5,1,5 --h 1,5 --seeds 3",
    "mopo ablate --dataset walker2d-medium --lam 1,5 --epochs 100",
)


@command(Ablate)
def ablate(call: Call) -> None:
    """Compare penalties, lam and h on one data set: a grid of policies that share the model."""
    from mopo_cli.stages.ablate import run_ablate

    context = open_context(call)
    settings, options = context.settle(Ablate, call.flags)
    context.needs("train-model", "model")
    context.select_elites_if_missing()
    call.report.result(run_ablate(context.run, settings, options, call.report))
