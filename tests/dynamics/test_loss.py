"""The gradient an ensemble is trained by, against a plain loss: one network at a time, in float64."""

from dataclasses import replace

import pytest
import torch
from probes.fits import TINY, make_data
from torch import Tensor

from mopo_cli.dynamics.fit import FitState, fitted, start_fit
from mopo_cli.dynamics.training import advance

DECAY = (0.3, 0.05, 0.7)  # large, so that a layer left out or doubled shows
SETTINGS = replace(TINY, weight_decay=DECAY, patience=5, max_epochs=None)


def plain_gradients(fit: FitState, flat: Tensor, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """d/dW of: sum over networks of mean NLL + sum of d/2 ||W||^2, + 0.01 (sum of upper - sum of lower bounds)."""
    views = {name: view.double().clone() for name, view in fit.layout.views(flat).items()}
    upper = views["max_logvar"][0].requires_grad_()  # one pair of bounds for the whole ensemble
    lower = views["min_logvar"][0].requires_grad_()
    weights = {name: v.requires_grad_() for name, v in views.items() if not name.endswith("_logvar") or name[0] in "wb"}
    loss = 0.01 * upper.sum() - 0.01 * lower.sum()
    for k in range(fit.settings.networks):
        params = {name: weight[k] for name, weight in weights.items()}
        x = inputs[k].double()
        for i in range(2):
            x = x @ params[f"w{i}"] + params[f"b{i}"]
            x = x * torch.sigmoid(x)
        mean, raw = x @ params["w_mean"] + params["b_mean"], x @ params["w_logvar"] + params["b_logvar"]
        below = upper - torch.logaddexp(upper - raw, torch.zeros(()).double())
        logvar = lower + torch.logaddexp(below - lower, torch.zeros(()).double())
        loss = loss + ((mean - targets[k]).square() / logvar.exp() + logvar).mean()
        for name, factor in (("w0", DECAY[0]), ("w1", DECAY[1]), ("w_mean", DECAY[2]), ("w_logvar", DECAY[2])):
            loss = loss + 0.5 * factor * params[name].square().sum()
    leaves = {**weights, "max_logvar": upper, "min_logvar": lower}
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


@pytest.mark.parametrize(
    ("batch", "networks", "steps_before"), [(37, 3, 0), (37, 3, 3), (7, 1, 0), (7, 3, 17), (1, 3, 40)]
)
def test_the_gradient_is_that_of_the_whole_loss(batch: int, networks: int, steps_before: int) -> None:
    data = make_data(300)
    fit = start_fit(data, replace(SETTINGS, batch_size=batch, networks=networks), (5,))
    if steps_before:
        advance(fit, steps_before)
    flat = fit.flat.clone()
    advance(fit, 1)
    assert fit.order is not None
    rows = fit.order[:, steps_before * batch : (steps_before + 1) * batch].long()
    split = fit.splits[0]
    inputs = (data.inputs[rows].double() - split.input_mean) / split.input_std
    expected = plain_gradients(fit, flat, inputs, data.targets[rows].double())
    for name, grad in fit.layout.views(fit.adam.grad).items():
        wanted = expected[name].float()
        torch.testing.assert_close(grad, wanted.expand_as(grad), rtol=1e-4, atol=1e-5, msg=(name + ": {}").format)


def test_a_step_is_adam_s_along_that_gradient() -> None:
    """Three steps of Adam by hand (Kingma & Ba 2015, algorithm 1), the decay being part of the gradient."""
    data = make_data(300)
    fit = start_fit(data, SETTINGS, (5,))
    first = second = torch.zeros(fit.flat.shape, dtype=torch.float64)
    for step in (1, 2, 3):
        before = fit.flat.double()
        advance(fit, 1)
        grad = fit.adam.grad.double()
        first, second = 0.9 * first + 0.1 * grad, 0.999 * second + 0.001 * grad.square()
        moved = 1e-2 * (first / (1 - 0.9**step)) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(fit.flat.double(), before - moved, rtol=0, atol=1e-6)


def test_the_nll_of_an_epoch_is_the_mean_over_its_steps() -> None:
    data = make_data(300)
    fit = start_fit(data, replace(SETTINGS, learning_rate=0.0), (5,))
    assert advance(fit, 1) is None and fit.order is not None
    rows, ensemble = fit.order.long(), fitted(fit, 0)
    expected = []
    for k in range(3):
        observation, action = data.inputs[rows[k], :3], data.inputs[rows[k], 3:]
        mean, std = (x[k].double() for x in ensemble.predict(observation, action))
        expected.append(((mean - data.targets[rows[k]]).square() / std.square() + 2 * std.log()).mean().item())
    report = advance(fit, 1000)
    assert report is not None and report.nll[0].tolist() == pytest.approx(expected, rel=1e-4)


def test_the_bounds_of_an_ensemble_move_and_stay_one_pair() -> None:
    data = make_data(300)
    fit = start_fit(data, SETTINGS, (5, 6))
    for _ in range(3):
        advance(fit, 1000)
    for name, start in (("max_logvar", 0.5), ("min_logvar", -10.0)):
        bounds = fit.layout.views(fit.flat)[name].unflatten(0, (2, 3))
        assert torch.equal(bounds, bounds[:, :1].expand_as(bounds))
        assert not torch.equal(bounds[0, 0], bounds[1, 0]), "ensembles share nothing"
        assert (bounds != start).all()
