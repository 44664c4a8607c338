"""The world of the policy stages: the real rows, and the ensembles to branch in or the rollout file to learn from."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch

from mopo_cli.agents.algorithms import load
from mopo_cli.agents.guard import add_to_guarded, guarded_value
from mopo_cli.agents.units import in_standard_units
from mopo_cli.agents.world import World
from mopo_cli.config.schema import Imagination, PolicyTraining
from mopo_cli.data.history import steps_text
from mopo_cli.data.ranges import observation_range
from mopo_cli.data.restated import in_user_units
from mopo_cli.data.transition_files import OFFSET, read_rollouts
from mopo_cli.data.transitions import episode_ends, normalise_actions, steps_before
from mopo_cli.dynamics.branched_rollouts import RolloutOptions, TerminationRule
from mopo_cli.dynamics.penalties import ORACLE, PENALTIES, PenaltyForm
from mopo_cli.engine.members import Member
from mopo_cli.engine.rows import RowLayout
from mopo_cli.errors import InputError
from mopo_cli.nets.scales import Standard, standard_units
from mopo_cli.report.alarms import guard_remark
from mopo_cli.stages.common.device import check_precision, cpu_threads
from mopo_cli.stages.common.held_out import judge_share_of, share_beside_model, share_of, without_judge
from mopo_cli.stages.common.inputs import (
    Data,
    check_lineage,
    dataset_path,
    float_tensor,
    model_position,
    open_data,
    open_model,
)
from mopo_cli.stages.common.user_units import offset_of
from mopo_cli.stages.runner import Stage
from mopo_cli.store.documents import as_flag, checked
from mopo_cli.store.headers import RolloutAttributes
from mopo_cli.store.run import RunFolder
from mopo_cli.tasks.expression import expression_reward
from mopo_cli.tasks.oracle import open_oracle
from mopo_cli.tasks.termination import guard_rule, termination_rule


def policy_inputs(run: RunFolder, settings: PolicyTraining) -> dict[str, Path]:
    """What a policy is learned from: the dataset, and the model with its elites or a rollout file where one is used."""
    paths = {"dataset": dataset_path(run), "model": run.model, "elites": run.elites}
    return {role: paths.get(role, Path(settings.rollouts)) for role in policy_roles(settings)}


def policy_roles(settings: PolicyTraining) -> tuple[str, ...]:
    """The roles of `policy_inputs`; nothing is read for them."""
    if settings.needs_model:
        return "dataset", "model", "elites"
    return ("dataset",) if settings.rollouts == "fresh" else ("dataset", "rollouts")


Training = TypeVar("Training", bound=PolicyTraining)


def for_published(settings: Training) -> Training:
    """The settings of a world in which published policies act: they take observations as the data have them."""
    return settings.model_copy(update={"input_scale": "raw"})


def rollout_options(settings: Imagination, data: Data) -> RolloutOptions:
    """How the model is rolled out on this dataset, by these settings."""
    scale = None
    if settings.penalty_scale == "standardised":
        change = (data.next_observation - data.observation)[:, : data.frame]
        targets = torch.cat([change, data.reward[:, None]], dim=1)
        if not data.info.terminal_next_known:
            targets = targets[data.terminal == 0]
        deviation = targets.double().std(dim=0, correction=0).float()
        scale = torch.where(deviation > 0, deviation, 1.0)
    form = PenaltyForm(settings.penalty_networks == "elite", scale, settings.penalty_reward == "included")
    check_precision("--rollout-precision", settings.rollout_precision, data.observation.device)
    mean, reward = settings.model_reward == "mean", None
    if settings.model_reward == "known":
        if data.info.reward is None:
            raise InputError(
                f"--model-reward known needs a reward expression, and {data.info.dataset_id} has none.",
                hint="mopo fetch-data --reward EXPRESSION",
            )
        bounds = data.info.action_low, data.info.action_high
        reward = in_user_units(expression_reward(data.info.reward, bounds), data.info)
    guard = in_user_units(guard_rule(data.info.termination, settings.termination_rules == "paper"), data.info)
    return RolloutOptions(form=form, reward_mean=mean, precision=settings.rollout_precision, guard=guard, reward=reward)


def data_rule(data: Data, settings: Imagination) -> TerminationRule:
    """The rule that ends imagined episodes of this dataset."""
    bounds = data.info.action_low, data.info.action_high
    rule = termination_rule(data.info.termination, settings.termination_rules == "paper", bounds)
    return in_user_units(rule, data.info)


def last_rows(data: Data) -> torch.Tensor:
    """Which rows are the last of their episodes, bool `[N]`."""
    last = torch.zeros(len(data.reward), dtype=torch.bool)
    last[torch.from_numpy(episode_ends(data.transitions))] = True
    return last.to(data.reward.device)


def steps_taken(data: Data, *rules: object) -> torch.Tensor | None:
    """How many steps the episode of each row had taken before it `[N]`; None where none of the rules counts them."""
    if not any(getattr(rule, "uses_step", False) for rule in rules):
        return None
    return torch.from_numpy(steps_before(data.transitions)).to(data.observation.device)


@dataclass(frozen=True)
class OpenWorld:
    """The dataset, and the world made of it; `model_seeds` are those of the ensembles in it, in order.

    Neither has the episodes of `judge_share`.
    """

    data: Data
    world: World
    model_seeds: tuple[int, ...]
    judge_share: float

    @cached_property
    def observation_range(self) -> dict[str, list[float]]:
        """What each number of an observation is in the data."""
        return observation_range(self.data.transitions, self.data.info)

    def model_of(self, seed: int) -> int:
        """Position of the ensemble that a policy seed uses, see `model_position`."""
        return model_position(self.model_seeds, seed)

    def model_seed(self, member: Member) -> int | None:
        """The seed of the ensemble that a member branches in; None where it learns from a rollout file."""
        return self.model_seeds[member.model] if self.model_seeds else None


def uncertainty_names(settings: PolicyTraining, penalties: Collection[str]) -> tuple[str, ...]:
    """The uncertainties that rows have a column for: those of the penalties in use, and the algorithm's."""
    used = [name for name in (*PENALTIES, ORACLE) if name in penalties]
    return tuple(dict.fromkeys([*used, *load(settings.algorithm).uncertainties]))


