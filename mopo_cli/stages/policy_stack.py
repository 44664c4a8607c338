"""What train-policy and ablate share: train a stack of members, watched and checkpointed, and publish each."""

import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.algorithms import load
from mopo_cli.agents.loop import Loop, LoopSettings, advance, loop_state, restore_loop, start_loop
from mopo_cli.agents.world import World
from mopo_cli.config.schema import PolicyTraining
from mopo_cli.dynamics.penalties import ORACLE
from mopo_cli.engine.members import Member
from mopo_cli.errors import DivergedError, Stopped
from mopo_cli.evaluation.returns import Environment, evaluate_returns, open_environments
from mopo_cli.report.console import Report
from mopo_cli.stages.inputs import open_recorder
from mopo_cli.stages.memory import check_memory, policy_bytes
from mopo_cli.stages.policies import greedy_policy, save_policy
from mopo_cli.stages.reuse import keep_only
from mopo_cli.stages.runner import Stage
from mopo_cli.stages.world import OpenWorld, policy_inputs
from mopo_cli.store.atomic import sha256_file, write_jsonl
from mopo_cli.store.checkpoint import save_tensors

_SAVE_SECONDS = 60.0


@dataclass
class Trained:
    """A stack after training: the loop, one record per epoch and member, and which members diverged."""

    loop: Loop
    histories: list[list[dict[str, Any]]] = field(default_factory=list)
    diverged: list[bool] = field(default_factory=list)

    def actor(self, m: int) -> Actor:
        """The trained policy of one member."""
        return self.loop.agent.policy(m)

    def returns(self, m: int) -> dict[str, Any]:
        """See `returns_of`."""
        return returns_of(self.histories[m])


def returns_of(history: list[dict[str, Any]]) -> dict[str, Any]:
    """Last and last-10 mean return in the real environment, and those ten; empty if never evaluated."""
    last = [record["return"] for record in history if "return" in record][-10:]
    return {"last": last[-1], "last_10": sum(last) / len(last), "evaluations": last} if last else {}


