"""A world in other units: observations in standard deviations from their means, all else as it was.

Agents learn in it as in any other. The dynamics are the same, as only the constants of the ensembles change; what
judges states by the task's own numbers (the rule of its ends, the guard, the simulator) sees them as they were. An
agent's policy is for such observations: `Standard.folded` makes it one for observations as they are.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mopo_cli.agents.world import World
from mopo_cli.dynamics.branched_rollouts import Restated, RolloutOptions
from mopo_cli.dynamics.penalties import PenaltyForm
from mopo_cli.nets.scales import Standard

_ROWS = 1 << 16  # restated at once, in float64


def in_standard_units(world: World, standard: Standard) -> World:
    """The same world, its observations standardised by `standard`; uncertainties keep the units that they have."""
    rows, options = world.row_layout, _options(world.options, standard)
    for ensemble in world.ensembles[:1]:  # all predict the same numbers
        options = replace(options, form=_form(options.form, standard.divisor[: ensemble.frame]))

    def block(packed: Tensor) -> Tensor:
        columns = dict(vars(rows.split(packed)))
        for name in ("observation", "next_observation"):
            columns[name] = standard.apply(columns[name])
        return rows.pack(**columns)

    def restated(packed: Tensor) -> Tensor:
        return torch.cat([block(part) for part in packed.split(_ROWS)])

    return replace(
        world,
        real=restated(world.real),
        start=torch.cat([standard.apply(part) for part in world.start.split(_ROWS)]),
        rule=Restated(world.rule, standard.undo),
        ensembles=tuple(ensemble.in_units(standard.mean, standard.divisor) for ensemble in world.ensembles),
        buffer=None if world.buffer is None else restated(world.buffer),
        options=options,
        standard=standard,
    )


def _options(options: RolloutOptions, standard: Standard) -> RolloutOptions:
    judges = {"oracle": options.oracle, "guard": options.guard, "reward": options.reward}
    restated: dict[str, Any] = {name: each and Restated(each, standard.undo) for name, each in judges.items()}
    return replace(options, **restated)


def _form(form: PenaltyForm, divisor: Tensor) -> PenaltyForm:
    divisor = torch.cat([divisor, divisor.new_ones(1)])
    scale = divisor.new_ones(len(divisor)) if form.scale is None else form.scale.double()
    return replace(form, scale=(scale / divisor).float())
