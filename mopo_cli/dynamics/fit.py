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
from mopo_cli.nets.gaussian import MAX_LOG_VARIANCE, MIN_LOG_VARIANCE, gaussian, gaussian_layout, nll
from mopo_cli.nets.init import initial, truncated_normal, zeros
from mopo_cli.nets.spectral import normalise, normalise_exactly, unit_vectors
from mopo_cli.nets.stacked import Adam, Layout


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
    mean = torch.stack([fit.splits[s].input_mean for s in fit.active])
    std = torch.stack([fit.splits[s].input_std for s in fit.active])
    networks, batch = fit.settings.networks, fit.settings.batch_size
    mean = mean.repeat_interleave(networks, dim=0)[:, None]
    std = std.repeat_interleave(networks, dim=0)[:, None]
    last = steps_per_epoch(fit)
    for _ in range(min(steps, last - fit.step)):
        rows = fit.order[:, fit.step * batch : (fit.step + 1) * batch]
        inputs = data.inputs[rows].sub_(mean).div_(std)  # [active * K, batch, in]
        fit.nll_sum += _step(fit, inputs, data.targets[rows], decay)
        fit.step += 1
    return _end_epoch(fit, data) if fit.step == last else None


def _step(fit: Fit, inputs: Tensor, targets: Tensor, decay: Tensor) -> Tensor:
    networks = fit.settings.networks
    leaves = fit.layout.leaves(fit.flat)
    params, fit.vectors = normalise(leaves, fit.vectors)
    mean, logvar = gaussian(params, inputs)
    losses = nll(mean, logvar, targets)
    # The bounds are one pair per ensemble; each network carries a copy, and the copies are kept equal below.
    bounds = (0.01 / networks) * (leaves["max_logvar"].sum() - leaves["min_logvar"].sum())
    grad = fit.adam.grad
    fit.layout.gradient(losses.sum() + bounds, leaves, out=grad)
    for name in ("max_logvar", "min_logvar"):
        shared = fit.layout.views(grad)[name].unflatten(0, (-1, networks))
        total = shared[:, 0].clone()
        for k in range(1, networks):
            total += shared[:, k]
        shared.copy_(total[:, None].expand_as(shared))
    grad.addcmul_(fit.flat, decay)
    fit.adam.update(fit.flat, fit.settings.learning_rate)
    return losses.detach()


def _decay(fit: Fit) -> Tensor:
    # The gradient of 1/2 d ||W||^2 is d W, for weights only.
    decay = torch.zeros(1, fit.layout.size)
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
    with torch.no_grad():
        mean, logvar = gaussian(fit.layout.views(flat), inputs.expand(len(flat), -1, -1))
        return (mean - targets).square().mean(dim=1), nll(mean, logvar, targets)


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

    fit.flat = select(fit.flat)
    adam = fit.adam
    fit.adam = Adam(select(adam.first), select(adam.second), select(adam.grad), adam.steps)
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
        "adam": fit.adam.steps,
    }
    return tensors, numbers


def restore_fit(fit: Fit, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
    """Put a checkpoint back into a freshly started fit of the same data, settings and seeds."""
    fit.flat, fit.best, fit.best_mse = tensors["flat"], tensors["best"], tensors["best_mse"]
    fit.adam = Adam(tensors["first"], tensors["second"], torch.zeros_like(fit.flat), numbers["adam"])
    fit.nll_sum = tensors["nll_sum"]
    fit.vectors = {name: tensors[f"spectral/{name}"] for name in fit.vectors}
    fit.stale, fit.active = list(numbers["stale"]), list(numbers["active"])
    fit.epoch, fit.step, fit.order = numbers["epoch"], numbers["step"], None
