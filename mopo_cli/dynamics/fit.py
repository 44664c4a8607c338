"""Maximum-likelihood training of several ensembles as one stack (MOPO appendix G.2, MBPO's code).

An epoch shows every network its own bootstrap of the training rows in an order of its own. A network's best
weights by hold-out error are kept; an ensemble stops once none of its networks has improved for a while, and
leaves the stack.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mopo_cli.dynamics.ensemble import Ensemble
from mopo_cli.dynamics.split import FitData, Split, split_data
from mopo_cli.engine.streams import stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.gaussian import (
    MAX_LOG_VARIANCE,
    MIN_LOG_VARIANCE,
    gaussian_layout,
    gaussians,
    likelihood_gradient,
    nll,
)
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.spectral import normalise, normalise_exactly, normalised_gradient, unit_vectors
from mopo_cli.nets.stacked import Layout, Parameters, Precision

# Steps whose batches are gathered at once.
_BLOCK = 16


@dataclass(frozen=True)
class FitSettings:
    """How an ensemble is built and trained; `weight_decay` has a value per hidden layer and last that of the heads.

    `spectral_norm` says what has a sigma of its own: nothing ("none"), a network's matrix ("per-network"), or the
    matrices of all networks one below the other ("shared").
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


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch: of each active seed (position in `seeds`) training NLL and hold-out MSE, `[active, K]`."""

    epoch: int
    active: tuple[int, ...]
    nll: Tensor
    mse: Tensor


@dataclass
class Fit:
    """Everything training needs to go on: the entries of `flat` … belong to the seeds still `active`.

    Under spectral normalisation `flat` are the raw weights, and `best` the normalised ones.
    """

    seeds: tuple[int, ...]
    settings: FitSettings
    layout: Layout
    splits: list[Split]
    flat: Tensor  # [active * K, size]
    adam: Adam
    best: Tensor  # [S, K, size]
    best_mse: Tensor  # [S, K]
    stale: list[int]  # per seed, epochs since any of its networks improved
    active: list[int]
    nll_sum: Tensor  # [active * K]
    vectors: dict[str, Tensor]  # of normalised matrices: [active * K, 1, out], with one sigma for all [active, 1, out]
    epoch: int = 0
    step: int = 0  # within the epoch
    order: Tensor | None = field(default=None, repr=False)  # [active * K, steps * batch], the epoch's rows; not state

    def __post_init__(self) -> None:
        self.hold(self.flat, self.adam)

    def hold(self, flat: Tensor, adam: Adam) -> None:
        """Go on with these parameters."""
        self.flat, self.adam = flat, adam
        self.networks = Parameters(self.layout, flat, self.settings.update_precision)
        self.gradient = Parameters(self.layout, adam.grad)

    @property
    def done(self) -> bool:
        """Whether every ensemble has stopped."""
        return not self.active


def start_fit(data: FitData, settings: FitSettings, seeds: tuple[int, ...]) -> Fit:
    """Build freshly initialised ensembles, one per seed, ready to train."""
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
    return Fit(
        seeds=seeds,
        settings=settings,
        layout=layout,
        splits=[split_data(data, settings.holdout_fraction, settings.holdout_max, seed) for seed in seeds],
        flat=flat,
        adam=Adam.like(flat),
        best=_predicting(layout, flat, vectors).reshape(*shape, -1).clone(),
        best_mse=torch.full(shape, torch.inf, device=device),
        stale=[0] * len(seeds),
        active=list(range(len(seeds))),
        nll_sum=torch.zeros(len(flat), device=device),
        vectors=vectors,
    )


def _spectral_vectors(layout: Layout, settings: FitSettings, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    """One per normalised matrix; all layers are normalised but the variance head (MOPO v1, appendix D.2)."""
    if settings.spectral_norm == "none":
        return {}
    matrices = settings.networks if settings.spectral_norm == "per-network" else 1
    widths = {name: shape[1] for name, shape in layout.shapes if name.startswith("w") and name != "w_logvar"}
    return unit_vectors(widths, [stream(seed, "model/spectral", k) for seed in seeds for k in range(matrices)])


def _predicting(layout: Layout, flat: Tensor, vectors: dict[str, Tensor]) -> Tensor:
    """The weights to predict with, by exact singular values, so that prediction needs to know of no normalisation."""
    return layout.pack(normalise_exactly(layout.views(flat), vectors)) if vectors else flat


def steps_per_epoch(fit: Fit) -> int:
    """Gradient steps in an epoch; the last batch is filled up from the epoch's start, so that all batches are alike."""
    return -(-len(fit.splits[0].train) // fit.settings.batch_size)


def advance(fit: Fit, data: FitData, steps: int) -> EpochReport | None:
    """Take up to `steps` gradient steps in place, not past the end of the epoch; a report where the epoch ends."""
    if fit.order is None:
        fit.order = _epoch_order(fit)
    decay = _decay(fit)
    batch, last = fit.settings.batch_size, steps_per_epoch(fit)
    steps = min(steps, last - fit.step)
    while steps:
        block = min(steps, _BLOCK)
        inputs, targets = _batches(fit, data, fit.order[:, fit.step * batch : (fit.step + block) * batch])
        for k in range(block):
            rows = slice(k * batch, (k + 1) * batch)
            fit.nll_sum += _step(fit, inputs[:, rows], targets[:, rows], decay)
        fit.step, steps = fit.step + block, steps - block
    return _end_epoch(fit, data) if fit.step == last else None


def _batches(fit: Fit, data: FitData, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What each network is shown: rows `[active * K, n]` -> scaled inputs and targets `[active * K, n, ·]`."""
    splits = [fit.splits[s] for s in fit.active for _ in range(fit.settings.networks)]
    mean = torch.stack([split.input_mean for split in splits])[:, None]
    std = torch.stack([split.input_std for split in splits])[:, None]
    return data.inputs[rows].sub_(mean).div_(std), data.targets[rows]


def _step(fit: Fit, inputs: Tensor, targets: Tensor, decay: Tensor) -> Tensor:
    networks, divided = fit.networks, None
    if fit.vectors:
        divided = normalise(fit.layout.views(fit.flat), fit.vectors)
        fit.vectors, flat = divided.vectors, fit.layout.pack(divided.params)
        networks = Parameters(fit.layout, flat, fit.settings.update_precision)
    losses = likelihood_gradient(networks, inputs, targets, into=fit.gradient)
    views = fit.layout.views(fit.adam.grad)
    if divided is not None:
        normalised_gradient(divided, views)
    # The bounds are one pair per ensemble, and drawn together by 0.01 (max - min) in its loss. Each network carries a
    # copy, and the copies are kept equal.
    for name, pull in (("max_logvar", 0.01), ("min_logvar", -0.01)):
        shared = views[name].unflatten(0, (-1, fit.settings.networks))
        total = shared[:, 0] + pull
        for k in range(1, fit.settings.networks):
            total += shared[:, k]
        shared.copy_(total[:, None].expand_as(shared))
    fit.adam.update(fit.flat, fit.settings.learning_rate, decay)
    return losses


def _decay(fit: Fit) -> Tensor:
    # The gradient of 1/2 d ||W||^2 is d W, for weights only.
    decay = torch.zeros(fit.layout.size)
    views = fit.layout.views(decay)
    for i in range(fit.settings.layers):
        views[f"w{i}"].fill_(fit.settings.weight_decay[i])
    for head in ("w_mean", "w_logvar"):
        views[head].fill_(fit.settings.weight_decay[-1])
    return decay.to(fit.flat.device)


def _epoch_order(fit: Fit) -> Tensor:
    device = fit.flat.device
    length = steps_per_epoch(fit) * fit.settings.batch_size
    orders = []
    for s in fit.active:
        train = fit.splits[s].train
        wrap = torch.arange(length, device=device) % len(train)
        for k in range(fit.settings.networks):
            bootstrap = torch.randint(len(train), (len(train),), generator=stream(fit.seeds[s], "model/bootstrap", k))
            shuffle = torch.randperm(len(train), generator=stream(fit.seeds[s], f"model/shuffle/{k}", fit.epoch))
            orders.append(train[bootstrap[shuffle].to(device)][wrap].int())
    return torch.stack(orders)


def holdout_errors(fit: Fit, data: FitData, flat: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Squared error and NLL of each network on its seed's held-out rows: flat `[K, size]` -> `[K, D]` and `[K]`.

    `seed` is the position in `fit.seeds`. The error is of the predicted means, in raw units.
    """
    split = fit.splits[seed]
    inputs = (data.inputs[split.holdout] - split.input_mean) / split.input_std
    targets = data.targets[split.holdout]
    mean, variance = gaussians(Parameters(fit.layout, flat), inputs)
    return (mean - targets).square().mean(dim=1), nll(mean, variance, targets)


def _end_epoch(fit: Fit, data: FitData) -> EpochReport:
    settings = fit.settings
    flat = _predicting(fit.layout, fit.flat, fit.vectors).unflatten(0, (-1, settings.networks))
    errors = []
    for i, s in enumerate(fit.active):
        mse = holdout_errors(fit, data, flat[i], s)[0].mean(dim=1)
        # The first finite error is a gain on infinity; a NaN is never one.
        improved = mse < fit.best_mse[s] * (1 - settings.min_gain)
        fit.best[s] = torch.where(improved[:, None], flat[i], fit.best[s])
        fit.best_mse[s] = torch.where(improved, mse, fit.best_mse[s])
        fit.stale[s] = 0 if bool(improved.any()) else fit.stale[s] + 1
        errors.append(mse)
    train_nll = (fit.nll_sum / fit.step).unflatten(0, (-1, settings.networks))
    report = EpochReport(fit.epoch, tuple(fit.active), train_nll, torch.stack(errors))
    fit.epoch, fit.step, fit.order = fit.epoch + 1, 0, None
    capped = settings.max_epochs is not None and fit.epoch >= settings.max_epochs
    keep = [i for i, s in enumerate(fit.active) if not capped and fit.stale[s] <= settings.patience]
    _keep(fit, keep)
    return report


def _keep(fit: Fit, keep: list[int]) -> None:
    def select(tensor: Tensor) -> Tensor:
        chosen: Tensor = tensor.unflatten(0, (len(fit.active), -1))[keep]
        return chosen.flatten(0, 1)

    adam = fit.adam
    fit.hold(select(fit.flat), Adam(select(adam.first), select(adam.second), select(adam.grad), adam.steps))
    fit.nll_sum = torch.zeros(len(fit.flat), device=fit.flat.device)
    fit.vectors = {name: select(vector) for name, vector in fit.vectors.items()}
    fit.active = [fit.active[i] for i in keep]


def fitted(fit: Fit, seed: int) -> Ensemble:
    """The ensemble of one seed (position in `fit.seeds`), every network at its best; all are elites until chosen."""
    split = fit.splits[seed]
    networks = tuple(range(fit.settings.networks))
    obs_dim = fit.layout.views(fit.best[seed])["max_logvar"].shape[-1] - 1
    return Ensemble(fit.best[seed], fit.layout, split.input_mean, split.input_std, obs_dim, networks)


def fit_state(fit: Fit) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint must hold; the splits and orders are drawn again from their streams."""
    tensors = {"flat": fit.flat, "first": fit.adam.first, "second": fit.adam.second}
    tensors |= {"best": fit.best, "best_mse": fit.best_mse, "nll_sum": fit.nll_sum}
    tensors |= {f"spectral/{name}": vector for name, vector in fit.vectors.items()}
    numbers = {
        "stale": fit.stale,
        "active": fit.active,
        "epoch": fit.epoch,
        "step": fit.step,
        "adam": int(fit.adam.steps),
    }
    return tensors, numbers


def restore_fit(fit: Fit, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put a checkpoint back into a freshly started fit of the same data, settings and seeds."""
    # In memory of their own, aligned as products need it: `Parameters` would hold copies of rows that are not.
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    fit.best, fit.best_mse = tensors["best"], tensors["best_mse"]
    flat = tensors["flat"]
    adam = Adam.like(flat)
    adam.restore(tensors["first"], tensors["second"], numbers["adam"])
    fit.hold(flat, adam)
    fit.nll_sum = tensors["nll_sum"]
    fit.vectors = {name: tensors[f"spectral/{name}"] for name in fit.vectors}
    fit.stale, fit.active = list(numbers["stale"]), list(numbers["active"])
    fit.epoch, fit.step, fit.order = numbers["epoch"], numbers["step"], None
