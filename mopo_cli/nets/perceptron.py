"""Stacks of ReLU perceptrons: their values, and the gradients of what is made of these."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.workers import spread
from mopo_cli.nets.stacked import Parameters, affine, chain_gradient, input_gradient, join, unit, units

# Rows predicted at once on CPU: the values of a layer then stay in the processor's cache.
_CPU_ROWS = 1024


@dataclass(frozen=True)
class Evaluated:
    """The values `out` `[M, B, out]` of networks, and what their gradients need: per unit, every layer's inputs."""

    networks: Parameters
    inputs: list[list[Tensor]]
    out: Tensor


def evaluate(*asked: tuple[Parameters, tuple[Tensor, ...]]) -> list[Evaluated]:
    """Evaluate stacks of networks side by side, each at its inputs, `[S, B, ·]` that are put next to one another.

    S divides M: every M / S consecutive networks look at the same inputs, as twin critics do.
    """
    jobs = [(networks, u, inputs) for networks, inputs in asked for u in range(units(networks.flat))]
    values = iter(spread(lambda job: forward(*jobs[job]), len(jobs)))
    return [collect(networks, [next(values) for _ in range(units(networks.flat))]) for networks, _ in asked]


def forward(networks: Parameters, u: int, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Evaluate a unit as `evaluate` does: the inputs of every layer, and the values."""
    layers, alike = networks.layers[u], len(networks.flat) // len(inputs[0])
    if networks.flat.is_cuda:
        values = [torch.cat(inputs, dim=-1).repeat_interleave(alike, dim=0)]
    else:
        values = [torch.cat([part[u // alike] for part in inputs], dim=-1)]
    for weight, bias in layers[:-1]:
        values.append(torch.relu_(affine(values[-1], weight, bias)))
    values.append(affine(values[-1], *layers[-1]))
    return values


def collect(networks: Parameters, values: list[list[Tensor]]) -> Evaluated:
    """Put together what `forward` gave for every unit."""
    outs = [of_unit[-1] for of_unit in values]
    return Evaluated(networks, [of_unit[:-1] for of_unit in values], join(outs))


def predict(networks: Parameters, x: Tensor) -> Tensor:
    """The values of a single network at any number of rows, and nothing kept: `[n, in]` -> `[n, out]`."""
    rows = len(x) if x.is_cuda else _CPU_ROWS
    blocks = x.split(rows) or (x,)
    values = spread(lambda i: forward(networks, 0, (blocks[i][None],))[-1], len(blocks))
    return torch.cat([value.view(-1, value.shape[-1]) for value in values])


def differentiate(evaluated: Evaluated, u: int, grad: Tensor, into: Parameters) -> None:
    """Differentiate by a unit's parameters a loss whose gradient by all values is `grad` `[M, B, out]`."""
    inputs = evaluated.inputs[u]
    chain_gradient(
        inputs,
        evaluated.networks.layers[u],
        unit(grad, u),
        lambda layer, slope: _relu_gradient(slope, inputs[layer]),
        into.layers[u],
    )


def input_slope(evaluated: Evaluated, grad: Tensor, first: int) -> Tensor:
    """The gradient of such a loss by the inputs, from column `first` on: `[M, B, in - first]`."""

    def back(u: int) -> Tensor:
        layers, inputs, upstream = evaluated.networks.layers[u], evaluated.inputs[u], unit(grad, u)
        for layer in reversed(range(1, len(layers))):
            upstream = _relu_gradient(input_gradient(upstream, layers[layer][0]), inputs[layer])
        return input_gradient(upstream, layers[0][0][..., first:, :])

    return join(spread(back, len(evaluated.inputs)))


def _relu_gradient(grad: Tensor, out: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, out, 0.0, grad_input=grad)
    return result
