"""Floating-point operations by count: two for every multiply-add of a matrix product, nothing for all else."""

from itertools import pairwise


def mlp_flops(sizes: tuple[int, ...]) -> int:
    """The forward products of one row through a perceptron with layers this wide, inputs and outputs included."""
    return 2 * sum(rows * columns for rows, columns in pairwise(sizes))


def backward_flops(sizes: tuple[int, ...]) -> int:
    """The gradients of all weights, and of the inputs of all layers but the first, whose inputs are data.

    Back through a single output goes no product, but each weight times a number.
    """
    return 2 * mlp_flops(sizes) - mlp_flops(sizes[:2]) - (mlp_flops(sizes[-2:]) if sizes[-1] == 1 else 0)


def slope_flops(sizes: tuple[int, ...], inputs: int) -> int:
    """The gradient by the last `inputs` inputs alone, no weights."""
    return backward_flops(sizes) - mlp_flops(sizes) + mlp_flops((inputs, sizes[1]))
