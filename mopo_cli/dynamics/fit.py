"""Several ensembles that are fitted as one stack: how they start, what a checkpoint holds, what is kept at the end.

The gradient steps themselves are in `dynamics.training`.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.split import Examples, Split, split_data
from mopo_cli.engine.capture import Engine, Recorder, State, check_shapes
from mopo_cli.engine.streams import stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.gaussian import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, gaussian_layout
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import rounding
from mopo_cli.nets.spectral import normalise_exactly, unit_vectors
from mopo_cli.nets.stacked import Layout, Parameters


@dataclass(frozen=True)
class FitSettings:
    """How an ensemble is built and trained; `weight_decay` has a value per hidden layer and last that of the heads.

    `spectral_norm` says what has a sigma of its own: nothing ("none"), a network's matrix ("per-network"), or the
    matrices of all networks one below the other ("shared"). `target_scale` "standardised" learns targets in standard
    deviations from their mean over the training rows.
    """

    networks: int
    hidden: int
    layers: int
    batch_size: int
    learning_rate: float
    weight_decay: tuple[float, ...]
    holdout_fraction: float
    holdout_max: int
    patience: int
    min_gain: float
    max_epochs: int | None
    spectral_norm: str = "none"
    update_precision: Precision = "fp32"
    target_scale: str = "raw"


@dataclass
class FitState:
    """S ensembles of K networks in training, one per seed; those that are still `active` are a stack `[active * K, …]`.

    Under spectral normalisation `flat` are the raw weights, and `best` the normalised ones.
    """

    data: Examples
    seeds: tuple[int, ...]
    settings: FitSettings
    layout: Layout
    splits: list[Split]
    flat: Tensor  # [active * K, size]
    adam: Adam
    best: Tensor  # [S, K, size]
    best_mse: Tensor  # [S, K]
    epochs_without_gain: list[int]  # per seed: since any of its networks improved
    active: list[int]  # positions in `seeds`
    nll_sum: Tensor  # [active * K]
    decay: Tensor  # [size]
    vectors: dict[str, Tensor]  # of normalised matrices: [active * K, 1, out], with one sigma for all [active, 1, out]
    epoch: int = 0
    step: int = 0  # within the epoch
    order: Tensor | None = field(default=None, repr=False)  # [active * K, steps * batch], the epoch's rows; not state
    engine: Engine = field(default_factory=Engine)
    networks: Parameters = field(init=False, repr=False)  # views of `flat`
    gradient: Parameters = field(init=False, repr=False)  # views of `adam.grad`

    def __post_init__(self) -> None:
        self.set_parameters(self.flat, self.adam)

    def set_parameters(self, flat: Tensor, adam: Adam) -> None:
        """Train these parameters from now on; steps recorded on others are forgotten."""
        self.flat, self.adam = flat, adam
        self.engine.forget_all()
        self.networks = Parameters(self.layout, flat, self.settings.update_precision)
        self.gradient = Parameters(self.layout, adam.grad)

    @property
    def done(self) -> bool:
        """Whether every ensemble has stopped."""
        return not self.active


def start_fit(
    data: Examples, settings: FitSettings, seeds: tuple[int, ...], record: Recorder | None = None
) -> FitState:
    """Build freshly initialised ensembles, one per seed, to train on `data`; with a recorder steps are replayed."""
    inputs, outputs = data.inputs.shape[1], data.targets.shape[1]
    device = data.inputs.device
    layout = gaussian_layout(inputs, outputs, settings.hidden, settings.layers)
    generators = [stream(seed, "model/weights", k) for seed in seeds for k in range(settings.networks)]
    flat = initial(layout, generators, truncated_normal, zeros)
    views = layout.views(flat)
    views["max_logvar"].fill_(MAX_LOG_VARIANCE)
    views["min_logvar"].fill_(MIN_LOG_VARIANCE)
    flat = flat.to(device)
    vectors = {name: vector.to(device) for name, vector in _spectral_vectors(layout, settings, seeds).items()}
    shape = (len(seeds), settings.networks)
    return FitState(
        data=data,
        seeds=seeds,
        settings=settings,
        layout=layout,
        splits=[
            split_data(
                data, settings.holdout_fraction, settings.holdout_max, seed, settings.target_scale == "standardised"
            )
            for seed in seeds
        ],
        flat=flat,
        adam=Adam.like(flat),
        best=predicting(layout, flat, vectors).reshape(*shape, -1).clone(),
        best_mse=torch.full(shape, torch.inf, device=device),
        epochs_without_gain=[0] * len(seeds),
        active=list(range(len(seeds))),
        nll_sum=torch.zeros(len(flat), device=device),
        decay=_decay(layout, settings).to(device),
        vectors=vectors,
        engine=Engine(record, partial(rounding, settings.update_precision)),
    )


def _spectral_vectors(layout: Layout, settings: FitSettings, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    """One per normalised matrix; all layers are normalised but the variance head (MOPO v1, appendix D.2)."""
    if settings.spectral_norm == "none":
        return {}
    matrices = settings.networks if settings.spectral_norm == "per-network" else 1
    widths = {name: shape[1] for name, shape in layout.shapes if name.startswith("w") and name != "w_logvar"}
    return unit_vectors(widths, [stream(seed, "model/spectral", k) for seed in seeds for k in range(matrices)])


def predicting(layout: Layout, flat: Tensor, vectors: dict[str, Tensor]) -> Tensor:
    """The weights to predict with, by exact singular values, so that prediction needs to know of no normalisation."""
    return layout.pack(normalise_exactly(layout.views(flat), vectors)) if vectors else flat


def _decay(layout: Layout, settings: FitSettings) -> Tensor:
    # The gradient of 1/2 d ||W||^2 is d W, for weights only.
    decay = torch.zeros(layout.size)
    views = layout.views(decay)
    for i in range(settings.layers):
        views[f"w{i}"].fill_(settings.weight_decay[i])
    for head in ("w_mean", "w_logvar"):
        views[head].fill_(settings.weight_decay[-1])
    return decay


def fitted(fit: FitState, seed: int) -> Ensemble:
    """The ensemble of one seed (position in `fit.seeds`), every network at its best; all are elites until chosen."""
    split = fit.splits[seed]
    networks = tuple(range(fit.settings.networks))
    ensemble = Ensemble(fit.best[seed], fit.layout, split.input_mean, split.input_std, fit.data.obs_dim, networks)
    if (scale := split.targets) is not None:
        return replace(ensemble, target_mean=scale.mean, target_std=scale.std)
    return ensemble


def fit_checkpoint(fit: FitState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint must hold; the splits and orders are drawn again from their streams."""
    tensors, (adam_steps,) = trained_state(fit)
    numbers = {
        "stale": fit.epochs_without_gain,
        "active": fit.active,
        "epoch": fit.epoch,
        "step": fit.step,
        "adam": adam_steps,
    }
    return tensors | {"best": fit.best, "best_mse": fit.best_mse}, numbers


