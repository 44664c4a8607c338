"""Traced pieces give what their functions give, to the last bit, also on threads side by side."""

from collections.abc import Iterator
from itertools import product

import pytest
import torch
from torch import Tensor

from mopo_cli.engine import traced as module
from mopo_cli.engine.parallel import spread, use_threads
from mopo_cli.engine.traced import traced
from mopo_cli.nets import libraries
from mopo_cli.nets.gaussian import gaussian_layout, likelihood_gradient
from mopo_cli.nets.libraries import Library, all_by
from mopo_cli.nets.precision import Precision
from mopo_cli.nets.products import can_use_onednn
from mopo_cli.nets.stacked import Parameters


@pytest.fixture(autouse=True)
def nothing_traced_yet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_traces", {})
    monkeypatch.setattr(module, "_calls", {})
    yield
    use_threads(1)


def traces_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    monkeypatch.setattr(module, "CALLS", calls)


runs: list[int] = []


@traced
def scaled_sum(factor: float, matrices: dict[str, Tensor], x: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    runs.append(len(x))
    product = x @ matrices["weight"] * factor
    total.add_(product.sum(dim=0))
    return product, product.square()


def by_hand(factor: float, weight: Tensor, x: Tensor) -> Tensor:
    return x @ weight * factor


def test_a_piece_is_traced_after_some_calls_and_works_on_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    traces_after(monkeypatch, 3)
    runs.clear()
    total, expected = torch.zeros(2), torch.zeros(2)
    for k in range(6):
        weight, x = torch.full((3, 2), 1.0 + k), torch.randn(4, 3)
        result, squares = scaled_sum(2.0, {"weight": weight}, x, total)
        expected += by_hand(2.0, weight, x).sum(dim=0)
        assert torch.equal(result, by_hand(2.0, weight, x)) and torch.equal(squares, result.square())
        assert torch.equal(total, expected)
    assert len(runs) == 3  # twice called and once traced; afterwards Python is not asked


def test_other_shapes_types_and_constants_are_other_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    traces_after(monkeypatch, 1)
    kinds = list(product((2.0, 3.0), (4, 5), (torch.float32, torch.float64)))
    for factor, rows, dtype in [*kinds, *kinds]:
        weight, x = torch.randn(3, 2, dtype=dtype), torch.randn(rows, 3, dtype=dtype)
        result, _ = scaled_sum(factor, {"weight": weight}, x, torch.zeros(2, dtype=dtype))
        assert torch.equal(result, by_hand(factor, weight, x))
    assert len(module._traces) == len(kinds)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_may_meet_in_a_piece_that_is_not_traced_yet(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    traces_after(monkeypatch, 5)
    use_threads(threads)
    weight = torch.randn(3, 2)
    xs = [torch.randn(4, 3) for _ in range(40)]
    results = spread(lambda i: scaled_sum(2.0, {"weight": weight}, xs[i], torch.zeros(2))[0], len(xs))
    assert all(torch.equal(result, by_hand(2.0, weight, x)) for result, x in zip(results, xs, strict=True))
    assert len(module._traces) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("hidden", "layers"), [(200, 4), (17, 2), (32, 1)])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_models_gradient_is_the_same_when_traced(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, hidden: int, layers: int, threads: int
) -> None:
    use_threads(threads)
    layout = gaussian_layout(7, 5, hidden, layers)
    draw = torch.Generator().manual_seed(3)
    networks = Parameters(layout, torch.randn(3, layout.size, generator=draw) / 10, precision)
    x, target = torch.randn(3, 64, 7, generator=draw), torch.randn(3, 64, 5, generator=draw)

    def gradients(calls: int, steps: int) -> list[Tensor]:
        traces_after(monkeypatch, calls)
        into = Parameters(layout, torch.zeros_like(networks.flat))
        for _ in range(steps):
            into.flat.fill_(torch.nan)
            likelihood = likelihood_gradient(networks, x, target, into)
        return [matrix.clone() for matrix in layout.views(into.flat).values()] + [likelihood.loss, likelihood.by_max]

    eager = gradients(1_000_000, 1)
    assert not module._traces
    replayed = gradients(1, 3)
    assert module._traces
    assert all(torch.equal(a, b) for a, b in zip(eager, replayed, strict=True))


def test_a_piece_that_cannot_be_traced_stays_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    @traced
    def grown(x: Tensor) -> Tensor:
        if torch._C._is_tracing():
            raise RuntimeError("unsupported input list type")
        return x + 1

    traces_after(monkeypatch, 2)
    assert [float(grown(torch.tensor([value]))) for value in (0.0, 1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0, 4.0]
    assert list(module._traces.values()) == [None]


@pytest.mark.skipif(not can_use_onednn(torch.float32), reason="torch has no oneDNN here")
def test_products_by_another_library_are_no_old_trace_s(monkeypatch: pytest.MonkeyPatch) -> None:
    traces_after(monkeypatch, 2)
    layout = gaussian_layout(7, 5, 400, 2)
    draw = torch.Generator().manual_seed(3)
    networks = Parameters(layout, torch.randn(2, layout.size, generator=draw) / 10)
    x, target = torch.randn(2, 64, 7, generator=draw), torch.randn(2, 64, 5, generator=draw)

    def gradient(library: Library) -> Tensor:
        libraries.use(all_by(library))
        into = Parameters(layout, torch.zeros_like(networks.flat))
        likelihood_gradient(networks, x, target, into)
        return into.flat

    both: tuple[Library, Library] = ("mkl", "onednn")
    once = [gradient(library) for library in both]
    assert not torch.equal(*once)
    for _ in range(3):
        assert all(torch.equal(a, gradient(library)) for a, library in zip(once, both, strict=True))