@contextmanager
def open_world(
    stage: Stage, settings: PolicyTraining, inputs: dict[str, Path], device: torch.device, penalties: Collection[str]
) -> Iterator[OpenWorld]:
    """Open the stage's inputs, and the simulator where "oracle" is among the `penalties`; it is closed with the block.

    Refuses a model or a rollout file made from other data (see check_lineage), and rollouts whose uncertainties
    were measured otherwise than the settings say.
    """
    data = open_data(inputs["dataset"], device)
    share = share_of(data, settings.judge_share)
    if "model" in inputs:
        share = share_beside_model(settings.judge_share, judge_share_of(inputs["model"]))
    data = without_judge(data, share, stage.report)
    _tell_units(stage, settings, penalties)
    names = uncertainty_names(settings, penalties)
    rows = RowLayout(data.observation.shape[1], data.action.shape[1], len(names))
    none = torch.zeros(len(data.observation), rows.uncertainties, device=device)
    real = rows.pack(data.observation, data.action, data.reward, data.terminal, data.next_observation, none)
    rule = data_rule(data, settings)
    options = replace(rollout_options(settings, data), uncertainties=names)
    options = replace(options, oracle_sample=settings.oracle_prediction == "sample")
    start_step = steps_taken(data, rule, options.reward)
    world = World(rows, real, data.observation, last_rows(data), rule, options=options, start_step=start_step)
    del real, none  # a world in other units has rows of its own
    seeds: tuple[int, ...] = ()
    with ExitStack() as context:
        if "rollouts" in inputs:
            world = replace(world, buffer=_open_rollouts(stage, settings, world, data))
        elif "model" in inputs:
            ensembles = open_model(stage, data, device)
            seeds, world = tuple(ensembles), replace(world, ensembles=tuple(ensembles.values()))
            if ORACLE in penalties:
                info, threads = data.info, cpu_threads(stage.options)
                oracle = open_oracle(info.env_id, info.env_kwargs, info.action_low, info.action_high, threads)
                judge = in_user_units(context.enter_context(oracle), info)
                world = replace(world, options=replace(options, oracle=judge))
        if settings.input_scale == "standardised":
            world = in_standard_units(world, _standard_units(data))
        yield OpenWorld(data, world, seeds, share)


