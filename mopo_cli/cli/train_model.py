"""``mopo train-model``"""

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import TrainModel

EXAMPLES = (
    "mopo train-model --dataset walker2d-medium",
    "mopo train-model --dataset generate:Hopper-v5:random --max-epochs 50 --seeds 3",
)


@command(TrainModel)
def train_model(call: Call) -> None:
    """Train the ensemble of dynamics networks; fetches the data first if needed."""
    from mopo_cli.stages.train_model import run_train_model

    context = open_context(call)
    settings, options = context.settle(TrainModel, call.flags)
    context.fetch_if_missing()
    call.report.result(run_train_model(context.run, settings, options, call.report))
