"""``mopo select-elites``"""

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command
from mopo_cli.config.schema import SelectElites

EXAMPLES = ("mopo select-elites", "mopo select-elites --networks 0,2,3,5,6")


@command(SelectElites, without=("engine",))
def select_elites(call: Call) -> None:
    """Choose the networks that rollouts use: those with the lowest hold-out error."""
    from mopo_cli.stages.select_elites import run_select_elites

    context = open_context(call)
    settings, options = context.settle(SelectElites, call.flags)
    context.needs("train-model", "model")
    call.report.result(run_select_elites(context.run, settings, options, call.report))
