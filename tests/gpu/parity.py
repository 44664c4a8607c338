"""Recorded gradient steps are the steps: on the device, at the sizes that people train at."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from gpu.check import Check, Failed
from gpu.inputs import recorder_of, settings_of, shapes_of
from probes.stacks import SCHEDULE, start
from torch import Tensor

from mopo_cli.agents.algorithms import NAMES
from mopo_cli.agents.loop import advance, trained_state
from mopo_cli.bench.workloads import model_stack
from mopo_cli.dynamics.fit import trained_state as state_of_fit
from mopo_cli.dynamics.training import advance as advance_fit
from mopo_cli.engine.capture import Engine, Recorder
from mopo_cli.engine.parallel import use_threads
from mopo_cli.nets.precision import Precision
from mopo_cli.stages.common.device import can_multiply

ALIKE = 0.01
"""Of the size of a tensor: what replayed or resumed steps may differ by on a GPU, beside what eager ones do."""
_PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")


def parity(check: Check) -> None:
    """Recorded steps against eager ones, for all algorithms and the ensemble; float32 first, then others if in time.

    A step that the engine refuses to record is a fault.
    """
    use_threads(1)
    steps, names = (16, ["sac", "drop"]) if check.quick else (200, list(NAMES))
    wrong: list[str] = []
    results: dict[str, dict[str, Any]] = {}
    left = check.left
    for precision in _PRECISIONS:
        spent, left = left - check.left, check.left
        if spent > left or not can_multiply(precision, torch.device(check.device)):
            continue
        results[precision] = {}
        for name in ["train-model", *names]:
            train = partial(_fitted, check) if name == "train-model" else partial(_trained, check, name)
            (eager, _), (again, _) = train(precision, steps, None), train(precision, steps, None)
            recorded, engine = train(precision, steps, recorder_of(check))
            off, floor = difference(recorded, eager), difference(again, eager)
            results[precision][name] = {"difference": off, "eager_twice": floor, "doubt": engine.why_eager}
            if engine.why_eager is not None or not off <= ALIKE + 10 * floor:
                wrong.append(f"{name} in {precision}: {engine.why_eager or f'differs by {off:.2g}'}")
            check.note(steps=steps, precisions=results)
    check.note(largest=max(each["difference"] for of in results.values() for each in of.values()))
    if wrong:
        raise Failed("; ".join(wrong))


def _trained(
    check: Check, name: str, precision: Precision, steps: int, recorder: Recorder | None
) -> tuple[dict[str, Tensor], Engine]:
    full = replace(SCHEDULE, steps_per_epoch=50, rollout_every=50, rollout_batch=1000, batch_size=256)
    how: dict[str, Any] = {} if check.quick else {"schedule": full, "hidden": 256}
    loop, world = start(name, recorder, device=check.device, precision=precision, **how)
    while loop.step < steps:
        advance(loop, world)
    return trained_state(loop)[0], loop.engine


def _fitted(
    check: Check, precision: Precision, steps: int, recorder: Recorder | None
) -> tuple[dict[str, Tensor], Engine]:
    settings, shapes = settings_of(check)[0].model_copy(update={"update_precision": precision}), shapes_of(check)
    fit = model_stack(settings, shapes, torch.device(check.device), recorder)
    advance_fit(fit, steps)
    return state_of_fit(fit)[0], fit.engine


def difference(some: dict[str, Tensor], others: dict[str, Tensor]) -> float:
    """The largest over all tensors of the difference's norm in that of the others; infinite where not a number is."""
    largest = 0.0
    for name, other in others.items():
        off, size = (some[name].double() - other.double()).norm().item(), other.double().norm().item()
        largest = max(largest, off / size if size else off) if off < float("inf") else float("inf")
    return largest
