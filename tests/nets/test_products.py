"""Products by either library against numpy, and what they have in common."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mopo_cli.bench.operations import counted
from mopo_cli.nets import libraries, products
from mopo_cli.nets.libraries import KINDS, LIBRARIES, all_by
from mopo_cli.nets.products import can_use_onednn, possible, product, product_into, product_silu, usual

# Rows, inner dimension, columns: both narrow and wide, one alone, and one less than is narrow.
SHAPES = [(1, 1, 1), (3, 5, 2), (256, 14, 256), (256, 256, 6), (256, 200, 1), (15, 64, 64), (16, 16, 16), (37, 130, 50)]


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture(params=[*LIBRARIES, None])
def library(request: pytest.FixtureRequest) -> None:
    """Each library for all products, as far as it is here, and what is usual on this processor."""
    libraries.use(possible(all_by(request.param)) if request.param else usual())


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
    for result in (coarse.float(), out):
        np.testing.assert_allclose(result / scale, fine / scale, atol=0.02)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [*SHAPES, (0, 5, 3)])
def test_silu_of_a_product(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    """In bfloat16 right to half of its last digit, or, where the product itself is rounded, to that digit."""
    rows, inner, columns = shape
    left, right, bias = (draw(*size).to(dtype) for size in ((rows, inner), (inner, columns), (1, columns)))
    result = product_silu(left, right / inner**0.5, bias)
    exact = left.double() @ (right / inner**0.5).double() + bias.double()
    wanted = exact * torch.sigmoid(exact)
    assert result.dtype == dtype and result.shape == (rows, columns)
    digit = 1e-5 if dtype == torch.float32 else 2.0**-8 if "bfloat16 silu" in (libraries.to_onednn or ()) else 2.0**-7
    np.testing.assert_allclose(result.double(), wanted, rtol=1.01 * digit, atol=1e-5 if digit < 2.0**-7 else digit)


# Of each kind a product that is of it; of the first, both functions.
OF_KINDS: dict[str, list[Any]] = {
    "float32 small": [(product, 255, 128, 128), (product_into, 64, 16, 64)],
    "float32 layer": [(product, 256, 128, 128)],
    "float32 gradient": [(product_into, 256, 128, 128)],
    "bfloat16 layer": [(product, 16, 16, 16)],
    "bfloat16 gradient": [(product_into, 16, 16, 16)],
    "bfloat16 silu": [(product_silu, 3, 5, 2)],
}
# Thin ones, and types that no library is chosen for.
OF_NONE = [("float32", 15, 64, 64), ("bfloat16", 64, 15, 64), ("float32", 64, 64, 15), ("float64", 64, 64, 64)]


def test_every_kind_is_made_by_its_library_and_by_no_other_kind_s(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(products, "_by_onednn", lambda left, right, *_: asked.append(1) or torch.mm(left, right))

    def handed(dtype: str, made: Any, rows: int, inner: int, columns: int) -> bool:
        asked.clear()
        left, right = (draw(*size).to(getattr(torch, dtype)) for size in ((rows, inner), (inner, columns)))
        if made is product_into:
            made(torch.empty(rows, columns), left, right)
        else:
            made(left, right, torch.zeros(1, columns, dtype=left.dtype))
        return bool(asked)

    assert OF_KINDS.keys() == {*KINDS}
    for chosen in KINDS:
        libraries.use({chosen: "onednn"})
        for kind, made in OF_KINDS.items():
            for job in made:
                assert handed(kind.split()[0], *job) == (kind == chosen), (chosen, kind, job)
    libraries.use(all_by("onednn"))
    assert not any(handed(dtype, made, *job) for dtype, *job in OF_NONE for made in (product, product_into))


def test_a_product_rounds_as_its_library_does() -> None:
    """Bytes hold with the choice: they are those of the library's function itself."""
    left, right, bias = draw(256, 256), draw(256, 256), draw(1, 256)
    libraries.use(all_by("mkl"))
    assert torch.equal(product(left, right, bias), torch.addmm(bias, left, right))
    if not can_use_onednn(torch.float32):
        pytest.skip("torch has no oneDNN here")
    libraries.use(all_by("onednn"))
    linear = torch.ops.mkldnn._linear_pointwise.default
    assert torch.equal(product(left, right, bias), linear(left, right.t(), bias[0], "none", [], ""))
    into = torch.empty(256, 256)
    product_into(into, left.t(), right)
    assert torch.equal(into, linear(left.t(), right.t(), None, "none", [], ""))


@pytest.mark.parametrize(
    ("about", "single", "half", "fused"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_f": True}, "onednn", "mkl", "onednn"),
        ({"cpu_name": "AMD EPYC", "avx512_f": False}, "mkl", "mkl", "mkl"),
        ({"cpu_name": "Intel(R) Xeon(R)", "avx512_f": True}, "mkl", "mkl", "mkl"),
        ({}, "mkl", "mkl", "mkl"),
    ],
)
def test_the_usual_choice_goes_by_the_name(
    monkeypatch: pytest.MonkeyPatch, about: Any, single: str, half: str, fused: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: about, raising=False)
    monkeypatch.setattr(products, "can_use_onednn", lambda dtype: True)
    assert usual() == {
        **dict.fromkeys(("float32 small", "float32 layer", "float32 gradient"), single),
        **dict.fromkeys(("bfloat16 layer", "bfloat16 gradient"), half),
        "bfloat16 silu": fused,
    }


def test_operations_are_counted_whatever_the_library() -> None:
    def both() -> Any:
        return product(draw(32, 40), draw(40, 50)), product(draw(32, 4), draw(4, 50), draw(1, 50))

    wanted = 2 * 32 * 40 * 50 + 2 * 32 * 4 * 50
    for name in LIBRARIES:
        libraries.use(possible(all_by(name)))
        assert counted(both) == wanted
