"""Stacks of ReLU perceptrons: their values, and the gradients of what is made of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.parallel import spread
from mopo_cli.nets.stacked import (
    DTYPES,
    Layers,
    Parameters,
    affine,
    cast,
    chain_gradient,
    input_gradient,
    join,
    part,
    unit,
    units,
)

# Rows predicted at once on CPU: the values of a layer then stay in the processor's cache.
_CPU_ROWS = 1024
# Rows differentiated at once on CPU: few enough that what layers say of them stays in its cache and that threads can
# share them out, and so many that adding up their gradients takes little time.
_CPU_BLOCK = 2048


@dataclass(frozen=True)
class Evaluated:
    """The values `out` `[M, B, out]` of networks, and what their gradients need: per unit, every layer's inputs."""

    networks: Parameters
    inputs: list[list[Tensor]]
    out: Tensor


def evaluate(*asked: tuple[Parameters, tuple[Tensor, ...]]) -> list[Evaluated]:
    """Evaluate stacks of networks side by side, each at its inputs, `[S, B, ·]` that are put next to one another.

    S divides M: every M / S consecutive networks look at the same inputs, as twin critics do. On CUDA networks that are
    named twice answer at once.
    """
    if asked[0][0].flat.is_cuda:
        return _evaluate_whole(asked)
    jobs = [(networks, u, inputs) for networks, inputs in asked for u in range(units(networks.flat))]
    said = iter(spread(lambda job: forward(*jobs[job]), len(jobs)))
    return [collect(networks, [next(said) for _ in range(units(networks.flat))]) for networks, _ in asked]


def _evaluate_whole(asked: Sequence[tuple[Parameters, tuple[Tensor, ...]]]) -> list[Evaluated]:
    """Whole stacks, each once: of what is short, one product takes less time than two."""
    places: dict[int, list[int]] = {}
    for place, (networks, _) in enumerate(asked):
        places.setdefault(id(networks), []).append(place)
    found: dict[int, Evaluated] = {}
    for own in places.values():
        networks, inputs = asked[own[0]][0], [asked[place][1] for place in own]
        rows = [given[0].shape[1] for given in inputs]
        together = inputs[0] if len(own) == 1 else tuple(torch.cat(part, dim=1) for part in zip(*inputs, strict=True))
        said = zip(*(value.split(rows, dim=1) for value in forward(networks, 0, together)), strict=True)
        found |= {place: collect(networks, [list(values)]) for place, values in zip(own, said, strict=True)}
    return [found[place] for place in range(len(asked))]


def forward(networks: Parameters, u: int, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Evaluate a unit as `evaluate` does: the inputs of every layer, and the values."""
    layers, alike = networks.layers[u], networks.flat.shape[0] // inputs[0].shape[0]
    if networks.flat.is_cuda:
        values = [_beside(inputs, alike)]
    else:
        values = [torch.cat([part[u // alike] for part in inputs], dim=-1)]
    # Inputs and values keep all their bits: a state is worth more of them than bfloat16 has.
    for layer, (weight, bias) in enumerate(layers[:-1], 1):
        dtype = DTYPES[networks.products] if layer < len(layers) - 1 else values[0].dtype
        values.append(cast(torch.relu_(affine(values[-1], weight, bias)), dtype))
    values.append(affine(values[-1], *layers[-1]))
    return values


def _beside(inputs: tuple[Tensor, ...], alike: int) -> Tensor:
    """Inputs `[S, B, ·]` next to one another, for every of the `alike` networks that look at them: `[M, B, in]`."""
    if len(inputs) == alike == 1:
        return inputs[0]
    return torch.cat([part[:, None].expand(-1, alike, -1, -1) for part in inputs], dim=-1).flatten(0, 1)


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


def differentiate(evaluated: Evaluated, u: int, grad: Tensor, into: Parameters) -> Tensor:
    """Differentiate by a unit's parameters a loss whose gradient by all values is `grad` `[M, B, out]`.

    Returns its gradient by what the first layer says, from which `first_slope` goes on to the inputs.
    """
    return _back(evaluated.inputs[u], evaluated.networks.layers[u], unit(grad, u), into.layers[u])


def differentiate_blocks(
    networks: Parameters,
    blocks: Sequence[tuple[Tensor, ...]],
    by_values: Callable[[int, int, Tensor], Tensor],
    into: Parameters,
) -> list[Tensor]:
    """Evaluate networks at many rows and differentiate a loss by their parameters, block by block of rows.

    A block has inputs as of `evaluate`. The loss is a sum of terms, one per block: `by_values(k, u, values)` is the
    gradient of the k-th by the values `[…, B, out]` of unit u there. What a layer says of a block is kept no longer
    than that takes. Returns the values of every block, `[M, B, out]`; `block_count` tells how many there should be.
    """
    count = units(networks.flat)
    terms: dict[int, Tensor] = {}

    def work(job: int) -> Tensor:
        k, u = divmod(job, count)
        *inputs, values = forward(networks, u, blocks[k])
        term = Parameters(networks.layout, torch.zeros_like(networks.flat[: len(networks.flat) // count]))
        _back(inputs, networks.layers[u], by_values(k, u, values), term.layers[0])
        terms[job] = part(term.flat, 0)
        return values

    def add(u: int) -> None:
        total = part(into.flat, u).copy_(terms[u])
        for k in range(1, len(blocks)):
            total.add_(terms[k * count + u])

    values = spread(work, len(blocks) * count)
    spread(add, count)
    return [join(values[k : k + count]) for k in range(0, len(values), count)]


def block_count(rows: int, like: Tensor) -> int:
    """In how many blocks so many rows are best differentiated on the device of `like`."""
    return 1 if like.is_cuda else max(1, -(-rows // _CPU_BLOCK))


def input_slope(evaluated: Evaluated, grad: Tensor, first: int) -> Tensor:
    """The gradient of such a loss by the inputs, from column `first` on: `[M, B, in - first]`."""

    def back(u: int) -> Tensor:
        layers, inputs, upstream = evaluated.networks.layers[u], evaluated.inputs[u], unit(grad, u)
        for layer in reversed(range(1, len(layers))):
            by_inputs = input_gradient(cast(upstream, inputs[layer].dtype), layers[layer][0])
            upstream = _relu_gradient(by_inputs, inputs[layer])
        return first_slope(evaluated, u, upstream, first)

    return join(spread(back, len(evaluated.inputs)))


def first_slope(evaluated: Evaluated, u: int, upstream: Tensor, first: int) -> Tensor:
    """Of a unit, the gradient by its inputs from column `first` on, where that by its first layer is `upstream`."""
    weight = evaluated.networks.layers[u][0][0]
    return input_gradient(cast(upstream, weight.dtype), weight[..., first:, :])


def _back(inputs: list[Tensor], layers: Layers, upstream: Tensor, into: Layers) -> Tensor:
    return chain_gradient(inputs, layers, upstream, lambda layer, slope: _relu_gradient(slope, inputs[layer]), into)


def _relu_gradient(grad: Tensor, out: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, out, 0.0, grad_input=grad)
    return result
