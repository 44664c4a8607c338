"""Stacks of ReLU perceptrons: their values, and the gradients of what is made of these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mopo_cli.engine.fused import fused, is_fusing
from mopo_cli.engine.parallel import spread
from mopo_cli.nets.layers import (
    Activation,
    add_rows,
    affine,
    affine_relu,
    chain_gradient,
    input_gradient,
    whole_product,
)
from mopo_cli.nets.stacked import DTYPES, Layers, Parameters, cast, join, part, unit, units

# Rows predicted at once on CPU: the values of a layer then stay in the processor's cache.
_CPU_ROWS = 1024
# Rows differentiated at once on CPU: few enough that the activations stay in its cache and that threads can share
# them out, and so many that adding up their gradients takes little time.
_CPU_BLOCK = 2048

Inputs = tuple[Tensor, ...]
"""What networks are evaluated at: columns `[S, B, ·]` that are put next to one another."""


@dataclass(frozen=True)
class Evaluated:
    """The values `out` `[M, B, out]` of networks, and what their gradients need: per unit, every layer's inputs."""

    networks: Parameters
    inputs: list[list[Tensor]]
    out: Tensor


def evaluate(*requests: tuple[Parameters, Inputs]) -> list[Evaluated]:
    """Evaluate stacks of networks side by side, each at its inputs, `[S, B, ·]` that are put next to one another.

    S divides M: every M / S consecutive networks have the same inputs, as twin critics do. On CUDA, networks that are
    named twice are evaluated once, at both inputs together.
    """
    if requests[0][0].flat.is_cuda:
        return _evaluate_whole(requests)
    jobs = [(networks, u, inputs) for networks, inputs in requests for u in range(units(networks.flat))]
    values = iter(spread(lambda job: forward(*jobs[job]), len(jobs)))
    return [collect(networks, [next(values) for _ in range(units(networks.flat))]) for networks, _ in requests]


def _evaluate_whole(requests: Sequence[tuple[Parameters, Inputs]]) -> list[Evaluated]:
    """Whole stacks, each once: of what is short, one product takes less time than two."""
    places: dict[int, list[int]] = {}
    for place, (networks, _) in enumerate(requests):
        places.setdefault(id(networks), []).append(place)
    results: dict[int, Evaluated] = {}
    for alike in places.values():
        networks, inputs = requests[alike[0]][0], [requests[place][1] for place in alike]
        rows = [columns[0].shape[1] for columns in inputs]
        together = inputs[0] if len(alike) == 1 else tuple(torch.cat(part, dim=1) for part in zip(*inputs, strict=True))
        values = zip(*(value.split(rows, dim=1) for value in forward(networks, 0, together)), strict=True)
        results |= {place: collect(networks, [list(value)]) for place, value in zip(alike, values, strict=True)}
    return [results[place] for place in range(len(requests))]


