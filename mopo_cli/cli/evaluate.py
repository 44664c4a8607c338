"""``mopo evaluate``"""

from typing import Annotated

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.config.schema import Evaluate

EXAMPLES = (
    "mopo evaluate --episodes 10",
    "mopo evaluate --policy mopo_none_h5 --json",
    "mopo evaluate --bound --episodes 50",
)

Bound = Annotated[
    bool,
    plain_option("--bound", "also check MOPO's bound: returns in the penalised model, the model and the environment"),
]


@command(Evaluate, without=("method", "engine"))
def evaluate(call: Call, bound: Bound = False) -> None:
    """Run the policy in the real environment and compare it with its data and the published numbers."""
    from mopo_cli.stages.evaluate import run_evaluate

    context = open_context(call)
    settings, options = context.settle(Evaluate, call.flags)
    context.needs("train-policy", "policy")
    if bound:
        context.needs("train-model", "model")
        context.select_elites_if_missing()
    result = run_evaluate(context.run, settings, options, call.report)
    if bound:
        from mopo_cli.stages.analysis.return_bound import run_bound

        result["bound"] = run_bound(context.run, settings, options, call.report)
    call.report.result(result, result.get("reason"))
