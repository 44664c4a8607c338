"""Initial weights, drawn per member from its own stream, on the CPU so that they are the same for every device."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mopo_cli.nets.stacked import Layout

Draw = Callable[[tuple[int, int], int, torch.Generator], Tensor]


def initial(layout: Layout, generators: list[torch.Generator], weight: Draw, bias: Draw) -> Tensor:
    """Draw flat parameters `[M, size]`, member m from `generators[m]`; a bias is drawn with the fan-in of its layer.

    `weight` and `bias` take (shape, fan_in, generator). Matrices named w… are weights, b… are biases; others stay zero.
    """
    flat = torch.zeros(len(generators), layout.size)
    views = layout.views(flat)
    for m, generator in enumerate(generators):
        for name, shape in layout.shapes:
            if name.startswith("w"):
                views[name][m] = weight(shape, shape[0], generator)
            elif name.startswith("b"):
                fan_in = views["w" + name[1:]].shape[1]
                views[name][m] = bias(shape, fan_in, generator)
    return flat


def truncated_normal(shape: tuple[int, int], fan_in: int, generator: torch.Generator) -> Tensor:
    """Draw a normal of std 1 / (2 sqrt(fan_in)), redrawing what lies beyond two std (MOPO's dynamics networks)."""
    values = torch.randn(shape, generator=generator)
    while bool((outside := values.abs() > 2).any()):
        values[outside] = torch.randn(int(outside.sum()), generator=generator)
    return values * (0.5 / math.sqrt(fan_in))


def uniform(shape: tuple[int, int], fan_in: int, generator: torch.Generator) -> Tensor:
    """Draw uniformly within 1 / sqrt(fan_in): what public SAC code starts from."""
    return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(fan_in)


def zeros(shape: tuple[int, int], fan_in: int, generator: torch.Generator) -> Tensor:
    """All zero, drawing nothing."""
    return torch.zeros(shape)
