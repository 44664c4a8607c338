"""The networks of a policy as arrays, and its mean action by numpy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mopo_cli.errors import CorruptError, InputError

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Weights:
    """M policies for the same task, of which the mean action is taken; M is 1 but for several seeds in one.

    ``layers`` are the weights `[M, in, out]` and biases `[M, 1, out]` of perceptrons with ReLU between their layers;
    the outputs of the last are the actions before tanh. ``low`` and ``high`` `[A]` are the bounds of actions.
    ``offset`` `[O]` f8 is taken off observations before they become float32.
    """

    layers: tuple[tuple[Floats, Floats], ...]
    low: Floats
    high: Floats
    offset: NDArray[np.float64]

    @np.errstate(over="ignore", invalid="ignore")
    def act(self, observation: NDArray[Any]) -> Floats:
        """Actions `[N, A]` in the bounds, of the weights' type, for observations `[N, O]` in the data's units.

        NaN where a number is NaN or infinite, or too large for float32 to compute with; numpy gives no warning then.
        """
        x: Floats = (observation - self.offset).astype(np.float32)
        *hidden, (weight, bias) = self.layers
        for inner, inner_bias in hidden:
            x = np.maximum(x @ inner + inner_bias, 0)  # [M, N, hidden]
        action: Floats = np.tanh(x @ weight + bias).mean(axis=0)
        return np.clip(self.low + (action + 1) / 2 * (self.high - self.low), self.low, self.high)

    def double(self) -> "Weights":
        """The same in float64, where next to nothing is rounded."""
        layers = tuple((weight.astype(np.float64), bias.astype(np.float64)) for weight, bias in self.layers)
        return Weights(layers, self.low.astype(np.float64), self.high.astype(np.float64), self.offset)


def joined(weights: list[Weights]) -> Weights:
    """Policies of one shape as one, whose action is the mean of theirs."""
    layers = tuple(
        (np.concatenate([weight for weight, _ in layer]), np.concatenate([bias for _, bias in layer]))
        for layer in zip(*(each.layers for each in weights), strict=True)
    )
    return Weights(layers, weights[0].low, weights[0].high, weights[0].offset)


def weights_of(path: Path, arrays: dict[str, NDArray[Any]], header: dict[str, Any]) -> Weights:
    """The weights in a file's arrays w0 `[M, in, out]`, b0 `[M, 1, out]`, w1, ..., and what its header says of actions.

    Of the last layer only the first A outputs are kept: the others are for training. CorruptError where arrays do not
    fit one another or the header.
    """
    count, members = sum(name[0] == "w" for name in arrays), arrays["w0"].shape[0] if "w0" in arrays else 0
    layers: list[tuple[Floats, Floats]] = []
    width = header["obs_dim"]
    for i in range(count):
        weight, bias = arrays.get(f"w{i}"), arrays.get(f"b{i}")
        if weight is None or bias is None or weight.ndim != 3 or weight.shape[:2] != (members, width):
            raise _unfit(path, i)
        if bias.shape != (members, 1, weight.shape[2]):
            raise _unfit(path, i)
        layers.append((weight, bias))
        width = weight.shape[2]
    if not members or width < header["act_dim"]:
        raise _unfit(path, count)
    weight, bias = layers[-1]
    layers[-1] = weight[..., : header["act_dim"]].copy(), bias[..., : header["act_dim"]].copy()
    low, high = (np.array(header[name], np.float32) for name in ("action_low", "action_high"))
    return Weights(tuple(layers), low, high, offset_of(header))


def numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """What a user gives, in f8; InputError, begun by ``what``, where these are no numbers or rows of other lengths."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} numbers, in rows of one length.") from error


def offset_of(header: dict[str, Any]) -> NDArray[np.float64]:
    """What is taken off observations before they become float32, `[O]`; zeros where nothing is."""
    return np.array(header.get("observation_offset") or np.zeros(header["obs_dim"]), np.float64)


def _unfit(path: Path, layer: int) -> CorruptError:
    return CorruptError(f"{path} is damaged, its parts do not fit (layer {layer}).")
