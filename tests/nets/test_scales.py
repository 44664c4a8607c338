"""Means and standard deviations of columns of any size, and networks that take the standardisation in."""

import numpy as np
import torch

from mopo_cli.engine.streams import stream
from mopo_cli.nets.perceptron import predict
from mopo_cli.nets.scales import Standard, column_scales, divisors, standard_units
from mopo_cli.nets.stacked import Parameters, mlp_layout

UNITS = torch.tensor([2e-7, 5e2, 1e-13, 1.0])
CENTRES = torch.tensor([2e-6, 5e6, 0.0, -3.0])


def columns(rows: int = 1000) -> torch.Tensor:
    return torch.randn(rows, 4, generator=stream(0, "test/columns")) * UNITS + CENTRES


def test_the_scales_are_those_of_numpy_in_double_precision_whatever_the_units() -> None:
    data = columns()
    mean, std = column_scales(data)
    exact = data.double().numpy()
    np.testing.assert_allclose(mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, exact.std(axis=0), rtol=1e-12)
    assert (std > 0).all()


def test_a_column_that_differs_by_rounding_alone_is_constant_and_its_divisor_is_its_size() -> None:
    data = torch.full((1000, 3), 42.0)
    data[:, 0] = torch.nextafter(data[:, 0], torch.tensor(43.0)).where(torch.arange(1000) % 2 == 0, data[:, 0])
    data[:, 1], data[:, 2] = 0.0, -5e-6
    mean, std = column_scales(data)
    assert std.tolist() == [0, 0, 0]
    np.testing.assert_allclose(divisors(mean, std), [42, 1, 5e-6], rtol=1e-6)
    standard = standard_units(data)
    assert (standard.apply(data).abs() < 1e-6).all()
    # A constant that once has another value is off by its share, and no more.
    np.testing.assert_allclose(standard.apply(1.1 * data)[:, 2], -0.1, rtol=1e-5)


def test_undo_undoes_apply_to_the_last_digits() -> None:
    data = columns()
    standard = standard_units(data)
    again = standard.undo(standard.apply(data))
    assert standard.apply(data).dtype == again.dtype == torch.float32
    assert ((again - data).abs() <= 2e-7 * (data.abs() + UNITS)).all()


def test_folded_networks_and_scalers_take_observations_as_they_are() -> None:
    standard = Standard(CENTRES.double() / 1e3, (UNITS * 10).double())
    layout = mlp_layout((4, 8, 2))
    flat = torch.randn(1, layout.size, generator=stream(0, "test/weights"))
    x = torch.randn(50, 4, generator=stream(0, "test/x"))
    raw = standard.undo(x)
    expected = predict(Parameters(layout, flat), standard.apply(raw))
    folded = predict(Parameters(layout, standard.folded(layout, flat)), raw)
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=2e-3)

    mean, std = torch.randn(6, generator=stream(0, "test/mean")), torch.tensor([1.0, 2, 3, 4, 5, 6])
    by_mean, by_std = standard.folded_scaler(mean, std)
    standardised = (torch.cat([standard.apply(raw), x[:, :2]], dim=1) - mean) / std
    torch.testing.assert_close(
        (torch.cat([raw, x[:, :2]], dim=1) - by_mean) / by_std, standardised, rtol=1e-3, atol=1e-3
    )
