"""``mopo train-policy``"""

from mopo_cli.cli.context import open_context
from mopo_cli.cli.methods import refuse_other_model
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import TrainPolicy

EXAMPLES = (
    "mopo train-policy --penalty max-var --lam 1 --h 5",
    "mopo train-policy --method mbpo --seeds 3",
    "mopo train-policy --dataset walker2d-medium --seed-list 0,3,7 --name three-seeds",
)


@command(TrainPolicy)
def train_policy(call: Call) -> None:
    """Train a policy on real and model data, with the reward lowered by lam * uncertainty."""
    from mopo_cli.stages.common.policy_stack import raise_if_diverged
    from mopo_cli.stages.train_policy import run_train_policy

    context = open_context(call)
    settings, options = context.settle(TrainPolicy, call.flags)
    if settings.needs_model:
        context.needs("train-model", "model")
        refuse_other_model(context, settings)
        context.select_elites_if_missing(settings.method)
    result = run_train_policy(context.run, settings, options, call.report)
    call.report.result(result)
    raise_if_diverged(result)
