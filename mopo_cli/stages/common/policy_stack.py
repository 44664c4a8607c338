"""What train-policy and ablate share: train a stack of members, evaluated and checkpointed."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithms import load
from mopo_cli.agents.loop import advance, loop_state, restore_loop
from mopo_cli.agents.parallel_members import Crew, crew_size, open_crew
from mopo_cli.agents.runs import Loop, start_loop
from mopo_cli.agents.world import World
from mopo_cli.config.schema import PolicyTraining
from mopo_cli.dynamics.penalties import ORACLE
from mopo_cli.engine.members import Member
from mopo_cli.nets.scales import Standard
from mopo_cli.report.console import LiveTable
from mopo_cli.report.metrics import Metrics, open_metrics
from mopo_cli.report.sink import Curves
from mopo_cli.stages.common.alarms import look_at_rollouts, look_back, tell_choices
from mopo_cli.stages.common.attempt import AFRESH
from mopo_cli.stages.common.device import check_precision, open_recorder, tell_doubt
from mopo_cli.stages.common.epochs import Epoch, columns, row
from mopo_cli.stages.common.finished import Earlier, finished_folder
from mopo_cli.stages.common.inputs import described
from mopo_cli.stages.common.learner import learner_settings, loop_settings
from mopo_cli.stages.common.memory import check_stack, explained_loss
from mopo_cli.stages.common.open_world import OpenWorld
from mopo_cli.stages.common.same_settings import changed_settings
from mopo_cli.stages.common.saving import Saver
from mopo_cli.stages.common.user_units import offset_of
from mopo_cli.stages.common.watch import Game, Watch, free_processes, open_watch
from mopo_cli.stages.runner import Stage
from mopo_cli.store.documents import checked
from mopo_cli.store.headers import Progress

_ROUNDS = 2  # evaluations that each process may be behind


@dataclass
class Trained:
    """A stack in training and after it: the loop, one record per epoch and member, and which members diverged.

    `names` are the members' in `metrics`. `standard` is what observations are standardised by, if they are.
    `pending` are the latest epochs, still being evaluated; `seconds` is the wall time of all attempts.
    """

    loop: Loop
    names: Sequence[str]
    standard: Standard | None = None
    histories: list[list[dict[str, Any]]] = field(default_factory=list)
    diverged: list[bool] = field(default_factory=list)
    pending: deque[Epoch] = field(default_factory=deque)
    seconds: float = 0.0
    metrics: Metrics = field(init=False)

    def actor(self, m: int) -> Actor:
        """The trained policy of one member, for observations as the data have them."""
        actor = self.loop.agent.policy(m)
        if self.standard is None:
            return actor
        return replace(actor, flat=self.standard.folded(actor.layout, actor.flat))


def train_stack(
    stage: Stage,
    opened: OpenWorld,
    members: tuple[Member, ...],
    names: Sequence[str],
    settings: PolicyTraining,
    earlier: Callable[[str], Earlier] | None = None,
) -> Trained:
    """Train the members side by side to the end, from the stage's checkpoint where there is one.

    Where there is none, they go on from what was trained `earlier`, which is read for a device.
    Metrics are logged by the members' `names`. A member that diverges (NaN or infinity) is flagged and no longer
    evaluated; the others go on.
    """
    device, per_epoch, total = opened.world.real.device, settings.steps_per_epoch, settings.updates
    size = crew_size(len(members), device, opened.world.options.oracle is not None)
    with ExitStack() as context:
        trained, crew = _start(context, stage, opened, members, names, settings, earlier)
        loop, started = trained.loop, time.monotonic() - trained.seconds
        saver = Saver(stage, lambda: save_training(stage, trained, settings))
        processes = free_processes(stage.options, device, len(members), size)
        watch = _watch(context, stage, opened, settings, processes)
        backlog = max(1, _ROUNDS * watch.processes // len(members)) if watch is not None else 0
        table = context.enter_context(stage.report.live_table(columns(loop)))
        progress = context.enter_context(
            stage.report.progress("train-policy", settings.epochs, done=max(loop.step, 0) // per_epoch)
        )

        tell_choices(loop, stage.report)
        checked_rollouts, warming = False, loop.step < 0

        def on_steps(steps: float) -> None:
            progress.update(0 if warming else steps / per_epoch)

        while loop.step < total:
            warming = loop.step < 0
            if crew is not None:
                with explained_loss():
                    means = crew.advance(stage.should_stop, on_steps)
            else:
                means = advance(loop, opened.world)
                on_steps(loop.settings.block)
            tell_doubt(loop.engine, stage.report)
            if loop.tallies and not checked_rollouts:
                checked_rollouts = True
                look_at_rollouts(loop, stage.report)
            if warming:
                progress.update(0, warm_up_steps_left=-loop.step)
            if means is not None:
                epoch = _record_epoch(trained, means)
                if watch is not None and (epoch.number % settings.eval_every == 0 or epoch.number == settings.epochs):
                    _evaluate(trained, epoch, watch)
                trained.pending.append(epoch)
            save, end = saver.due(), loop.step == total
            trained.seconds = time.monotonic() - started
            _log_complete(trained, 0 if save or end else backlog, settings.epochs, table)
            if save:
                saver.save_now()
    trained.seconds = time.monotonic() - started
    least, standardised = opened.world.least_reward, opened.world.standard is not None
    look_back(trained.histories, trained.diverged, least, opened.data, stage.report, standardised)
    return trained


def _start(
    context: ExitStack,
    stage: Stage,
    opened: OpenWorld,
    members: tuple[Member, ...],
    names: Sequence[str],
    settings: PolicyTraining,
    earlier: Callable[[str], Earlier] | None,
) -> tuple[Trained, Crew | None]:
    """The stack as it goes on, with the metrics until then, and the processes that train it if there are several."""
    algorithm, device = load(settings.algorithm), opened.world.real.device
    check_stack(opened, members, settings, device)
    learner = learner_settings(algorithm.settings, settings, opened.world.row_layout.act_dim)
    check_precision("--update-precision", settings.update_precision, device)
    recorder = open_recorder(stage.options, device)
    loop = start_loop(opened.world, members, learner, loop_settings(settings), algorithm, recorder)
    trained = Trained(loop, names, opened.world.standard, [[] for _ in members], [False for _ in members])
    crew = context.enter_context(open_crew(loop, opened.world, learner))
    _resume(stage, trained, opened.world, settings, earlier)
    curves = Curves(stage.run.root, stage.key, names)
    trained.metrics = context.enter_context(open_metrics(stage.live, curves, stage.report, stage.options.log))
    for name, history in zip(names, trained.histories, strict=True):
        trained.metrics.log_records(name, history)
    if loop.step < 0:
        stage.report.say(f"warming up for {-loop.step:,} gradient steps")
    return trained, crew


def _watch(
    context: ExitStack, stage: Stage, opened: OpenWorld, settings: PolicyTraining, processes: int
) -> Watch | None:
    info = opened.data.info
    if not settings.eval_every:
        return None
    if info.env_id is None:
        stage.report.say("The dataset names no environment, so the policies are not evaluated while they train.")
        return None
    low, high = info.action_low, info.action_high
    game = Game(
        *(info.env_id, info.env_kwargs, settings.eval_episodes, low, high),
        *(info.obs_entries, offset_of(info), info.history),
    )
    return context.enter_context(open_watch(game, processes, stage.report))


def _record_epoch(trained: Trained, means: dict[str, torch.Tensor]) -> Epoch:
    loop = trained.loop
    values = {name: mean.tolist() for name, mean in means.items()}
    finite = loop.agent.finite().tolist()
    epoch = Epoch(loop.step // loop.settings.steps_per_epoch, [None] * len(loop.members), list(trained.diverged))
    for m, history in enumerate(trained.histories):
        if trained.diverged[m]:
            continue
        trained.diverged[m] = epoch.lost[m] = not finite[m]
        record = {"epoch": epoch.number, **{name: value[m] for name, value in values.items()}}
        if loop.tallies:
            tally = loop.tallies[m]
            dead = tally.terminated + tally.halted + tally.guarded + tally.dropped
            record |= {"dead": dead, "guarded": tally.guarded, "dropped": tally.dropped}
            if loop.members[m].penalty == ORACLE:
                record["unknown"] = tally.unknown
        history.append(record)
        epoch.records[m] = record
    return epoch


def _evaluate(trained: Trained, epoch: Epoch, watch: Watch) -> None:
    for m, member in enumerate(trained.loop.members):
        if not epoch.lost[m]:
            epoch.played[m] = watch.play(trained.actor(m), member.seed * 1_000_003 + epoch.number)


def _log_complete(trained: Trained, keep: int, epochs: int, table: LiveTable) -> None:
    for epoch in _complete(trained, keep):
        for name, numbers in zip(trained.names, epoch.records, strict=True):
            trained.metrics.log_records(name, [numbers] if numbers is not None else [])
        table.row(*row(trained.loop, epoch, epochs))


def _complete(trained: Trained, keep: int) -> Iterator[Epoch]:
    """The epochs whose evaluation is complete, in order; waits for all but the last `keep`."""
    while trained.pending:
        epoch = trained.pending[0]
        if len(trained.pending) <= keep and not all(played.done for played in epoch.played.values()):
            return
        for m, played in epoch.played.items():
            outcome, record = played.result(), epoch.records[m]
            if record is not None:
                record |= {"return": outcome.value, "length": outcome.length}
        yield trained.pending.popleft()


def save_training(stage: Stage, trained: Trained, settings: PolicyTraining) -> None:
    """Save the stage's checkpoint."""
    tensors, numbers = loop_state(trained.loop)
    meta = {"stack": _stack(trained.loop, settings), "histories": trained.histories, "diverged": trained.diverged}
    stage.save_state(tensors, meta | {"loop": numbers, "seconds": trained.seconds})


