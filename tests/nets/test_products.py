"""Products by either library against numpy, and what they have in common."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.bench.operations import counted
from mopo_cli.nets import products
from mopo_cli.nets.products import product, product_into, product_silu

# Rows, inner dimension, columns: both narrow and wide, one alone, and one less than is narrow.
SHAPES = [(1, 1, 1), (3, 5, 2), (256, 14, 256), (256, 256, 6), (256, 200, 1), (15, 64, 64), (16, 16, 16), (37, 130, 50)]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(params=["fastest", "torch.mm"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine takes, and what one without oneDNN does."""
    if request.param == "torch.mm":
        monkeypatch.setattr(products, "_onednn", None)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_numpy(shape: tuple[int, int, int], turned: bool) -> None:
    """Also of transposed views, as gradients are made of, and into a view of what holds other numbers too."""
    rows, inner, columns = shape
    left = draw(inner, rows).t() if turned else draw(rows, inner)
    right = draw(columns, inner).t() if turned else draw(inner, columns)
    bias, kept = draw(1, columns), (left.clone(), right.clone())
    wanted = left.double().numpy() @ right.double().numpy()
    np.testing.assert_allclose(product(left, right), wanted, atol=1e-4)
    np.testing.assert_allclose(product(left, right, bias), wanted + bias.double().numpy(), atol=1e-4)
    room = torch.full((rows * columns + 32,), torch.nan)
    product_into(room[16:-16].view(rows, columns), left, right)
    np.testing.assert_allclose(room[16:-16].view(rows, columns), wanted, atol=1e-4)
    assert bool(room[:16].isnan().all() and room[-16:].isnan().all())
    assert torch.equal(left, kept[0]) and torch.equal(right, kept[1])


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("shape", SHAPES)
def test_of_coarser_numbers_and_of_finer_ones(shape: tuple[int, int, int]) -> None:
    rows, inner, columns = shape
    left, right = draw(rows, inner), draw(inner, columns)
    fine = product(left.double(), right.double())
    np.testing.assert_allclose(fine, left.double().numpy() @ right.double().numpy(), atol=1e-12)
    coarse, out = product(left.bfloat16(), right.bfloat16()), torch.empty(rows, columns)
    product_into(out, left.bfloat16(), right.bfloat16())
    assert (coarse.dtype, out.dtype) == (torch.bfloat16, torch.float32)
    scale = 1 + np.abs(fine.numpy()).max()
    for found in (coarse.float(), out):
        np.testing.assert_allclose(found / scale, fine / scale, atol=0.02)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [*SHAPES, (0, 5, 3)])
def test_silu_of_a_product(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """In bfloat16 right to half of its last digit, or, where the product itself is rounded, to that digit."""
    rows, inner, columns = shape
    left, right, bias = (draw(*size).to(dtype) for size in ((rows, inner), (inner, columns), (1, columns)))
    found = product_silu(left, right / inner**0.5, bias)
    exact = left.double() @ (right / inner**0.5).double() + bias.double()
    wanted = exact * torch.sigmoid(exact)
    assert found.dtype == dtype and found.shape == (rows, columns)
    digit = 1e-5 if dtype == torch.float32 else 2.0**-8 if products._onednn is not None else 2.0**-7
    np.testing.assert_allclose(found.double(), wanted, rtol=1.01 * digit, atol=1e-5 if digit < 2.0**-7 else digit)


@pytest.mark.skipif(products._onednn is None, reason="MKL is as fast on this processor")
def test_wide_products_of_float32_alone_are_handed_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    onednn, asked = products._onednn, []

    def spy(*given: Any) -> Tensor:
        asked.append(1)
        result: Tensor = onednn(*given)  # type: ignore[misc]
        return result

    monkeypatch.setattr(products, "_onednn", spy)

    def handed(rows: int, inner: int, columns: int, dtype: torch.dtype = torch.float32) -> list[int]:
        asked.clear()
        left, right = draw(rows, inner).to(dtype), draw(inner, columns).to(dtype)
        product_into(product(left, right), left, right)
        return asked.copy()

    assert handed(256, 256, 256) == handed(16, 16, 16) == [1, 1]
    assert handed(15, 64, 64) == handed(64, 15, 64) == handed(64, 64, 15) == []
    assert handed(64, 64, 64, torch.float64) == handed(64, 64, 64, torch.bfloat16) == []


def test_operations_are_counted_whatever_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def both() -> Any:
        return product(draw(32, 40), draw(40, 50)), product(draw(32, 4), draw(4, 50), draw(1, 50))

    wanted = 2 * 32 * 40 * 50 + 2 * 32 * 4 * 50
    assert counted(both) == wanted
    monkeypatch.setattr(products, "_onednn", None)
    assert counted(both) == wanted
