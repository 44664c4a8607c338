"""Training under spectral normalisation: what is divided, by what, by which gradient, and what comes out in the end."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from probes.fits import TINY, make_data, train
from torch import Tensor

from mopo_cli.dynamics import training as module
from mopo_cli.dynamics.fit import FitState, fit_checkpoint, fitted, start_fit
from mopo_cli.dynamics.training import advance, holdout_errors

DECAY = (0.3, 0.05, 0.7)  # large, so that a layer left out or doubled shows
NORMALISED = ("w0", "w1", "w_mean")
MODES = ("per-network", "shared")


def matrices(fit: FitState, flat: Tensor) -> dict[str, np.ndarray]:
    """Name to weights `[K, in, out]` of one ensemble, in float64."""
    return {name: view.double().numpy() for name, view in fit.layout.views(flat).items()}


def sigmas(weight: np.ndarray, mode: str) -> np.ndarray:
    """The largest singular values of an ensemble's layer: of each network `[K, 1, 1]`, or of all `[1, 1, 1]`."""
    rows = weight if mode == "per-network" else weight.reshape(1, -1, weight.shape[2])
    return np.linalg.svd(rows, compute_uv=False)[:, :1, None]


@pytest.mark.parametrize("mode", MODES)
def test_a_fitted_ensemble_has_largest_singular_values_of_one_but_in_the_variance_head(mode: str) -> None:
    data = make_data()
    # One epoch, after which every network is at its best.
    fit, _ = train(data, replace(TINY, spectral_norm=mode, max_epochs=1), (0, 7))
    for s in range(2):
        weights = matrices(fit, fitted(fit, s).flat)
        for name in NORMALISED:
            np.testing.assert_allclose(sigmas(weights[name], mode), 1, atol=1e-5)
        assert (np.abs(sigmas(weights["w_logvar"], mode) - 1) > 1e-2).all()
        if mode == "shared":
            assert (sigmas(weights["w1"], "per-network") < 0.99).all()


@pytest.mark.parametrize("mode", MODES)
def test_however_long_it_trains_a_network_is_returned_as_it_was_at_its_best(mode: str) -> None:
    data = make_data()
    fit, active = train(data, replace(TINY, spectral_norm=mode), (0, 7))
    assert len(active) > 3
    for s in range(2):
        ensemble = fitted(fit, s)
        mse, _ = holdout_errors(fit, ensemble.flat, s)
        assert torch.equal(mse.mean(dim=1), fit.best_mse[s])
        weights = matrices(fit, ensemble.flat)
        if mode == "per-network":
            assert all(np.allclose(sigmas(weights[name], mode), 1, rtol=0, atol=1e-5) for name in NORMALISED)
        rows = fit.splits[s].holdout
        mean, _ = ensemble.predict(data.inputs[rows, :3], data.inputs[rows, 3:])
        torch.testing.assert_close((mean - data.targets[rows]).square().mean(dim=(1, 2)), fit.best_mse[s])


