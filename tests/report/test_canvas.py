"""Scales: which one values are told apart on, where it ends and is marked, also as a scale of colours."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.report.canvas import Scale, new_figure, scale_for

DRAW = np.random.default_rng(0)
DECADES = 10.0 ** DRAW.uniform(-3, 2, 5000)
SIGNED = DECADES * np.where(DRAW.uniform(size=5000) < 0.1, -0.1, 1)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (DRAW.uniform(1, 10, 1000), "linear"),
        (DRAW.normal(size=1000), "linear"),
        (DECADES, "log"),
        (SIGNED, "symlog"),
        (np.append(DECADES, np.zeros(100)), "symlog"),
        (-DECADES, "symlog"),
        (np.append(DRAW.uniform(1, 10, 1000), 1e9), "linear"),
    ],
    ids=["positive", "of both signs", "decades", "signed decades", "decades and zeros", "negative", "an outlier"],
)
def test_values_that_span_decades_get_a_logarithm(values: Any, kind: str) -> None:
    scale = scale_for(values)
    assert scale.kind == kind
    assert (scale.low, scale.high) == pytest.approx(tuple(np.quantile(values, (0.005, 0.995))))
    if kind == "symlog":
        sizes = np.abs(values[values != 0])
        assert scale.linear == pytest.approx(max(np.quantile(sizes, 0.05), np.quantile(sizes, 0.995) / 1e4))


@pytest.mark.parametrize(("values", "ends"), [([], (0, 1)), ([3.0] * 4, (2.5, 3.5))])
def test_nothing_to_tell_apart_has_an_axis_all_the_same(values: Any, ends: Any) -> None:
    assert scale_for(values) == Scale("linear", *ends)


def test_a_logarithm_is_marked_at_round_numbers() -> None:
    assert Scale("log", 0.013, 0.7).ticks() == [0.02, 0.05, 0.1, 0.2, 0.5]
    assert Scale("log", 0.013, 130).ticks() == [0.1, 1, 10, 100]
    assert Scale("log", 1e-9, 1e9).ticks() == [1e-9, 1e-6, 1e-3, 1, 1e3, 1e6, 1e9]
    assert Scale("symlog", -3, 300, 0.04).ticks() == [-2, -1, -0.5, -0.2, -0.1, 0, 0.1, 1, 10, 100]


@given(st.floats(-6, 6), st.floats(0.02, 12))
def test_marks_are_few_and_rising_and_lie_within(low: float, decades: Any) -> None:
    scale = Scale("log", 10**low, 10 ** (low + decades))
    ticks = scale.ticks()
    assert len(ticks) <= 9 and ticks == sorted(set(ticks))
    assert all(scale.low <= tick <= scale.high for tick in ticks)
    assert ticks or decades < 0.5


@pytest.mark.parametrize("values", [DECADES, SIGNED, DRAW.normal(size=100)])
def test_an_axis_and_a_scale_of_colours_agree(values: Any) -> None:
    scale, figure = scale_for(values), new_figure(4)
    axes = figure.add_subplot()
    dots = axes.scatter(values, values, c=values)
    scale.on(axes, "y")
    scale.colour(dots, axes, "my $_{$")
    bar = figure.axes[1]
    figure.canvas.draw()
    assert axes.get_ylim() == pytest.approx((scale.low, scale.high))
    assert (dots.norm.vmin, dots.norm.vmax) == pytest.approx((scale.low, scale.high))
    height = axes.transAxes.inverted().transform(axes.transData.transform(np.column_stack([values, values])))[:, 1]
    inside = (values > scale.low) & (values < scale.high)
    assert np.corrcoef(height[inside], np.asarray(dots.norm(values))[inside])[0, 1] > 0.95
    if scale.kind != "linear":
        assert axes.get_yticks().tolist() == bar.get_yticks().tolist() == scale.ticks()
        assert [label.get_text() for label in axes.get_yticklabels()] == [f"{tick:g}" for tick in scale.ticks()]
