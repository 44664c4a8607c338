"""Named streams: what a draw depends on, and what it does not."""

import pytest
import torch

from mopo_cli.engine.streams import stream


def draw(seed: int, name: str, index: int = 0) -> list[float]:
    return torch.rand(8, generator=stream(seed, name, index)).tolist()


def test_seed_name_and_index_name_a_stream() -> None:
    assert draw(3, "policy/noise", 5) == draw(3, "policy/noise", 5)
    others = [draw(4, "policy/noise", 5), draw(3, "policy/batch", 5), draw(3, "policy/noise", 6)]
    assert all(other != draw(3, "policy/noise", 5) for other in others)
    assert draw(3, "policy/noise") == draw(3, "policy/noise", 0)


def test_neither_other_streams_nor_the_global_state_matter() -> None:
    expected = draw(0, "model/weights", 1)
    torch.manual_seed(1)
    stream(0, "model/weights", 0)
    torch.rand(100, generator=stream(1, "model/weights", 1))
    assert draw(0, "model/weights", 1) == expected
    before = torch.get_rng_state()
    draw(0, "model/weights", 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_parts_of_a_name_do_not_run_together() -> None:
    assert draw(1, "1x") != draw(11, "x") and draw(0, "x1", 2) != draw(0, "x", 12)


def test_large_seeds_are_whole() -> None:
    assert draw(2**63 - 1, "x") != draw(2**63 - 2, "x")
    assert draw(2**40, "x") != draw(0, "x")


def test_thousands_of_streams_are_all_different() -> None:
    first = {torch.rand(2, generator=stream(seed, "x", i)).numpy().tobytes() for seed in range(4) for i in range(1000)}
    assert len(first) == 4000


def test_streams_are_uniform_across_and_within() -> None:
    across = torch.cat([torch.rand(1, generator=stream(0, "x", i)) for i in range(4000)])
    for values in (across, torch.rand(4000, generator=stream(0, "x"))):
        quartiles = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75])).tolist()
        assert quartiles == pytest.approx([0.25, 0.5, 0.75], abs=0.04)
    assert abs(torch.corrcoef(torch.stack([across[:-1], across[1:]]))[0, 1].item()) < 0.06


def test_the_seeds_are_those_of_every_version() -> None:
    """A checkpoint holds no generator: it is taken up by drawing the same streams again."""
    assert stream(0, "policy/batch", 7).initial_seed() == 2589527715532416468
