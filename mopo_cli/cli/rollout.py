"""``mopo rollout``"""

from typing import Annotated

from mopo_cli.cli.context import open_context
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.config.schema import Rollout

EXAMPLES = (
    "mopo rollout --h 5 --actions uniform",
    "mopo rollout --diagnose --map",
    "mopo rollout --h 1 --actions runs/quickstart/policies/mopo_max-var_lam1_h5/seed-0/policy.safetensors",
)

Diagnose = Annotated[
    bool,
    plain_option(
        "--diagnose", "compare uncertainties with the model's true error, by a simulator; also for an existing file"
    ),
]
Map = Annotated[
    bool,
    plain_option("--map", "plot where rollouts leave the data, with uncertainties; also for an existing file"),
]


@command(Rollout, without=("method", "engine"))
def rollout(call: Call, diagnose: Diagnose = False, map: Map = False) -> None:
    """Make model transitions: from states of the data, h model steps each."""
    from mopo_cli.stages.rollout import run_rollout

    context = open_context(call)
    settings, options = context.settle(Rollout, call.flags)
    context.needs("train-model", "model")
    if diagnose:
        from mopo_cli.stages.analysis.diagnose import check_diagnosis, run_diagnose

        check_diagnosis(context.run)
    context.select_elites_if_missing()
    result = run_rollout(context.run, settings, options, call.report)
    if diagnose:
        result["diagnosis"] = run_diagnose(context.run, settings, options, call.report)
    if map:
        from mopo_cli.stages.analysis.density_map import run_density_map

        result["map"] = run_density_map(context.run, settings, options, call.report)
    call.report.result(result)