def forward(networks: Parameters, u: int, inputs: Inputs) -> list[Tensor]:
    """Evaluate a unit as `evaluate` does: the inputs of every layer, and the values."""
    layers, alike = networks.layers[u], networks.flat.shape[0] // inputs[0].shape[0]
    if networks.flat.is_cuda:
        values = [_beside(inputs, alike)]
    else:
        values = [torch.cat([part[u // alike] for part in inputs], dim=-1)]
    # Inputs and values keep all their bits: a state is worth more of them than bfloat16 has.
    single = networks.flat.is_cuda and len(layers) > 1 and layers[-1][0].shape[-1] == 1 and is_fusing()
    for layer, (weight, bias) in enumerate(layers[: -2 if single else -1], 1):
        dtype = DTYPES[networks.products] if layer < len(layers) - 1 else values[0].dtype
        values.append(affine_relu(values[-1], weight, bias, dtype))
    if single:
        values += _add_relu_sum(whole_product(values[-1], layers[-2][0]), layers[-2][1], *layers[-1], values[0].dtype)
    else:
        values.append(affine(values[-1], *layers[-1]))
    return values


def _beside(inputs: Inputs, alike: int) -> Tensor:
    """Inputs `[S, B, ·]` next to one another, once for each of the `alike` networks that share them: `[M, B, in]`."""
    if len(inputs) == alike == 1:
        return inputs[0]
    return torch.cat([part[:, None].expand(-1, alike, -1, -1) for part in inputs], dim=-1).flatten(0, 1)


def collect(networks: Parameters, values: list[list[Tensor]]) -> Evaluated:
    """Put together the results of `forward` for every unit."""
    outs = [values_of_unit[-1] for values_of_unit in values]
    return Evaluated(networks, [values_of_unit[:-1] for values_of_unit in values], join(outs))


def predict(networks: Parameters, x: Tensor) -> Tensor:
    """The values of a single network at any number of rows, without a gradient: `[n, in]` -> `[n, out]`."""
    if x.is_cuda:
        *hidden, (weight, bias) = ((weights[0], biases[0, 0]) for weights, biases in networks.layers[0])
        for inner, inner_bias in hidden:
            x = torch._addmm_activation(inner_bias, x, inner)  # a product and its ReLU
        return torch.addmm(bias, x, weight)
    blocks = x.split(_CPU_ROWS) or (x,)
    values = spread(lambda i: forward(networks, 0, (blocks[i][None],))[-1], len(blocks))
    return torch.cat([value.view(-1, value.shape[-1]) for value in values])


def differentiate(evaluated: Evaluated, u: int, grad: Tensor, into: Parameters) -> Tensor:
    """Differentiate by a unit's parameters a loss whose gradient by all values is `grad` `[M, B, out]`.

    Returns its gradient by the output of the first layer, from which `unit_gradient_by_inputs` goes on to the inputs.
    """
    return _back(evaluated.inputs[u], evaluated.networks.layers[u], unit(grad, u), into.layers[u])


@dataclass(frozen=True)
class Term:
    """A term of a loss: its `inputs` as of `evaluate`, and its gradient by the values there.

    `by_values(values, *columns)` takes the values `[…, B, out]` of one unit and its share of the columns `[M, …]`.
    """

    inputs: Inputs
    columns: tuple[Tensor, ...]
    by_values: Callable[..., Tensor]


def differentiate_terms(networks: Parameters, terms: Sequence[Term], into: Parameters) -> list[Tensor]:
    """Evaluate networks at many rows and differentiate a loss, a sum of terms, by their parameters.

    The activations of a term are kept only while it is differentiated. Returns the values of every term, `[M, B, out]`;
    `block_count` says in how many terms many rows are best split.
    """
    count = units(networks.flat)
    gradients: dict[int, Tensor] = {}

    def work(job: int) -> Tensor:
        k, u = divmod(job, count)
        *inputs, values = forward(networks, u, terms[k].inputs)
        gradient = Parameters(networks.layout, torch.zeros_like(networks.flat[: len(networks.flat) // count]))
        by_values = terms[k].by_values(values, *(part(column, u) for column in terms[k].columns))
        _back(inputs, networks.layers[u], by_values, gradient.layers[0])
        gradients[job] = part(gradient.flat, 0)
        return values

    def add(u: int) -> None:
        total = part(into.flat, u).copy_(gradients[u])
        for k in range(1, len(terms)):
            total.add_(gradients[k * count + u])

    values = spread(work, len(terms) * count)
    spread(add, count)
    return [join(values[k : k + count]) for k in range(0, len(values), count)]


def block_count(rows: int, like: Tensor) -> int:
    """In how many blocks so many rows are best differentiated on the device of `like`."""
    return 1 if like.is_cuda else max(1, -(-rows // _CPU_BLOCK))


def map_rows(work: Callable[[slice], Tensor], count: int, size: int) -> list[Tensor]:
    """Compute `work(rows)` for every block of `size` of `count` rows; the threads share them out."""
    return spread(lambda i: work(slice(i * size, (i + 1) * size)), -(-count // size))


def map_members(
    work: Callable[..., Tensor], networks: tuple[Parameters, ...], columns: tuple[Tensor, ...], rows: int
) -> Tensor:
    """Compute `work(*networks, *columns)` `[S, R]` of columns `[S, R, ·]`, where S divides every stack of networks.

    On CPU member by member and in blocks of `rows` rows, which the threads share out: the activations of a block stay
    in the cache, and what a row gives depends on its block alone.
    """
    members, count, _ = columns[0].shape
    if columns[0].is_cuda:
        return work(*networks, *columns)
    stacks = [stack.divided(members) for stack in networks]
    blocks = [(m, slice(i, i + rows)) for m in range(members) for i in range(0, count, rows)]

    def compute(block: int) -> Tensor:
        m, some = blocks[block]
        return work(*(stack[m] for stack in stacks), *(column[m : m + 1, some] for column in columns))

    return torch.cat(spread(compute, len(blocks)), dim=1).view(members, count)


def gradient_by_inputs(evaluated: Evaluated, grad: Tensor, columns: slice) -> Tensor:
    """The gradient by these columns of the inputs, `[M, B, ·]`, of a loss with gradient `grad` by `evaluated.out`."""

    def back(u: int) -> Tensor:
        layers, inputs, upstream = evaluated.networks.layers[u], evaluated.inputs[u], unit(grad, u)
        for layer in reversed(range(1, len(layers))):
            upstream = _RELU.through(cast(upstream, inputs[layer].dtype), layers[layer][0], inputs[layer])
        return unit_gradient_by_inputs(evaluated, u, upstream, columns)

    return join(spread(back, len(evaluated.inputs)))


def unit_gradient_by_inputs(evaluated: Evaluated, u: int, upstream: Tensor, columns: slice) -> Tensor:
    """The gradient by these columns of a unit's inputs; `upstream` is that by the output of its first layer."""
    weight = evaluated.networks.layers[u][0][0]
    return input_gradient(cast(upstream, weight.dtype), weight[..., columns, :])


def _back(inputs: list[Tensor], layers: Layers, upstream: Tensor, into: Layers) -> Tensor:
    return chain_gradient(inputs, layers, upstream, _RELU, inputs, into)


def _relu_gradient(grad: Tensor, out: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, out, 0.0, grad_input=grad)
    return result


@fused
def _relu_gradient_adding(
    grad: Tensor, weight: Tensor | None, out: Tensor, total: Tensor | None, by_weight: Tensor | None
) -> Tensor:
    if by_weight is not None:
        add_rows(out * grad, by_weight.mT)
    if weight is not None:
        grad = grad * cast(weight, grad.dtype).mT
    by_input: Tensor = torch.ops.aten.threshold_backward(grad, out, 0.0)
    if total is not None:
        add_rows(by_input, total)
    return by_input


@fused
def _add_relu_sum(x: Tensor, bias: Tensor, weight: Tensor, last_bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The ReLU `[M, B, I]` of products x and their bias, and the values `[M, B, 1]` of a layer with a single output."""
    hidden = cast(x.add_(bias).relu_(), dtype)
    return hidden, (hidden * weight.mT).sum(dim=-1, keepdim=True) + last_bias


_RELU = Activation(_relu_gradient, _relu_gradient_adding)
