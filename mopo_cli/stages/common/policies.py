"""Policy files: one actor each, with what is needed to act and where it comes from; and density ratio files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mopo_cli.agents.actor import Actor
from mopo_cli.agents.dice import Ratio, ratio_layout
from mopo_cli.errors import InputError
from mopo_cli.nets.stacked import mlp_layout
from mopo_cli.stages.common.inputs import described, open_tensors, pack
from mopo_cli.store.checkpoint import save_tensors


def save_policy(path: Path, actor: Actor, meta: dict[str, Any]) -> None:
    """Publish an actor; `meta` must hold obs_dim, act_dim, hidden, layers, action_low and action_high."""
    bounds = {"log_std_min": actor.log_std_min, "log_std_max": actor.log_std_max}
    save_tensors(path, actor.layout.views(actor.flat), {"kind": "policy", **meta, **bounds})


def open_policy(path: Path, device: torch.device) -> tuple[Actor, dict[str, Any]]:
    """Read an actor and its meta; InputError when the file holds something else, CorruptError when it is damaged."""
    tensors, meta = open_tensors(path, "policy", device)
    with described(path):
        layout = mlp_layout((meta["obs_dim"], *(meta["hidden"],) * meta["layers"], 2 * meta["act_dim"]))
        bounds = meta["log_std_min"], meta["log_std_max"]
        return Actor(pack(layout, tensors, 1), layout, *bounds, tuple(meta.get("observation_offset", ()))), meta


def open_ratio(path: Path, device: torch.device) -> tuple[Ratio, dict[str, Any]]:
    """Read the density ratios published beside a policy, and their meta; it raises what `open_policy` does."""
    tensors, meta = open_tensors(path, "ratio", device)
    with described(path):
        layout = ratio_layout(meta["obs_dim"] + meta["act_dim"])
        scaler = tensors["input_mean"], tensors["input_std"]
        if any(part.shape != (meta["obs_dim"] + meta["act_dim"],) for part in scaler):
            raise ValueError("the scaler is not as wide as the inputs")
        if len(tensors["networks"]) != len(tensors["w0"]):
            raise ValueError("its networks are not as many as are numbered")
        return Ratio(pack(layout, tensors, len(tensors["w0"])), layout, *scaler, tensors["networks"]), meta


def greedy_policy(actor: Actor, action_low: Any, action_high: Any) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    """The actor's deterministic actions for observations, both in the environment's units: `[n, ·]` -> `[n, act_dim]`.

    Observations of float64 keep their digits where the actor has an offset. InputError for observations of another
    width: an environment can change after it was named.
    """
    low, high = np.asarray(action_low, np.float32), np.asarray(action_high, np.float32)
    offset = np.asarray(actor.offset, np.float64)
    width = actor.layout.shapes[0][1][0]

    def act(observation: NDArray[Any]) -> NDArray[np.float32]:
        if observation.shape[1:] != (width,):
            raise InputError(
                f"The environment gives observations of {observation.shape[1]} numbers, but the policy was trained on "
                f"{width}.",
                hint="mopo fetch-data --force, with the environment as it is now",
            )
        if len(offset):
            observation = (observation - offset).astype(np.float32)
        action = actor.greedy(torch.from_numpy(observation).to(actor.flat.device)).cpu().numpy()
        actions: NDArray[np.float32] = np.clip(low + (action + 1) / 2 * (high - low), low, high)  # rounding may exceed
        return actions

    return act