@pytest.mark.parametrize("mode", MODES)
def test_errors_and_snapshots_are_of_the_raw_weights_divided_exactly(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With errors as told: the first network is at its best in the first epoch, the others in the second."""
    values = iter([[1.0, 1.0, 1.0], [2.0, 0.5, 0.5]])
    seen: list[dict[str, np.ndarray]] = []

    def errors(fit: FitState, flat: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        raw, given = matrices(fit, fit.flat), matrices(fit, flat)
        for name, weight in raw.items():
            by = sigmas(weight, mode) if name in NORMALISED else np.ones(1)
            np.testing.assert_allclose(given[name], weight / by, rtol=1e-6)
        seen.append({name: array.copy() for name, array in given.items()})
        return torch.tensor(next(values))[:, None], torch.zeros(3)

    monkeypatch.setattr(module, "holdout_errors", errors)
    fit, _ = train(make_data(), replace(TINY, spectral_norm=mode, max_epochs=2), (0,))
    for name, weight in matrices(fit, fitted(fit, 0).flat).items():
        np.testing.assert_array_equal(weight[0], seen[0][name][0])
        np.testing.assert_array_equal(weight[1:], seen[1][name][1:])
    assert not np.allclose(seen[0]["w0"], seen[1]["w0"])


@pytest.mark.parametrize("mode", MODES)
def test_an_ensemble_not_yet_trained_is_normalised_too(mode: str) -> None:
    fit = start_fit(make_data(), replace(TINY, spectral_norm=mode), (0, 7))
    raw = fit.layout.views(fit.flat)["w0"].unflatten(0, (2, 3))
    for s in range(2):
        weights = matrices(fit, fitted(fit, s).flat)
        np.testing.assert_allclose(sigmas(weights["w1"], mode), 1, atol=1e-5)
        assert (np.abs(sigmas(raw[s].double().numpy(), mode) - 1) > 1e-2).all(), "what is trained stays raw"


def iterated(rows: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """One power iteration: `[rows, out]`, `[out]` -> unit vectors `[rows]`, `[out]`."""
    left = torch.nn.functional.normalize(rows @ vector, dim=0)
    return left, torch.nn.functional.normalize(rows.T @ left, dim=0)


def plain_gradients(fit: FitState, flat: Tensor, vectors: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """d/d(raw flat) of the NLL with weights W / (l · W · r), and of d/2 ||W||^2 of the raw ones, in float64."""
    leaf = flat.double().requires_grad_()
    params = dict(fit.layout.views(leaf))
    loss = 0.01 * (params["max_logvar"] - params["min_logvar"]).sum() / 3
    for name, factor in zip((*NORMALISED, "w_logvar"), (*DECAY, DECAY[-1]), strict=True):
        loss = loss + 0.5 * factor * params[name].square().sum()
    for name, vector in vectors.items():
        weight = params[name]
        parts = weight.reshape(len(vector), -1, weight.shape[2])
        divided = []
        for rows, start in zip(parts, vector[:, 0].double(), strict=True):
            left, right = iterated(rows.detach(), start)
            divided.append(rows / (left @ rows @ right))
        params[name] = torch.stack(divided).reshape(weight.shape)
    x = inputs.double()
    for i in range(2):
        x = torch.einsum("mbi,mio->mbo", x, params[f"w{i}"]) + params[f"b{i}"]
        x = x * torch.sigmoid(x)
    mean, raw = (torch.einsum("mbi,mio->mbo", x, params[f"w_{h}"]) + params[f"b_{h}"] for h in ("mean", "logvar"))
    zero = torch.zeros(()).double()
    below = params["max_logvar"] - torch.logaddexp(params["max_logvar"] - raw, zero)
    logvar = params["min_logvar"] + torch.logaddexp(below - params["min_logvar"], zero)
    loss = loss + ((mean - targets).square() / logvar.exp() + logvar).mean(dim=(1, 2)).sum()
    return torch.autograd.grad(loss, leaf)[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps_before", [0, 5])
def test_the_gradient_flows_through_sigma_and_the_decay_is_of_the_raw_weights(mode: str, steps_before: int) -> None:
    data = make_data()
    fit = start_fit(data, replace(TINY, weight_decay=DECAY, spectral_norm=mode), (5,))
    if steps_before:
        advance(fit, steps_before)
    flat, vectors = fit.flat.clone(), deepcopy(fit.vectors)
    assert list(vectors) == list(NORMALISED)
    advance(fit, 1)
    assert fit.order is not None
    rows = fit.order[:, steps_before * 37 : (steps_before + 1) * 37].long()
    inputs = (data.inputs[rows].double() - fit.splits[0].input_mean) / fit.splits[0].input_std
    expected = fit.layout.views(plain_gradients(fit, flat, vectors, inputs, data.targets[rows].double()))
    for name, grad in fit.layout.views(fit.adam.grad).items():
        if name not in ("max_logvar", "min_logvar"):  # their copies are summed over the ensemble
            torch.testing.assert_close(grad.double(), expected[name], rtol=1e-4, atol=1e-5, msg=(name + ": {}").format)
    for name, vector in vectors.items():
        parts = fit.layout.views(flat)[name].reshape(len(vector), -1, vector.shape[2])
        for g, part in enumerate(parts):
            torch.testing.assert_close(fit.vectors[name][g, 0], iterated(part, vector[g, 0])[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_the_iterations_go_on_from_step_to_step(mode: str) -> None:
    """Weights that hardly move are divided by their exact sigma in the end."""
    data = make_data()
    fit = start_fit(data, replace(TINY, spectral_norm=mode, learning_rate=1e-7, patience=30, max_epochs=None), (0,))
    for _ in range(12):
        advance(fit, 1000)
    for name, vector in fit.vectors.items():
        weight = fit.layout.views(fit.flat)[name].double().numpy()
        rows = weight.reshape(len(vector), -1, weight.shape[2])
        reached = np.linalg.norm(rows @ vector.double().numpy().transpose(0, 2, 1), axis=1)[:, :, None]
        np.testing.assert_allclose(reached, sigmas(weight, mode), rtol=1e-3)


@pytest.mark.parametrize("mode", MODES)
def test_an_ensemble_gone_wrong_stops_and_leaves_the_others_alone(mode: str) -> None:
    data, settings = make_data(), replace(TINY, spectral_norm=mode, max_epochs=2)
    fit = start_fit(data, settings, (0, 7))
    fit.layout.views(fit.flat)["w1"][1, 2, 3] = torch.nan
    while not fit.done:
        advance(fit, 1000)
    alone, _ = train(data, settings, (7,))
    assert fit.best_mse[0].isinf().all() and torch.equal(fit.best[1], alone.best[0])


def test_without_it_nothing_is_drawn_kept_or_divided() -> None:
    data = make_data()
    fit = start_fit(data, TINY, (0,))
    assert fit.settings.spectral_norm == "none" and fit.vectors == {}
    assert torch.equal(fit.best[0], fit.flat)
    advance(fit, 1000)
    tensors, _ = fit_checkpoint(fit)
    assert tensors.keys() == {"flat", "first", "second", "best", "best_mse", "nll_sum"}
    assert torch.equal(fitted(fit, 0).flat, fit.flat), "after one epoch each is at its best"
