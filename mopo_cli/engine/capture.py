"""Engines: how a gradient step that is taken a million times is run.

Eager is the reference: Python launches every operation in turn. On a GPU launching takes longer than the operations
do. So what a step launches is recorded once and replayed, on the same memory, for all steps after it. The replay is
compared with the reference a few times, and not used where it differs.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from mopo_cli.engine.streams import Draws

Step = Callable[..., None]
"""`step(*inputs, draws)` changes tensors in place, by operations that depend on its inputs' shapes alone."""

Key = tuple[Any, ...]
"""Steps of one key launch the same operations: the kind of step, and what else they depend on."""

Recorder = Callable[[Callable[[], None]], Callable[[], object]]
"""Records what a function launches, and returns a function that launches it again; it may also carry it out."""

State = tuple[dict[str, Tensor], list[int]]
"""Tensors by name, and numbers."""

_CHECKS = 3
_TOLERANCE = 0.01  # of what a step changes


def check_shapes(tensors: dict[str, Tensor], expected: dict[str, torch.Size]) -> None:
    """KeyError or ValueError where tensors of a checkpoint are missing or have other shapes than expected."""
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
        # The end of a failed capture raises an error about the failure, and leaves the capture's stream in use.
        torch.cuda.set_stream(stream)
        raise RuntimeError(str(error.__context__ or error)) from error
    replay: Callable[[], object] = graph.replay
    return replay


@dataclass
class Tape:
    """Replaces `Draws` in a recorded step, which cannot draw: returns the same memory each time, refilled in between.

    The first time, while `first` is true, it notes what is drawn: `drawn` has the kind, its arguments and the memory.
    """

    source: Draws
    first: bool = True
    drawn: list[tuple[str, tuple[int, ...], Tensor]] = field(default_factory=list)
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
        if self.first:
            self.drawn.append((kind, shape, getattr(self.source, kind)(*shape)))
        before = self.drawn[self.position] if self.position < len(self.drawn) else ("nothing", (), None)
        if before[:2] != (kind, shape):
            raise RuntimeError(f"the step drew {before[0]} {before[1]} before and draws {kind} {shape} now")
        memory: Tensor = self.drawn[self.position][2]
        self.position += 1
        return memory

    def rewind(self) -> "Tape":
        """Start again with what was drawn first."""
        self.first, self.position = False, 0
        return self

    def refill(self, draws: Draws) -> None:
        """Draw everything again, in the same order."""
        for kind, shape, memory in self.drawn:
            memory.copy_(getattr(draws, kind)(*shape))


@dataclass(frozen=True)
class Changes:
    """What steps change: `state` returns its tensors themselves, `restore` copies the values of others into them."""

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
    """Takes steps, each inside a `context`; eagerly without a recorder.

    `why_eager` says why a kind of step is no longer recorded.
    """

    record: Recorder | None = None
    context: Callable[[], AbstractContextManager[None]] = nullcontext
    why_eager: str | None = None
    _recorded: dict[Key, Recorded] = field(default_factory=dict)
    _refused: set[str] = field(default_factory=set)

    def take(self, step: Step, inputs: tuple[Tensor, ...], draws: Draws, key: Key, changes: Changes) -> None:
        """Take a step with these inputs. Steps of one key launch the same operations, and change only `changes`.

        The first of a key is taken eagerly, to note what it draws; the second is recorded.
        """
        with self.context():
            self._take(step, inputs, draws, key, changes)

    def _take(self, step: Step, inputs: tuple[Tensor, ...], draws: Draws, key: Key, changes: Changes) -> None:
        if self.record is None or key[0] in self._refused:
            step(*inputs, draws)
        elif key not in self._recorded:
            # In memory as it will be recorded in, so that the same kernels are chosen.
            recorded = Recorded(tuple(tensor.clone() for tensor in inputs), Tape(draws))
            step(*recorded.inputs, cast(Draws, recorded.tape))
            self._recorded[key] = recorded
        else:
            self._replay(self.record, step, key, inputs, draws, changes)

    def forget_all(self) -> None:
        """Forget the recorded steps: the memory that they work on is no longer in use."""
        self.forget_all_but(())

    def forget_all_but(self, keys: Collection[Key]) -> None:
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
        for memory, value in zip(recorded.inputs, inputs, strict=True):
            memory.copy_(value)
        recorded.tape.refill(draws)
        if recorded.replay is not None and recorded.checks == _CHECKS:
            recorded.replay()
            return

        def eagerly() -> None:
            step(*recorded.inputs, cast(Draws, recorded.tape.rewind()))

        before, replayed = _copy(changes.state()), None
        try:
            if recorded.replay is None:
                recorded.replay = record(eagerly)
                changes.restore(before)  # a recorder may have taken the step
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
        kind, self.why_eager = key[0], why
        self._refused.add(kind)
        self._recorded = {key: recorded for key, recorded in self._recorded.items() if key[0] != kind}


def _copy(state: State) -> State:
    tensors, numbers = state
    return {name: tensor.clone() for name, tensor in tensors.items()}, list(numbers)


def _alike(before: State, replayed: State, eager: State) -> bool:
    """Whether a replayed and an eager step gave the same but for rounding."""
    return replayed[1] == eager[1] and all(_agree(before[0][n], replayed[0][n], eager[0][n]) for n in eager[0])


def _agree(before: Tensor, replayed: Tensor, eager: Tensor) -> bool:
    # By each member's sums: where Adam divides a gradient near 0 by its size, rounding shows in full in a few numbers.
    change, off, size = (_sums(a - b) for a, b in ((eager, before), (replayed, eager), (eager, 0)))
    return torch.equal(replayed.isnan(), eager.isnan()) and bool((off <= _TOLERANCE * change + 1e-6 * size).all())


def _sums(x: Tensor) -> Tensor:
    sizes = x.nan_to_num().abs()
    return sizes.flatten(1).sum(dim=1) if x.dim() > 1 else sizes.sum()
