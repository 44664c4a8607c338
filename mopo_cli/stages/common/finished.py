"""The training states that finished policies leave, a file per seed: with these they can be trained for longer."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mopo_cli.agents.loop import loop_state
from mopo_cli.agents.runs import Loop
from mopo_cli.agents.states import LoopState, member_state, stacked_state
from mopo_cli.config.schema import TrainPolicy
from mopo_cli.errors import CorruptError, InputError
from mopo_cli.nets import libraries
from mopo_cli.stages.common.attempt import AFRESH
from mopo_cli.stages.common.inputs import described
from mopo_cli.stages.common.reuse import wall_seconds
from mopo_cli.stages.common.same_settings import NOT_OF_A_SEED, other_training
from mopo_cli.stages.runner import Stage
from mopo_cli.store.atomic import plain
from mopo_cli.store.checkpoint import load_tensors, save_tensors
from mopo_cli.store.documents import checked
from mopo_cli.store.headers import FinishedHeader
from mopo_cli.store.lineage import hashes
from mopo_cli.store.publication import Publication
from mopo_cli.store.run import RunFolder

_FILE = re.compile(r"seed-(\d{1,19})_epoch-(\d{1,19})\.safetensors")


@dataclass(frozen=True)
class Earlier:
    """What was trained before: the state of a stack, the epochs of each member, and the seconds that all took."""

    state: LoopState
    histories: list[list[dict[str, Any]]]
    seconds: float


def finished_folder(run: RunFolder, key: str) -> Path:
    """Where the training states of a policy are."""
    return run.state(key) / "finished"


def state_path(run: RunFolder, key: str, seed: int, epochs: int) -> Path:
    """The training state of a seed after so many epochs."""
    return finished_folder(run, key) / f"seed-{seed}_epoch-{epochs}.safetensors"


def stage_states(stage: Stage, loop: Loop, histories: Sequence[list[dict[str, Any]]], lost: Sequence[bool]) -> None:
    """Stage the training state of every member that is not lost, and say where it will be and how large it is."""
    state, members, paths = loop_state(loop), loop.members, []
    settings = {name: value for name, value in plain(stage.settings).items() if name not in NOT_OF_A_SEED}
    about: dict[str, Any] = {
        "kind": "training state",
        "settings": settings,
        "inputs": hashes(stage.inputs),
        "products": libraries.in_use(),
    }
    for m, member in enumerate(members):
        if not lost[m]:
            tensors, numbers = member_state(state, m, len(members))
            paths.append(state_path(stage.run, stage.key, member.seed, stage.settings["epochs"]))
            progress = {"loop": numbers, "history": histories[m]}
            save_tensors(stage.out.stage(paths[-1]), tensors, about | {"seed": member.seed, "progress": progress})
    if paths:
        size = sum(stage.out.at_present(path).stat().st_size for path in paths)
        shown = f"{size / 1e6:,.1f} MB" if size > 1e6 else f"{size / 1e3:.0f} kB"
        stage.report.say(f"to go on later with more --epochs, {shown} are kept in {paths[0].parent}")


def discard_states(run: RunFolder, key: str, seeds: Collection[int], epochs: Any, out: Publication) -> None:
    """Have ``out`` remove all training states but those of these seeds after so many epochs."""
    for path in finished_folder(run, key).glob("*"):
        match = _FILE.fullmatch(path.name)
        if not (match and int(match[1]) in seeds and int(match[2]) == epochs):
            out.remove(path)


def load_states(stage: Stage, seeds: Sequence[int], settings: TrainPolicy, epochs: int, device: str) -> Earlier:
    """The states of seeds after so many epochs, as a stack; CorruptError or InputError where one cannot be used."""
    states, histories, seconds = [], [], 0.0
    for seed in seeds:
        path = state_path(stage.run, stage.key, seed, epochs)
        try:
            tensors, meta = load_tensors(path, device)
        except CorruptError as error:
            raise CorruptError(error.message, hint=AFRESH) from error
        header = checked(path, FinishedHeader, meta, AFRESH)
        progress = header["progress"]
        if (
            header["seed"] != seed
            or header["inputs"] != hashes(stage.inputs)
            or other_training(header["settings"], stage.settings).keys() - {"epochs"}
            or progress["loop"]["step"] != epochs * settings.steps_per_epoch
        ):
            raise InputError(f"{path} is of another training.", hint=AFRESH)
        states.append((tensors, progress["loop"]))
        histories.append(progress["history"])
        seconds += wall_seconds(stage.run.policy(settings.policy_name(), seed).parent) or 0.0
    for history in histories:
        _forget_last_evaluation(history, settings.eval_every)
    with described(finished_folder(stage.run, stage.key), AFRESH):
        return Earlier(stacked_state(states), histories, seconds)


def _forget_last_evaluation(history: list[dict[str, Any]], every: int) -> None:
    """The last epoch is always evaluated; in a longer training it is not the last."""
    last = history[-1]
    if every and last["epoch"] % every:
        last.pop("return", None)
        last.pop("length", None)
