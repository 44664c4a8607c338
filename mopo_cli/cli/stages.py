"""The commands of single stages: ``train-model``, ``select-elites``, ``rollout``, ``train-policy``, ``evaluate``"""

from pathlib import Path
from typing import Annotated, Any

from mopo_cli.cli.context import open_context
from mopo_cli.cli.elsewhere import OPTIONS, make_or_plan, open_hand_out
from mopo_cli.cli.methods import refuse_other_model
from mopo_cli.cli.options import Call, command, plain_option
from mopo_cli.config.schema import Evaluate, Rollout, SelectElites, TrainModel, TrainPolicy
from mopo_cli.errors import UsageError

EXAMPLES = {
    "train-model": (
        "mopo train-model --dataset walker2d-medium",
        "mopo train-model --dataset generate:Hopper-v5:random --max-epochs 50 --seeds 3",
    ),
    "select-elites": ("mopo select-elites", "mopo select-elites --networks 0,2,3,5,6"),
    "rollout": (
        "mopo rollout --h 5 --actions uniform",
        "mopo rollout --diagnose --map",
        "mopo rollout --h 1 --actions runs/quickstart/policies/mopo_max-var_lam1_h5/seed-0/policy.safetensors",
    ),
    "train-policy": (
        "mopo train-policy --penalty max-var --lam 1 --h 5",
        "mopo train-policy --method mbpo --seeds 3",
        "mopo train-policy --dataset walker2d-medium --seed-list 0,3,7 --name three-seeds",
    ),
    "evaluate": (
        "mopo evaluate --episodes 10",
        "mopo evaluate --policy mopo_none_h5 --json",
        "mopo evaluate --bound --episodes 50",
        "mopo evaluate --video hopper.mp4",
        "mopo evaluate --returns measured.csv",
    ),
}

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
Video = Annotated[
    Path | None,
    plain_option("--video", "also film the first episode of every seed (needs the extra: video)", "FILE.mp4"),
]
Returns = Annotated[
    Path | None,
    plain_option(
        "--returns",
        "use returns measured elsewhere: a column return and, if you have them, seed, episode, length",
        "FILE.csv",
    ),
]
Bound = Annotated[
    bool,
    plain_option("--bound", "also check MOPO's bound: returns in the penalised model, the model and the environment"),
]
Ope = Annotated[
    bool,
    plain_option("--ope", "also judge the policy without the environment, by episodes that it has not seen"),
]


@command(TrainModel)
def train_model(call: Call) -> None:
    """Train the ensemble of dynamics networks; fetches the data first if needed."""
    from mopo_cli.stages.train_model import run_train_model

    context = open_context(call)
    settings, options = context.settle(TrainModel, call.flags)
    context.fetch_if_missing()
    call.report.result(run_train_model(context.run, settings, options, call.report))


@command(SelectElites, without=("engine", "log"))
def select_elites(call: Call) -> None:
    """Choose the networks that rollouts use: those with the lowest hold-out error."""
    from mopo_cli.stages.select_elites import run_select_elites

    context = open_context(call)
    settings, options = context.settle(SelectElites, call.flags)
    context.needs("train-model", "model")
    call.report.result(run_select_elites(context.run, settings, options, call.report))


@command(Rollout, without=("method", "engine", "log"))
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


@command(TrainPolicy, more=OPTIONS)
def train_policy(
    call: Call,
) -> None:
    """Train a policy on real and model data, with the reward lowered by lam * uncertainty.

    Seeds of one policy may be trained one by one, also by processes side by side. With more --epochs a finished policy
    goes on from where it is. --force trains the given seeds again; the others stay if nothing else changed.
    """
    from mopo_cli.stages.common.published_policies import raise_if_diverged, raise_if_failed
    from mopo_cli.stages.train_policy import run_train_policy

    hand_out = open_hand_out(call)
    context = open_context(call)
    settings, options = context.settle(TrainPolicy, call.flags)
    if settings.needs_model:
        context.needs("train-model", "model")
        refuse_other_model(context, settings)
        context.select_elites_if_missing(settings.method)

    def make() -> dict[str, Any]:
        return run_train_policy(context.run, settings, options, call.report, hand_out)

    if (result := make_or_plan(call, hand_out, make)) is None:
        return
    call.report.result(result)
    raise_if_diverged(result, settings.all_seeds())
    raise_if_failed(result)


@command(Evaluate, without=("method", "engine", "log"))
def evaluate(call: Call, bound: Bound = False, ope: Ope = False, video: Video = None, returns: Returns = None) -> None:
    """Run the policy in the real environment and compare it with its data and the published numbers.

    Where the data name no environment, a judge says by held-out episodes whether it is better than the log.
    """
    context = open_context(call)
    settings, options = context.settle(Evaluate, call.flags)
    context.needs("train-policy", "policy")
    if returns is not None:
        from mopo_cli.stages.analysis.measured import run_measured

        _refuse_play(call, {"bound": bound, "ope": ope, "video": video})
        call.report.result(run_measured(context.run, settings, options, call.report, returns))
        return
    if video is not None:
        from mopo_cli.stages.analysis.video import check_video, run_video

        check_video(context.run, video)
    if bound:
        context.needs("train-model", "model")
        context.select_elites_if_missing()
    from mopo_cli.stages.evaluate import run_evaluate

    result = run_evaluate(context.run, settings, options, call.report)
    if bound:
        from mopo_cli.stages.analysis.return_bound import run_bound

        result["bound"] = run_bound(context.run, settings, options, call.report)
    if video is not None:
        result["video"] = run_video(context.run, settings, options, call.report, video)
    from mopo_cli.data.held_out import can_judge

    if ope or (can_judge(result) and not bound):
        from mopo_cli.stages.analysis.judge import run_judge

        result["ope"] = run_judge(context.run, settings, options, call.report)
    call.report.result(result, result["ope"]["sentence"] if "ope" in result else result.get("reason"))


def _refuse_play(call: Call, further: dict[str, object]) -> None:
    """UsageError for flags that ask for more than a file of returns can give."""
    flags = {name for name, value in further.items() if value} | {"episodes", "seed"} & call.flags.keys()
    if flags:
        raise UsageError(f"--returns only reads a file: leave out --{min(flags)}.")
