"""Ensembles trained by processes that take every step together, on a CPU with several cores.

Each process trains every so-manieth network, in memory that all share. After each step they tell one another what the
bounds of the variance, of which an ensemble has one pair, should change by.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mopo_cli.dynamics.fit import Fit, FitSettings
from mopo_cli.dynamics.split import FitData
from mopo_cli.dynamics.training import EpochReport, advance, end_epoch, steps_per_epoch, take_steps
from mopo_cli.engine.processes import Helper, can_team, forked, shared_floats
from mopo_cli.engine.workers import thread_count
from mopo_cli.nets.adam import Adam

Advance = Callable[[int], EpochReport | None]
"""Takes up to so many steps, as `training.advance` does."""

Question = tuple[int, int, list[int], int, NDArray[np.float32], int]
"""The epoch, the step, which seeds are active, how many steps to take, the NLL so far, and the steps of Adam."""


@dataclass(frozen=True)
class Common:
    """The memory that all share, `[S * K, size]` each: parameters and their moments."""

    flat: Tensor
    first: Tensor
    second: Tensor

    def hold(self, fit: Fit, networks: int) -> None:
        """Let a fit go on with the first so many networks, as they are here."""
        flat, first, second = (own[:networks] for own in (self.flat, self.first, self.second))
        fit.hold(flat, Adam(first, second, torch.zeros_like(flat), fit.adam.steps))

    def take_over(self, fit: Fit) -> None:
        """Let a fit go on here with what it has elsewhere, since it was restored or lost a seed."""
        if fit.flat.data_ptr() == self.flat.data_ptr():
            return
        networks = len(fit.flat)
        for own, other in ((self.flat, fit.flat), (self.first, fit.adam.first), (self.second, fit.adam.second)):
            own[:networks].copy_(other)
        self.hold(fit, networks)


@contextmanager
def open_crew(fit: Fit, data: FitData) -> Iterator[Advance]:
    """What takes the steps of a fit: `crew_size` processes, or this one alone."""
    processes = crew_size(fit.settings, len(fit.seeds), fit.flat.device)
    if not processes:
        yield partial(advance, fit, data)
        return
    common = Common(*(shared_floats(*fit.flat.shape) for _ in range(3)))

    def work(question: Question) -> NDArray[np.float32]:
        epoch, step, active, steps, nll_sum, taken = question
        if (epoch, active) != (fit.epoch, fit.active) or fit.order is None:
            fit.epoch, fit.active, fit.order = epoch, active, None
            common.hold(fit, len(nll_sum))
        fit.step, fit.nll_sum = step, torch.from_numpy(nll_sum)
        fit.adam.steps.fill_(taken)
        take_steps(fit, data, steps)
        return fit.nll_sum.numpy()

    with forked(1, work, thread_count() // processes, processes) as helpers:
        (helper,) = helpers.each
        yield partial(_advance, fit, data, common, helper)


def crew_size(settings: FitSettings, seeds: int, device: torch.device) -> int:
    """How many processes should train so many ensembles; 0: this one alone.

    A spectral norm is one of matrices that belong to several; and the last network, if its ensemble has but one, would
    be everyone's.
    """
    processes = min(thread_count(), seeds * settings.networks)
    able = device.type == "cpu" and settings.spectral_norm == "none" and settings.networks > 1 and can_team()
    return processes if able and processes > 1 else 0


def _advance(fit: Fit, data: FitData, common: Common, helper: Helper, steps: int) -> EpochReport | None:
    common.take_over(fit)
    last = steps_per_epoch(fit)
    steps = min(steps, last - fit.step)
    helper.ask((fit.epoch, fit.step, fit.active, steps, fit.nll_sum.numpy(), int(fit.adam.steps)))
    fit.nll_sum = torch.from_numpy(helper.answer()[0])
    fit.step += steps
    fit.adam.steps += steps
    return end_epoch(fit, data) if fit.step == last else None