def train_stack(
    stage: Stage, opened: OpenWorld, members: tuple[Member, ...], settings: PolicyTraining, report: Report
) -> Trained:
    """Train the members side by side to the end, from the stage's checkpoint where there is one.

    A member whose numbers stop being finite is flagged and watched no more; the others go on.
    """
    algorithm, rows = load(settings.algorithm), opened.world.rows
    needed = policy_bytes(settings, rows, len(opened.world.real), [member.h for member in members])
    check_memory({name: size for name, size in needed.items() if name != "data"}, opened.world.real.device)
    learner = learner_settings(algorithm.settings, settings, rows.act_dim)
    record = open_recorder(stage.options, opened.world.real.device)
    loop = start_loop(opened.world, members, learner, loop_settings(settings), algorithm, record)
    trained = Trained(loop, [[] for _ in members], [False for _ in members])
    _resume(stage, trained, opened.world, settings, report)
    per_epoch, total = settings.steps_per_epoch, settings.epochs * settings.steps_per_epoch
    if loop.step < 0:
        report.say(f"warming up for {-loop.step:,} gradient steps")
    last_save = time.monotonic()
    with ExitStack() as context:
        environments = _environments(context, opened, settings, report)
        table = context.enter_context(report.live_table(_columns(loop)))
        progress = context.enter_context(
            report.progress("train-policy", settings.epochs, done=max(loop.step, 0) // per_epoch)
        )
        while loop.step < total:
            means = advance(loop, opened.world)
            if loop.engine.doubt is not None:
                report.say(f"gradient steps are taken one by one, which is slower: {loop.engine.doubt}")
                loop.engine.doubt = None
            progress.update(loop.settings.block / per_epoch if loop.step > 0 else 0)
            if means is not None:
                _record_epoch(trained, means)
                epoch = loop.step // per_epoch
                if (
                    environments
                    and settings.eval_every
                    and (epoch % settings.eval_every == 0 or epoch == settings.epochs)
                ):
                    _evaluate(trained, opened, environments)
                _show(table, trained, settings)
            stop = stage.should_stop()
            if stop or time.monotonic() - last_save > _SAVE_SECONDS:
                _save(stage, trained, settings)
                last_save = time.monotonic()
            if stop:
                raise Stopped(stage.signal)
    return trained


def learner_settings(kind: Any, settings: PolicyTraining, act_dim: int) -> Any:
    """An algorithm's own settings, of the dataclass `kind`; the target entropy is -act_dim where none is set."""
    values = {name: getattr(settings, name) for name in kind.__dataclass_fields__}
    if "target_entropy" in values and settings.target_entropy is None:
        values["target_entropy"] = -float(act_dim)
    return kind(**values)


def loop_settings(settings: PolicyTraining) -> LoopSettings:
    """The schedule."""
    return LoopSettings(**{name: getattr(settings, name) for name in LoopSettings.__dataclass_fields__})


def _environments(context: ExitStack, opened: OpenWorld, settings: PolicyTraining, report: Report) -> list[Environment]:
    env_id = opened.data.info.env_id
    if not settings.eval_every:
        return []
    if env_id is None:
        report.say("The dataset names no environment, so the policies are not evaluated while they train.")
        return []
    return context.enter_context(open_environments(env_id, settings.eval_episodes, opened.data.info.env_kwargs))


def _record_epoch(trained: Trained, means: dict[str, torch.Tensor]) -> None:
    loop = trained.loop
    epoch = loop.step // loop.settings.steps_per_epoch
    values = {name: mean.tolist() for name, mean in means.items()}
    finite = loop.agent.finite().tolist()
    for m, history in enumerate(trained.histories):
        if trained.diverged[m]:
            continue
        trained.diverged[m] = not finite[m]
        record = {"epoch": epoch, **{name: value[m] for name, value in values.items()}}
        if loop.tallies:
            tally = loop.tallies[m]
            dead = tally.terminated + tally.guarded + tally.dropped
            record |= {"dead": dead, "guarded": tally.guarded, "dropped": tally.dropped}
            if loop.members[m].penalty == ORACLE:
                record["unknown"] = tally.unknown
        history.append(record)


def _evaluate(trained: Trained, opened: OpenWorld, environments: list[Environment]) -> None:
    info = opened.data.info
    for m, history in enumerate(trained.histories):
        if trained.diverged[m]:
            continue
        policy = greedy_policy(trained.actor(m), info.action_low, info.action_high)
        member, epoch = trained.loop.members[m], history[-1]["epoch"]
        results = evaluate_returns(policy, environments, seed=member.seed * 1_000_003 + epoch)
        history[-1] |= {"return": float(results.returns.mean()), "length": float(results.lengths.mean())}


_TITLES = {"q": "Q"} | {f"ratio_p{level}": f"ratio {level} %" for level in (10, 50, 90)}


def _metrics(loop: Loop) -> tuple[str, ...]:
    """What the live table shows of an epoch: the algorithm's own numbers, and the penalty where there is one."""
    penalised = bool(loop.penalty.any()) and loop.settings.real_rows < loop.settings.batch_size
    return (*loop.algorithm.metrics, *(("penalty",) if penalised else ()))


def _columns(loop: Loop) -> tuple[str, ...]:
    titles = (_TITLES.get(name, name.replace("_", " ")) for name in _metrics(loop))
    return ("epoch", "return per seed or cell", *titles, *(("dead rollouts",) if max(loop.pool.capacities) else ()))


def _show(table: Any, trained: Trained, settings: PolicyTraining) -> None:
    living = [history[-1] for history, lost in zip(trained.histories, trained.diverged, strict=True) if not lost]

    def mean(name: str) -> float | None:
        values: list[float] = [record[name] for record in living if name in record]
        return sum(values) / len(values) if values else None

    epoch = trained.loop.step // settings.steps_per_epoch
    returns = " ".join(_outcomes(trained))
    numbers: list[Any] = [mean(name) for name in _metrics(trained.loop)]
    if max(trained.loop.pool.capacities):
        dead = mean("dead")
        numbers.append(None if dead is None else f"{dead:.1%}")
    table.row(f"{epoch}/{settings.epochs}", returns, *numbers)


def _outcomes(trained: Trained) -> list[str]:
    """The latest return of every seed; where several cells are trained, the mean over seeds of each."""
    cells: dict[tuple[Any, ...], list[float | None]] = {}
    for member, history, lost in zip(trained.loop.members, trained.histories, trained.diverged, strict=True):
        values = cells.setdefault((member.penalty, member.lam, member.h), [])
        values.append(float("nan") if lost else history[-1].get("return"))
    if len(cells) > 1:
        shown = [[value for value in values if value is not None] for values in cells.values()]
        results = [sum(values) / len(values) if values else None for values in shown]
    else:
        (results,) = cells.values()
    return ["-" if value is None else "diverged" if value != value else f"{value:.1f}" for value in results]


def _save(stage: Stage, trained: Trained, settings: PolicyTraining) -> None:
    tensors, numbers = loop_state(trained.loop)
    meta = {"stack": _stack(trained.loop, settings), "histories": trained.histories, "diverged": trained.diverged}
    stage.save_state(tensors, meta | {"loop": numbers})


def _resume(stage: Stage, trained: Trained, world: World, settings: PolicyTraining, report: Report) -> None:
    saved = stage.load_state(str(world.real.device))
    if saved is None:
        return
    tensors, meta = saved
    # An ablation trains one stack after another; the last checkpoint may be of a stack that has been published.
    if meta["stack"] != _stack(trained.loop, settings):
        return
    restore_loop(trained.loop, world, tensors, meta["loop"])
    trained.histories, trained.diverged = meta["histories"], meta["diverged"]
    report.say(f"training goes on at gradient step {trained.loop.step:,}")


def raise_if_diverged(result: dict[str, Any]) -> None:
    """DivergedError when the finished stage's result names members whose weights are not finite."""
    if result.get("diverged"):
        raise DivergedError(
            f"Training diverged (not finite) for {', '.join(result['diverged'])}; only the others were published.",
            hint="a larger --lam, a smaller --h or a lower --critic-lr",
        )


def _stack(loop: Loop, settings: PolicyTraining) -> list[Any]:
    """What tells this stack from another one of the same stage, as JSON has it."""
    shared = settings.model_dump(mode="json", include=settings.shared())
    return [shared, [[member.seed, member.penalty, member.lam, member.h] for member in loop.members]]


def publish_member(
    folder: Path, trained: Trained, m: int, opened: OpenWorld, settings: PolicyTraining, stage: Stage
) -> dict[str, Path]:
    """Write policy.safetensors, metrics.jsonl and what else the algorithm has of one member; returns them by role."""
    member, info = trained.loop.members[m], opened.data.info
    origin = {
        "obs_dim": opened.world.rows.obs_dim,
        "act_dim": opened.world.rows.act_dim,
        "env_id": info.env_id,
        "seed": member.seed,
        "model_seed": opened.model_seed(member),
        "inputs": {role: stage.inputs[role]["sha256"] for role in policy_inputs(stage.run, settings)},
    }
    meta = origin | {
        "hidden": settings.hidden,
        "layers": settings.layers,
        "action_low": info.action_low.tolist(),
        "action_high": info.action_high.tolist(),
        "penalty": member.penalty,
        "lam": member.lam,
        "h": member.h,
        "epochs": settings.epochs,
    }
    policy, metrics = folder / "policy.safetensors", folder / "metrics.jsonl"
    save_policy(policy, trained.actor(m), meta)
    write_jsonl(metrics, trained.histories[m])
    roles = {f"policy/seed-{member.seed}": policy, f"metrics/seed-{member.seed}": metrics}
    for name, tensors in trained.loop.algorithm.files(trained.loop.agent, m).items():
        path = folder / f"{name}.safetensors"
        save_tensors(path, tensors, {"kind": name, **origin, "policy_sha256": sha256_file(policy)})
        roles[f"{name}/seed-{member.seed}"] = path
    keep_only(folder, [path.name for path in roles.values()])
    return roles
