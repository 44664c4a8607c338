"""``mopo evaluate``"""

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import Evaluate

EXAMPLES = ("mopo evaluate --episodes 10", "mopo evaluate --policy mopo_none_h5 --json")


@command(Evaluate)
def evaluate(call: Call) -> None:
    """Play the policy in the real environment and compare it with its data and the published numbers."""
    from mopo_cli.stages.evaluate import run_evaluate

    context = open_context(call)
    settings, options = context.settle(Evaluate, call.flags)
    context.needs("train-policy", "policy")
    result = run_evaluate(context.run, settings, options, call.report)
    call.report.result(result, result.get("reason"))