def trained_state(fit: FitState) -> State:
    """All that gradient steps change."""
    tensors = {"flat": fit.flat, "first": fit.adam.first, "second": fit.adam.second, "nll_sum": fit.nll_sum}
    return tensors | {f"spectral/{name}": vector for name, vector in fit.vectors.items()}, [int(fit.adam.steps)]


def restore_trained_state(fit: FitState, state: State) -> None:
    """Put what `trained_state` gave back, in place."""
    tensors, (adam_steps,) = state
    fit.adam.restore(tensors["first"], tensors["second"], adam_steps)
    fit.flat.copy_(tensors["flat"])
    fit.nll_sum.copy_(tensors["nll_sum"])
    for name, vector in fit.vectors.items():
        vector.copy_(tensors[f"spectral/{name}"])


def restore_fit(fit: FitState, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put a checkpoint back into a freshly started fit of the same data, settings and seeds.

    KeyError or ValueError where the checkpoint is of something else.
    """
    active, seeds = list(numbers["active"]), range(len(fit.seeds))
    if active != sorted({*active} & {*seeds}) or len(numbers["stale"]) != len(seeds):
        raise ValueError("it is of other ensembles")
    # A fresh fit has rows for every seed, a checkpoint those of the seeds that are still active.
    rows = {
        name: torch.Size((len(tensor) * len(active) // len(seeds), *tensor.shape[1:]))
        for name, tensor in trained_state(fit)[0].items()
    }
    check_shapes(tensors, rows | {"best": fit.best.shape, "best_mse": fit.best_mse.shape})
    # In memory of their own, aligned as products need it: `Parameters` would hold copies of rows that are not.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    fit.best, fit.best_mse = tensors["best"], tensors["best_mse"]
    flat = tensors["flat"]
    adam = Adam.like(flat)
    adam.restore(tensors["first"], tensors["second"], numbers["adam"])
    fit.set_parameters(flat, adam)
    fit.nll_sum = tensors["nll_sum"]
    fit.vectors = {name: tensors[f"spectral/{name}"] for name in fit.vectors}
    fit.epochs_without_gain, fit.active = list(numbers["stale"]), active
    fit.epoch, fit.step, fit.order = numbers["epoch"], numbers["step"], None
