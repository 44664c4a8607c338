"""The dynamics model by numpy, as users call it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.policy.weights import Floats, numbers, offset_of
from mopo_cli.store.arrays import load_arrays
from mopo_cli.store.atomic import sha256_file
from mopo_cli.store.documents import Elites, checked, read_document
from mopo_cli.store.headers import HEADERS

_HEADS = "w_mean", "b_mean", "w_logvar", "b_logvar", "max_logvar", "min_logvar"


@dataclass(frozen=True)
class Prediction:
    """What the model expects of N steps, in the data's units; each ``std`` is the standard deviation around it.

    It covers the noise that the networks see in the data and how far they disagree. ``next_observation`` and its std
    are `[N, F]`, F being the width of a single step's observation, ``reward`` and its std `[N]`; without the first
    dimension for a single step.
    """

    next_observation: NDArray[np.float64]
    reward: NDArray[np.float64]
    next_observation_std: NDArray[np.float64]
    reward_std: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Model:
    """An ensemble of K networks that predicts a step. ``path`` is the file, ``about`` all that its header says."""

    path: Path
    about: dict[str, Any] = field(repr=False)
    _arrays: dict[str, Floats] = field(repr=False)

    def predict(self, observation: ArrayLike, action: ArrayLike) -> Prediction:
        """What follows observations `[N, O]` and actions `[N, A]`, or one `[O]` and `[A]`, in the data's units.

        InputError for other widths. Networks are exact only near their data: see the deviations.
        """
        observations, actions = (numbers(values, f"The model {self.path} takes") for values in (observation, action))
        widths = int(self.about["obs_dim"]), int(self.about["act_dim"])
        lead = observations.shape[:-1]
        if (observations.shape, actions.shape) != ((*lead, widths[0]), (*lead, widths[1])) or len(lead) > 1:
            raise InputError(
                f"The model {self.path} takes observations [N, {widths[0]}] and actions [N, {widths[1]}], not "
                f"{list(observations.shape)} and {list(actions.shape)}."
            )
        rows = np.atleast_2d(observations)
        mean, variance = self._change(rows, np.atleast_2d(actions))  # [K, N, F + 1]
        expected, std = mean.mean(axis=0), np.sqrt(variance.mean(axis=0) + mean.var(axis=0))
        following = rows[:, : mean.shape[2] - 1] + expected[:, :-1]
        parts = following, expected[:, -1], std[:, :-1], std[:, -1]
        return Prediction(*(part if lead else part.squeeze(axis=0) for part in parts))

    def _change(self, rows: NDArray[np.float64], actions: NDArray[np.float64]) -> tuple[Floats, Floats]:
        """Mean and variance of the change of observation and of the reward, by each network, f8 `[K, N, F + 1]`."""
        low, high = (np.array(self.about[name], np.float64) for name in ("action_low", "action_high"))
        stored = np.concatenate([rows - offset_of(self.about), 2 * (actions - low) / (high - low) - 1], axis=1)
        of = self._arrays
        x: Floats = (stored.astype(np.float32) - of["input_mean"]) / of["input_std"]
        for i in range(self.about["layers"]):
            x = x @ of[f"w{i}"] + of[f"b{i}"]
            x = x * _sigmoid(x)
        mean = (x @ of["w_mean"] + of["b_mean"]).astype(np.float64)
        raw = x @ of["w_logvar"] + of["b_logvar"]
        noise = _sigmoid(raw - of["max_logvar"]) * np.exp(of["max_logvar"]) + np.exp(of["min_logvar"])
        unit = of.get("target_std", np.ones(1, np.float32)).astype(np.float64)
        return mean * unit + of.get("target_mean", np.zeros(1)), noise * unit**2


def read_model(path: Path, seed: int | None) -> Model:
    """Read a model: see `mopo_cli.load_model`."""
    stored, meta = load_arrays(path)
    if meta.get("kind") != "model":
        raise InputError(f"{path} is not a model but a {meta.get('kind', 'file of another kind')}.")
    header = checked(path, HEADERS["model"], meta)
    seed = header["seeds"][0] if seed is None else seed
    if seed not in header["seeds"]:
        have = ", ".join(map(str, header["seeds"]))
        raise InputError(f"{path} has ensembles for the seeds {have}, none for seed {seed}.")
    if "action_low" not in header:
        raise InputError(
            f"{path} does not say the bounds of actions: an older version of mopo made it.",
            hint="mopo train-model --force",
        )
    prefix = f"seed-{seed}/"
    arrays = {name.removeprefix(prefix): array for name, array in stored.items() if name.startswith(prefix)}
    _check(path, arrays, header)
    elites = _elites(path, seed, header["networks"])
    return Model(path, header, {name: part[elites] if part.ndim == 3 else part for name, part in arrays.items()})


def _sigmoid(x: Floats) -> Floats:
    with np.errstate(over="ignore"):  # of e^-x, where the result is 0
        return 1 / (1 + np.exp(-x))


def _check(path: Path, arrays: dict[str, Floats], header: dict[str, Any]) -> None:
    inputs, networks, hidden = header["obs_dim"] + header["act_dim"], header["networks"], header["hidden"]
    outputs = arrays["b_mean"].shape[-1] if "b_mean" in arrays else 0
    shapes: dict[str, tuple[int, ...]] = {"input_mean": (inputs,), "input_std": (inputs,)}
    for i in range(header["layers"]):
        shapes |= {f"w{i}": (networks, hidden if i else inputs, hidden), f"b{i}": (networks, 1, hidden)}
    shapes |= {name: (networks, hidden if name[0] == "w" else 1, outputs) for name in _HEADS}
    shapes |= {name: (outputs,) for name in ("target_mean", "target_std") if name in arrays}
    bounds = (len(header[name]) == header["act_dim"] for name in ("action_low", "action_high"))
    if not all(bounds) or len(offset_of(header)) != header["obs_dim"]:
        raise CorruptError(f"{path} is damaged, its bounds or offsets are not as many as its numbers.")
    for name, shape in shapes.items():
        if name not in arrays or arrays[name].shape != shape:
            raise CorruptError(f"{path} is damaged, its parts do not fit ({name}).")


def _elites(path: Path, seed: int, networks: int) -> list[int]:
    """The networks that rollouts use: all, where none have been chosen of this model."""
    file = path.absolute().parents[1] / "elites.json"
    if not file.is_file():
        return list(range(networks))
    chosen = read_document(file, Elites)
    if chosen["model_sha256"] != sha256_file(path):
        return list(range(networks))
    elites: list[int] = chosen["elites"].get(str(seed), [])
    if not elites or max(elites) >= networks:
        raise CorruptError(f"{file} is damaged: it does not name networks of seed {seed}.")
    return elites