def _resume(
    stage: Stage,
    trained: Trained,
    world: World,
    settings: PolicyTraining,
    earlier: Callable[[str], Earlier] | None,
) -> None:
    saved = stage.load_state(str(world.real.device))
    if saved is None:
        if earlier is not None:
            _go_on(stage, trained, world, earlier(str(world.real.device)))
        return
    tensors, meta = saved
    with described(stage.state_file, AFRESH):
        # An ablation trains one stack after another; the checkpoint may be of one that is published already.
        (before, members), (now, others) = meta["stack"], _stack(trained.loop, settings)
        if members != others or changed_settings("train-policy", before, now):
            return
        progress = checked(stage.state_file, Progress, meta, AFRESH)
        restore_loop(trained.loop, world, tensors, progress["loop"])
        trained.histories, trained.diverged = progress["histories"], progress["diverged"]
        trained.seconds = progress.get("seconds", 0.0)
        if not len(trained.histories) == len(trained.diverged) == len(members):
            raise ValueError("histories of another number of members")
    stage.report.say(f"training goes on at gradient step {trained.loop.step:,}")


def _go_on(stage: Stage, trained: Trained, world: World, earlier: Earlier) -> None:
    with described(finished_folder(stage.run, stage.key), AFRESH):
        restore_loop(trained.loop, world, *earlier.state)
    trained.histories, trained.seconds = earlier.histories, earlier.seconds
    epoch = trained.loop.step // trained.loop.settings.steps_per_epoch
    stage.report.say(f"training goes on from epoch {epoch} (finished earlier)")


def _stack(loop: Loop, settings: PolicyTraining) -> list[Any]:
    """What identifies this stack among those of the same stage, as JSON."""
    shared = settings.model_dump(mode="json", include=settings.shared())
    return [shared, [[member.seed, member.penalty, member.lam, member.h] for member in loop.members]]
