"""Which library makes each kind of product fastest on this processor, measured by turns."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import quantiles

import torch

from mopo_cli.nets import libraries
from mopo_cli.nets.libraries import KINDS, LIBRARIES, Choice, Kind, Library
from mopo_cli.nets.products import can_use_onednn, product, product_into, product_silu

# OneDNN is taken where it is faster by more than this. Measured again beside three processes on each core, ratios
# differ by 5 %: so the same is chosen again, and on machines alike.
_SURE = 1.1
_SECONDS, _LONGEST = 0.3, 0.6  # that all turns take together, and that may pass meanwhile on a busy machine
_LEAST, _MOST = 9, 25  # turns
# What is multiplied: rows, inputs and outputs of layers of policies, of models in training and in rollouts.
_LAYERS = ((256, 256, 256), (256, 200, 200), (1024, 200, 200))
_SIZES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "small": 4 * ((256, 23, 256), (256, 200, 24)),  # first and last layers
    "layer": _LAYERS,
    "gradient": _LAYERS[:2],
    "silu": _LAYERS[2:],
}


@dataclass(frozen=True)
class Measured:
    """The library chosen for each kind, and what was measured: billions of operations a second by library."""

    choice: Choice
    speeds: dict[Kind, dict[Library, float]]


def fastest(clock: Callable[[], float], wall: Callable[[], float]) -> Measured:
    """Measure both libraries, one after the other and that again, about a third of a second in all.

    `clock` gives seconds, best those of this thread alone, and `wall` those that pass. Torch's operations should be on
    one thread meanwhile, as they are in training, whose results must not depend on the number of threads. Of each
    library the first quartile of its times counts, which other work on the machine moves least.
    """
    before = libraries.in_use()
    works = {kind: _work(kind) for kind in KINDS if can_use_onednn(_dtype(kind))}
    seconds: dict[tuple[Kind, Library], list[float]] = {}
    try:
        _take_turn(works, clock, {})  # in the first calls kernels are made
        begin, spent, turn = wall(), 0.0, 0
        while turn < _LEAST or (turn < _MOST and spent < _SECONDS and wall() - begin < _LONGEST):
            spent, turn = spent + _take_turn(works, clock, seconds), turn + 1
    finally:
        libraries.use(before)
    speeds = {
        kind: {library: works[kind][1] / max(quantiles(seconds[kind, library])[0], 1e-9) / 1e9 for library in LIBRARIES}
        for kind in works
    }
    taken: dict[Kind, Library] = {
        kind: "onednn" if kind in speeds and speeds[kind]["onednn"] > _SURE * speeds[kind]["mkl"] else "mkl"
        for kind in KINDS
    }
    return Measured(taken, speeds)


_Works = dict[Kind, tuple[Callable[[], object], int]]


def _take_turn(works: _Works, clock: Callable[[], float], seconds: dict[tuple[Kind, Library], list[float]]) -> float:
    """All works once by each library; returns the seconds together."""
    total = 0.0
    for kind, (work, _) in works.items():
        for library in LIBRARIES:
            libraries.use({kind: library})
            start = clock()
            work()
            seconds.setdefault((kind, library), []).append(clock() - start)
            total += seconds[kind, library][-1]
    return total


def _dtype(kind: Kind) -> torch.dtype:
    return torch.float32 if kind.startswith("float32") else torch.bfloat16


def _work(kind: Kind) -> tuple[Callable[[], object], int]:
    """Products of a kind, and how many operations they are."""
    what, dtype = kind.split()[1], _dtype(kind)
    jobs: list[Callable[[], object]] = []
    for rows, inputs, outputs in _SIZES[what]:
        x, grad = torch.ones(rows, inputs, dtype=dtype), torch.ones(rows, outputs, dtype=dtype)
        weight, bias = torch.ones(inputs, outputs, dtype=dtype), torch.ones(1, outputs, dtype=dtype)
        if what == "gradient":
            jobs.append(partial(product_into, torch.empty(inputs, outputs), x.t(), grad))
        elif what == "silu":
            jobs.append(partial(product_silu, x, weight, bias))
        else:
            jobs += [partial(product, x, weight, bias), partial(product, grad, weight.t())]
    each = 2 if what in ("small", "layer") else 1
    operations = sum(2 * each * rows * inputs * outputs for rows, inputs, outputs in _SIZES[what])
    return lambda: [job() for job in jobs], operations
