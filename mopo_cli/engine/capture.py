"""Engines: how a step that is taken a million times is carried out.

Eager is the reference: Python asks for every operation in turn. On a GPU that asking takes longer than the operations
do. So what a step launches is recorded once and replayed, on the same memory, for all steps after it. What is replayed
is compared with the reference a few times, and given up where it differs.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from mopo_cli.engine.streams import Draws

Step = Callable[..., None]
"""`step(*inputs, draws)` does all its work in place, by operations that depend on its inputs' shapes alone."""

Key = tuple[Any, ...]
"""What tells steps that launch different things apart: the kind of step, and what else matters."""

Recorder = Callable[[Callable[[], None]], Callable[[], object]]
"""Takes what is to be recorded, and gives what does it again."""

State = tuple[dict[str, Tensor], list[int]]
"""Tensors by name, and numbers."""

_CHECKS = 3
_TOLERANCE = 0.01  # of what a step changes


def check_shapes(tensors: dict[str, Tensor], expected: dict[str, torch.Size]) -> None:
    """KeyError or ValueError where tensors that are to be put back are missing or have other shapes than expected."""
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} has shape {list(tensors[name].shape)}, not {list(shape)}")


def cuda_graph(work: Callable[[], None]) -> Callable[[], object]:
    """The `Recorder` of a GPU, the current one; RuntimeError where something in `work` cannot be recorded."""
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError as error:
        # What ends a capture that has failed complains of the failure, and leaves the capture's stream in use.
        torch.cuda.set_stream(stream)
        raise RuntimeError(str(error.__context__ or error)) from error
    replay: Callable[[], object] = graph.replay
    return replay


@dataclass
class Tape:
    """Stands for `Draws` in a recorded step, which cannot draw: hands out the same memory again, refilled in between.

    What is asked for is noted the first time, while `notes` is true.
    """

    source: Draws
    notes: bool = True
    asked: list[tuple[str, tuple[int, ...], Tensor]] = field(default_factory=list)
    position: int = 0

    def normal(self, lead: int, *shape: int) -> Tensor:
        """See `Draws.normal`."""
        return self._next("normal", lead, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """See `Draws.uniform`."""
        return self._next("uniform", *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """See `Draws.integers`."""
        return self._next("integers", high, *shape)

    def _next(self, kind: str, *shape: int) -> Tensor:
        if self.notes:
            self.asked.append((kind, shape, getattr(self.source, kind)(*shape)))
        noted = self.asked[self.position] if self.position < len(self.asked) else ("nothing", (), None)
        if noted[:2] != (kind, shape):
            raise RuntimeError(f"the step drew {noted[0]} {noted[1]} before and draws {kind} {shape} now")
        room: Tensor = self.asked[self.position][2]
        self.position += 1
        return room

    def rewind(self) -> "Tape":
        """Begin again with what was handed out first."""
        self.notes, self.position = False, 0
        return self

    def refill(self, draws: Draws) -> None:
        """Draw what will be asked for, in the order of the asking."""
        for kind, shape, room in self.asked:
            room.copy_(getattr(draws, kind)(*shape))


@dataclass(frozen=True)
class Changes:
    """What steps change: gives its tensors themselves, and takes over the values of others."""

    state: Callable[[], State]
    restore: Callable[[State], None]


@dataclass
class Recorded:
    """One recorded step: the memory of its inputs, its draws, what replays it, and how often that was compared."""

    inputs: tuple[Tensor, ...]
    tape: Tape
    replay: Callable[[], object] | None = None
    checks: int = 0


@dataclass
class Engine:
    """Takes steps; eagerly without a recorder. `around` is what is done around each.

    `doubt` says why a kind of step is recorded no more.
    """

    record: Recorder | None = None
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    doubt: str | None = None
    _recorded: dict[Key, Recorded] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    def take(self, step: Step, inputs: tuple[Tensor, ...], draws: Draws, key: Key, changes: Changes) -> None:
        """Take a step with these inputs. Steps of one key launch the same, and change nothing but `changes`.

        The first of a key is taken eagerly, which notes what it draws, and the second is recorded.
        """
        with self.around():
            self._take(step, inputs, draws, key, changes)

    def _take(self, step: Step, inputs: tuple[Tensor, ...], draws: Draws, key: Key, changes: Changes) -> None:
        if self.record is None or key[0] in self._refused:
            step(*inputs, draws)
        elif key not in self._recorded:
            # In memory as it will be recorded in, so that the same kernels are chosen.
            recorded = Recorded(tuple(own.clone() for own in inputs), Tape(draws))
            step(*recorded.inputs, cast(Draws, recorded.tape))
            self._recorded[key] = recorded
        else:
            self._replay(self.record, step, key, inputs, draws, changes)

    def keep(self, keys: Collection[Key] = ()) -> None:
        """Forget the recorded steps of all other keys."""
        self._recorded = {key: recorded for key, recorded in self._recorded.items() if key in keys}

    def _replay(
        self,
        record: Recorder,
        step: Step,
        key: Key,
        inputs: tuple[Tensor, ...],
        draws: Draws,
        changes: Changes,
    ) -> None:
        recorded = self._recorded[key]
        for room, value in zip(recorded.inputs, inputs, strict=True):
            room.copy_(value)
        recorded.tape.refill(draws)
        if recorded.replay is not None and recorded.checks == _CHECKS:
            recorded.replay()
            return

        def eagerly() -> None:
            step(*recorded.inputs, cast(Draws, recorded.tape.rewind()))

        before, replayed = _copy(changes.state()), None
        try:
            recorded.replay = recorded.replay or record(eagerly)
            recorded.replay()
            replayed = _copy(changes.state())
        except RuntimeError as error:
            self._give_up(key, f"a step cannot be recorded ({str(error).splitlines()[0]})")
        changes.restore(before)
        eagerly()
        recorded.checks += 1
        if replayed is not None and not _alike(before, replayed, changes.state()):
            self._give_up(key, "a recorded step changes other numbers than the step itself")

    def _give_up(self, key: Key, why: str) -> None:
        kind, self.doubt = key[0], why
        self._refused.add(kind)
        self._recorded = {key: recorded for key, recorded in self._recorded.items() if key[0] != kind}


def _copy(state: State) -> State:
    tensors, taken = state
    return {name: tensor.clone() for name, tensor in tensors.items()}, list(taken)


def _alike(before: State, replayed: State, taken: State) -> bool:
    """Whether two outcomes of a step are the same but for rounding."""
    names = taken[0]
    return replayed[1] == taken[1] and all(_agree(before[0][n], replayed[0][n], taken[0][n]) for n in names)


def _agree(before: Tensor, replayed: Tensor, taken: Tensor) -> bool:
    # By each member's sums: where Adam divides a gradient near 0 by its size, rounding shows in full in a few numbers.
    change, off, size = (_sums(a - b) for a, b in ((taken, before), (replayed, taken), (taken, 0)))
    return torch.equal(replayed.isnan(), taken.isnan()) and bool((off <= _TOLERANCE * change + 1e-6 * size).all())


def _sums(x: Tensor) -> Tensor:
    sizes = x.nan_to_num().abs()
    return sizes.flatten(1).sum(dim=1) if x.dim() > 1 else sizes.sum()
