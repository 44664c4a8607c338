"""``mopo rollout``"""

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import Rollout

EXAMPLES = (
    "mopo rollout --h 5 --actions uniform",
    "mopo rollout --h 1 --actions runs/quickstart/policies/mopo_max-var_lam1_h5/seed-0/policy.safetensors",
)


@command(Rollout)
def rollout(call: Call) -> None:
    """Imagine transitions: branch from states of the data into the model, h steps each."""
    from mopo_cli.stages.rollout import run_rollout

    context = open_context(call)
    settings, options = context.settle(Rollout, call.flags)
    context.needs("train-model", "model")
    context.select_elites_if_missing()
    call.report.result(run_rollout(context.run, settings, options, call.report))
