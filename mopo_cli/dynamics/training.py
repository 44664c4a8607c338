"""Maximum-likelihood training of several ensembles as one stack (MOPO appendix G.2, MBPO's code).

An epoch shows every network its own bootstrap of the training rows in an order of its own. A network's best
weights by hold-out error are kept; an ensemble stops once none of its networks has improved for a while, and
leaves the stack.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mopo_cli.dynamics.fit import FitState, predicting, restore_trained_state, trained_state
from mopo_cli.engine.capture import Changes
from mopo_cli.engine.parallel import spread
from mopo_cli.engine.streams import Draws, stream
from mopo_cli.nets.adam import Adam
from mopo_cli.nets.gaussian import gaussians, likelihood_gradient, nll
from mopo_cli.nets.spectral import normalise, normalised_gradient
from mopo_cli.nets.stacked import Parameters, part, units

# Steps whose batches are gathered at once.
_BLOCK = 16


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch: of each active seed (position in `seeds`) training NLL and hold-out MSE, `[active, K]`."""

    epoch: int
    active: tuple[int, ...]
    nll: Tensor
    mse: Tensor


def steps_per_epoch(fit: FitState) -> int:
    """Gradient steps in an epoch; the last batch is filled up from the epoch's start, so that all batches are alike."""
    return -(-len(fit.splits[0].train) // fit.settings.batch_size)


def advance(fit: FitState, steps: int) -> EpochReport | None:
    """Take up to `steps` gradient steps in place, not past the end of the epoch; a report where the epoch ends."""
    last = steps_per_epoch(fit)
    take_steps(fit, min(steps, last - fit.step))
    return end_epoch(fit) if fit.step == last else None


def take_steps(fit: FitState, steps: int) -> None:
    """Take gradient steps of an epoch in place, at most as many as are left of it."""
    if fit.order is None:
        fit.order = _epoch_order(fit)
    changes = Changes(partial(trained_state, fit), partial(restore_trained_state, fit))
    batch = fit.settings.batch_size
    while steps:
        block = min(steps, _BLOCK)
        inputs, targets = _batches(fit, fit.order[:, fit.step * batch : (fit.step + block) * batch])
        for k in range(block):
            rows = slice(k * batch, (k + 1) * batch)
            fit.engine.take(partial(_step, fit), (inputs[:, rows], targets[:, rows]), Draws(()), ("fit",), changes)
        fit.step, steps = fit.step + block, steps - block


def _batches(fit: FitState, rows: Tensor) -> tuple[Tensor, Tensor]:
    """What each network is shown: rows `[active * K, n]` -> scaled inputs and targets `[active * K, n, ·]`."""
    data = fit.data
    splits = [fit.splits[s] for s in fit.active for _ in range(fit.settings.networks)]
    mean = torch.stack([split.input_mean for split in splits])[:, None]
    std = torch.stack([split.input_std for split in splits])[:, None]
    scales = [split.targets for split in splits if split.targets is not None]
    centre = torch.stack([scale.mean for scale in scales])[:, None] if scales else None
    divisor = torch.stack([scale.divisor for scale in scales])[:, None] if scales else None
    inputs, targets = (column.new_empty(*rows.shape, column.shape[1]) for column in (data.inputs, data.targets))

    def gather(u: int) -> None:
        drawn = part(rows, u)
        torch.sub(data.inputs[drawn], part(mean, u), out=part(inputs, u)).div_(part(std, u))
        part(targets, u).copy_(data.targets[drawn])
        if centre is not None and divisor is not None:
            part(targets, u).sub_(part(centre, u)).div_(part(divisor, u))

    spread(gather, units(rows))
    return inputs, targets


def _step(fit: FitState, inputs: Tensor, targets: Tensor, _draws: Draws) -> None:
    networks, normalised = fit.networks, None
    if fit.vectors:
        normalised = normalise(fit.layout.views(fit.flat), fit.vectors)
        for name, vector in normalised.vectors.items():
            fit.vectors[name].copy_(vector)
        networks = Parameters(fit.layout, fit.layout.pack(normalised.params), fit.settings.update_precision)
    # loss = mean over batch and dimensions of (mu - y)^2 / sigma^2 + log sigma^2, summed over the networks,
    #        + 0.01 (sum of max_logvar - sum of min_logvar) + sum over layers of decay / 2 |W|^2   (PETS, appendix A.1)
    likelihood = likelihood_gradient(networks, inputs, targets, into=fit.gradient)
    fit.nll_sum += likelihood.loss
    views = fit.layout.views(fit.adam.grad)
    if normalised is not None:
        normalised_gradient(normalised, views)
    # The bounds are one pair per ensemble. Each network carries a copy, and the copies are kept equal.
    for name, gradient, pull in (("max_logvar", likelihood.by_max, 0.01), ("min_logvar", likelihood.by_min, -0.01)):
        of_networks = gradient.unflatten(0, (-1, fit.settings.networks))
        total = of_networks[:, 0] + pull
        for k in range(1, fit.settings.networks):
            total += of_networks[:, k]
        views[name].unflatten(0, (-1, fit.settings.networks)).copy_(total[:, None].expand_as(of_networks))
    fit.adam.update(fit.flat, fit.settings.learning_rate, fit.decay)


def _epoch_order(fit: FitState) -> Tensor:
    device = fit.flat.device
    length = steps_per_epoch(fit) * fit.settings.batch_size
    wrap = torch.arange(length, device=device) % len(fit.splits[0].train)
    order = torch.empty(len(fit.flat), length, dtype=torch.int32, device=device)

    def draw(m: int) -> None:
        active, k = divmod(m, fit.settings.networks)
        seed, train = fit.seeds[fit.active[active]], fit.splits[fit.active[active]].train
        bootstrap = torch.randint(len(train), (len(train),), generator=stream(seed, "model/bootstrap", k))
        shuffle = torch.randperm(len(train), generator=stream(seed, f"model/shuffle/{k}", fit.epoch))
        order[m] = train[bootstrap[shuffle].to(device)][wrap]

    spread(draw, len(order))
    return order


def holdout_errors(fit: FitState, flat: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Squared error and NLL of each network on its seed's held-out rows: flat `[K, size]` -> `[K, D]` and `[K]`.

    `seed` is the position in `fit.seeds`. The error is of the predicted means, in the units that are learned.
    """
    data, split = fit.data, fit.splits[seed]
    inputs = (data.inputs[split.holdout] - split.input_mean) / split.input_std
    targets = data.targets[split.holdout]
    if split.targets is not None:
        targets = split.targets.standardise(targets)
    mean, variance = gaussians(Parameters(fit.layout, flat), inputs)
    return (mean - targets).square().mean(dim=1), nll(mean, variance, targets)


def end_epoch(fit: FitState) -> EpochReport:
    """Measure all networks on their held-out rows, keep the best, and take out the ensembles that have stopped."""
    settings = fit.settings
    flat = predicting(fit.layout, fit.flat, fit.vectors).unflatten(0, (-1, settings.networks))
    errors = []
    for i, s in enumerate(fit.active):
        mse = holdout_errors(fit, flat[i], s)[0].mean(dim=1)
        # The first finite error is a gain on infinity; a NaN is never one.
        improved = mse < fit.best_mse[s] * (1 - settings.min_gain)
        fit.best[s] = torch.where(improved[:, None], flat[i], fit.best[s])
        fit.best_mse[s] = torch.where(improved, mse, fit.best_mse[s])
        fit.epochs_without_gain[s] = 0 if bool(improved.any()) else fit.epochs_without_gain[s] + 1
        errors.append(mse)
    train_nll = (fit.nll_sum / fit.step).unflatten(0, (-1, settings.networks))
    report = EpochReport(fit.epoch, tuple(fit.active), train_nll, torch.stack(errors))
    fit.epoch, fit.step, fit.order = fit.epoch + 1, 0, None
    fit.nll_sum.zero_()
    capped = settings.max_epochs is not None and fit.epoch >= settings.max_epochs
    keep = [i for i, s in enumerate(fit.active) if not capped and fit.epochs_without_gain[s] <= settings.patience]
    if len(keep) < len(fit.active):
        _keep(fit, keep)
    return report


def _keep(fit: FitState, keep: list[int]) -> None:
    def select(tensor: Tensor) -> Tensor:
        chosen: Tensor = tensor.unflatten(0, (len(fit.active), -1))[keep]
        return chosen.flatten(0, 1)

    adam = fit.adam
    fit.set_parameters(select(fit.flat), Adam(select(adam.first), select(adam.second), select(adam.grad), adam.steps))
    fit.nll_sum = select(fit.nll_sum)
    fit.vectors = {name: select(vector) for name, vector in fit.vectors.items()}
    fit.active = [fit.active[i] for i in keep]
