"""``mopo run``: all stages in order"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mopo_cli.cli.context import Context, refuse_other_data
from mopo_cli.cli.options import Call, command
from mopo_cli.config.fields import Settings
from mopo_cli.config.presets import load_preset, preset_dataset, preset_names, suggestion
from mopo_cli.config.resolve import read_config
from mopo_cli.config.schema import Evaluate, Rollout, SelectElites, TrainModel, TrainPolicy
from mopo_cli.config.schema_data import FetchData
from mopo_cli.data.registry import parse_dataset
from mopo_cli.errors import InputError, UsageError
from mopo_cli.report import Report
from mopo_cli.store.run import RunFolder, dataset_slug, named_run

if TYPE_CHECKING:
    from mopo_cli.stages.common.options import Options

EXAMPLES = (
    "mopo run quickstart",
    "mopo run ./my-logs.h5 --env Hopper-v5 --config mine.yaml",
    "mopo run ./plant.csv --columns obs=temp+flow,action=valve,reward=yield,episode=batch --termination 'obs[0] > 90'",
)


@command(
    FetchData, only=("env", "env_kwargs", "columns", "termination", "relabel", "mirror"), without=("dataset", "preset")
)
def run(
    call: Call,
    name: Annotated[
        str, typer.Argument(metavar="PRESET-OR-DATA-SET", help="a name from mopo presets ls, or a data set")
    ],
) -> None:
    """Run all stages in order, from data to an evaluated policy; skips what is up to date."""
    context = _context(call, name)
    results = _run_stages(context, name)
    result = {"run": str(context.run.root), "preset": context.preset, "stages": results}
    call.report.result(result, _summary(results, context.run))


def _context(call: Call, name: str) -> Context:
    preset = name if name in preset_names() else None
    if preset is None:
        try:
            parse_dataset(name)
        except InputError as error:
            if close := suggestion(name, preset_names()):
                raise UsageError(f"There is no preset or data set {name!r}{close}.", "mopo presets ls") from error
            raise
    dataset = preset_dataset(preset) if preset else name
    run = named_run(call.run or Path("runs") / (preset or dataset_slug(name)))
    if call.run:
        refuse_other_data(run, dataset)
    return Context(call, run, dataset, preset)


def _run_stages(context: Context, name: str) -> dict[str, dict[str, Any]]:
    """The result of every stage by its command."""
    from mopo_cli.data.held_out import can_judge
    from mopo_cli.stages.common.published_policies import raise_if_diverged
    from mopo_cli.stages.evaluate import run_evaluate
    from mopo_cli.stages.fetch_data import run_fetch_data
    from mopo_cli.stages.rollout import run_rollout
    from mopo_cli.stages.select_elites import run_select_elites
    from mopo_cli.stages.train_model import run_train_model
    from mopo_cli.stages.train_policy import run_train_policy

    call = context.call
    flags = call.flags if context.preset else {"dataset": name, **call.flags}
    fetch_data = context.settle(FetchData, flags)
    train_policy = context.settle(TrainPolicy, {"method": call.method} if call.method else {})
    evaluate, evaluate_options = context.settle(Evaluate)
    if evaluate.policy is None:
        evaluate = evaluate.model_copy(update={"policy": train_policy[0].policy_name()})
    # All settings are resolved first, so that a fault is reported before hours of work.
    stages: list[tuple[str, Callable[..., dict[str, Any]], tuple[Settings, Options]]] = [
        ("fetch-data", run_fetch_data, fetch_data),
        ("train-model", run_train_model, context.settle(TrainModel)),
        ("select-elites", run_select_elites, context.settle(SelectElites)),
        ("rollout", run_rollout, context.settle(Rollout)),
        ("train-policy", run_train_policy, train_policy),
        ("evaluate", run_evaluate, (evaluate, evaluate_options)),
    ]
    unused = _unused_stages(context, train_policy[0])
    stages = [stage for stage in stages if stage[0] not in unused]
    report = call.report.without_hints()
    results = {}
    for number, (stage, run_stage, (settings, options)) in enumerate(stages, start=1):
        report.say(f"\n{number}/{len(stages)} {stage}")
        results[stage] = run_stage(context.run, settings, options, report)
        raise_if_diverged(results[stage])
    if can_judge(results["evaluate"]):
        _without_environment(context.run, evaluate, evaluate_options, report, results)
    return results


def _without_environment(
    run: RunFolder, settings: Evaluate, options: "Options", report: Report, results: dict[str, dict[str, Any]]
) -> None:
    """What people need who have no simulator: whether the policy is better than the log, a file to use, and a page."""
    from mopo_cli.stages.analysis.export import run_export
    from mopo_cli.stages.analysis.judge import run_judge
    from mopo_cli.stages.analysis.report_page import run_report

    report.say("\nHow good it is, by held-out episodes")
    results["evaluate"]["ope"] = run_judge(run, settings, options, report)
    results["export"] = run_export(run, settings.policy, "numpy", None, ensemble=False, force=True)
    results["report"] = run_report(run, None, force=False)


def _unused_stages(context: Context, training: TrainPolicy) -> set[str]:
    """The stages to leave out: those of the model if the method uses none, as behaviour cloning.

    Training needs no rollout file; it is made only if the preset or the settings file has a section for it.
    """
    if training.rollouts == "fresh" and not training.needs_model:
        return {"train-model", "select-elites", "rollout"}
    file = read_config(context.call.config)[0] if context.call.config else {}
    return set() if "rollout" in {**(load_preset(context.preset) if context.preset else {}), **file} else {"rollout"}


def _summary(results: dict[str, dict[str, Any]], run: RunFolder) -> str:
    """The returns of the policies and of the data, in a sentence, or the verdict without them; and where to look."""
    evaluation = results["evaluate"]
    where = f"All results are in {run.root}: mopo show {run.root}"
    if evaluation.get("skipped"):
        if "ope" not in evaluation:
            return f"{evaluation['reason']}\n{where}"
        policy = next(iter(results["export"]["outputs"].values()))
        return (
            f"{evaluation['ope']['sentence']}\nA page about all of it: {results['report']['path']}\n"
            f"To run the policy: mopo_cli.load_policy({policy!r})\n{where}"
        )
    data, policy = evaluation["dataset_return_mean"], evaluation["return_mean"]
    each = ", ".join(f"seed {seed}: {value:.1f}" for seed, value in evaluation["return_per_seed"].items())
    return (
        f"In {evaluation['environment']} the episodes in the data returned {data:.1f} on average and "
        f"{evaluation['dataset_return_max']:.1f} at best; the policy learned from these data alone returns "
        f"{policy:.1f} on average ({each}).\n{where}"
    )
