"""The states of single members, from the state of their stack and back: `loop.loop_state` of one member and of many."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

LoopState = tuple[dict[str, Tensor], dict[str, Any]]
"""What `loop.loop_state` gives: tensors by name, and numbers."""


def member_state(state: LoopState, m: int, members: int) -> LoopState:
    """The state that member m of a stack of so many would have alone; its tensors are views.

    In a state the first axis of every tensor is the members', or has as many rows of each, one member after another.
    """
    tensors, numbers = state
    alone = {name: tensor.unflatten(0, (members, -1))[m] for name, tensor in tensors.items()}
    past = [[index, [positions[m]], [rows[m]]] for index, positions, rows in numbers["past"]]
    places = {name: [numbers[name][m]] for name in ("positions", "sizes")}
    return alone, {"step": numbers["step"], "adam": numbers["adam"], "past": past, **places}


def stacked_state(states: Sequence[LoopState]) -> LoopState:
    """The state of a stack whose members have these states. ValueError where they are not at the same step.

    A member needs fewer past rollouts the longer they are, and has none older than it needs: where another has one,
    it gets its oldest a second time. What that writes into its pool is overwritten by the later ones, which fill it.
    """
    numbers = [of_member for _, of_member in states]
    if any((n["step"], n["adam"]) != (numbers[0]["step"], numbers[0]["adam"]) for n in numbers):
        raise ValueError("members at different steps")
    indices = sorted({index for n in numbers for index, *_ in n["past"]})
    padded = [_padded(state, indices) for state in states]
    names = [name for name in states[0][0] if not name.startswith("past/")]
    tensors = {name: torch.cat([of_member[name] for of_member, _ in states]) for name in names}
    tensors |= {f"past/{i}": torch.cat([past[i][0] for past in padded]) for i in indices}
    return tensors, {
        "step": numbers[0]["step"],
        "adam": numbers[0]["adam"],
        "past": [
            [i, [p for past in padded for p in past[i][1]], [r for past in padded for r in past[i][2]]] for i in indices
        ],
        **{name: [place for n in numbers for place in n[name]] for name in ("positions", "sizes")},
    }


def _padded(state: LoopState, indices: list[int]) -> dict[int, tuple[Tensor, list[int], list[int]]]:
    """By index the parameters, positions and rows of the past rollouts of one member."""
    tensors, numbers = state
    past = {index: (tensors[f"past/{index}"], positions, rows) for index, positions, rows in numbers["past"]}
    return {index: past.get(index) or past[min(past)] for index in indices}