def _standard_units(data: Data) -> Standard:
    """All frames of an observation have the units of the newest, and actions keep their own, as frames move on."""
    newest, steps = standard_units(data.observation[:, : data.frame]), data.info.history
    actions = newest.mean.new_zeros((steps - 1) * data.action.shape[1])
    mean = torch.cat([newest.mean.repeat(steps), actions])
    return Standard(mean, torch.cat([newest.divisor.repeat(steps), actions + 1]))


def _tell_units(stage: Stage, settings: PolicyTraining, penalties: Collection[str]) -> None:
    if settings.penalty_scale == "standardised" and {*penalties} & {*PENALTIES} and settings.has_model_rows:
        stage.report.say("The penalty is in standard deviations of the model's targets (--penalty-scale standardised).")
    if settings.input_scale == "standardised":
        stage.report.say("Actor and critics see observations in standard deviations (--input-scale standardised).")


def _open_rollouts(stage: Stage, settings: PolicyTraining, world: World, data: Data) -> torch.Tensor:
    path = Path(stage.inputs["rollouts"]["path"])
    path = path if path.is_absolute() else stage.run.root / path
    columns, attributes = read_rollouts(path)
    checked(path, RolloutAttributes, attributes)
    check_lineage(stage, f"the rollout file {path}", attributes["dataset_sha256"])
    offset = attributes.get(OFFSET)
    if tuple([] if offset is None else offset) != offset_of(data.info):
        raise InputError(f"The rollout file {path} has other offsets of observations than the dataset.", "mopo rollout")
    if (then := attributes.get("history", 1)) != data.info.history:
        raise InputError(
            f"The rollout file {path} has observations of {steps_text(then)}, the dataset of "
            f"{steps_text(data.info.history)}.",
            "mopo rollout",
        )
    for name in Imagination.model_fields:
        now, then = getattr(settings, name), attributes.get(name, Imagination.model_fields[name].default)
        if then != now:
            flag = as_flag(name)
            raise InputError(
                f"The rollout file {path} was made with {flag} {then}, not {now}.", hint=f"mopo rollout {flag} {now}"
            )
    packed, guarded_rows = _pack_rollouts(path, world, columns, data), torch.from_numpy(columns["timeouts"])
    if bool(guarded_rows.any()):
        stage.report.say(guard_remark(world.least_reward))
        packed = add_to_guarded(
            world.row_layout, packed, guarded_rows, guarded_value(world.least_reward, settings.gamma)
        )
    return packed.to(world.real.device)


def _pack_rollouts(path: Path, world: World, columns: dict[str, Any], data: Data) -> torch.Tensor:
    """The rows of a rollout file. Those that the guard ended, its timeouts, are terminal as in a pool."""
    rows, names = world.row_layout, world.options.uncertainties
    shape = columns["observations"].shape[1], columns["actions"].shape[1]
    if shape != (rows.obs_dim, rows.act_dim):
        raise InputError(
            f"The rollout file {path} has {shape[0]} observations and {shape[1]} actions, the dataset has "
            f"{rows.obs_dim} and {rows.act_dim}.",
            hint="mopo rollout",
        )
    missing = [name for name in names if f"uncertainty/{name}" not in columns]
    if missing:
        hint = "leave --rollouts out: no file holds it" if missing[0] == ORACLE else "mopo rollout --force"
        raise InputError(f"The rollout file {path} has no column uncertainty/{missing[0]}.", hint=hint)
    uncertainty = torch.zeros(len(columns["rewards"]), len(names))
    for u, name in enumerate(names):
        uncertainty[:, u] = float_tensor(columns[f"uncertainty/{name}"])
    return rows.pack(
        float_tensor(columns["observations"]),
        float_tensor(normalise_actions(columns["actions"], data.info)),
        float_tensor(columns["rewards"]),
        float_tensor(columns["terminals"] | columns["timeouts"]),
        float_tensor(columns["next_observations"]),
        uncertainty,
    )
