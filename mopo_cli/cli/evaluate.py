"""``mopo evaluate``"""

from typing import Annotated

import typer

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import Evaluate

EXAMPLES = (
    "mopo evaluate --episodes 10",
    "mopo evaluate --policy mopo_none_h5 --json",
    "mopo evaluate --bound --episodes 50",
)

Bound = Annotated[
    bool,
    typer.Option(
        "--bound",
        help="measure MOPO's bound too: the return in the penalised model, in the plain one and in the real task",
        show_default=False,
    ),
]


@command(Evaluate, without=("method", "engine"))
def evaluate(call: Call, bound: Bound = False) -> None:
    """Play the policy in the real environment and compare it with its data and the published numbers."""
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
