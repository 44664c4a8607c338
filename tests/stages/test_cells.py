"""Which cells of an ablation train together, and which not at all."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mopo_cli.config.schema import TrainPolicy
from mopo_cli.engine.rows import RowLayout
from mopo_cli.stages.ablation import train_cells as cells
from mopo_cli.stages.ablation.train_cells import Cell

SETTINGS = TrainPolicy(rollout_batch=100, pool_epochs=2, h=1, batch_size=4, hidden=4, seeds=2)


def cell(**settings: Any) -> Cell:
    return Cell(SETTINGS.model_copy(update=settings), Path(f"cells/{len(settings)}-{sorted(settings.items())}"))


def test_of_cells_that_differ_in_their_names_alone_the_first_is_trained() -> None:
    first, other, same, listed = cell(lam=1.0), cell(lam=2.0), cell(name="x", method="mopo"), cell(seed_list=(0, 1))
    firsts, twins = cells._twins([first, other, same, listed])
    assert firsts == [first, other, listed]
    assert twins == {same: first}


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 6), (10**12, [6])])
def test_groups_are_as_large_as_half_of_the_memory_lets_them(
    monkeypatch: pytest.MonkeyPatch, most: int, sizes: list[int]
) -> None:
    world = SimpleNamespace(row_layout=RowLayout(4, 1, 3), real=torch.zeros(1))
    opened: Any = SimpleNamespace(world=world)
    monkeypatch.setattr(cells, "_memory_bytes", lambda opened: most)
    every = [cell(h=h) for h in range(1, 7)]
    assert [len(group) for group in cells._groups(every, opened)] == sizes


def test_pools_of_a_group_are_as_long_as_its_longest_horizon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools outweigh all else here: four policies of h 3 fit, and a step of rollouts."""
    world = SimpleNamespace(row_layout=RowLayout(4, 1, 3), real=torch.zeros(1))
    opened: Any = SimpleNamespace(world=world)
    row = 4 * (2 * 4 + 1 + 2 + 3)
    wide = {"rollout_batch": 100_000}
    pool = row * 100_000 * 2
    monkeypatch.setattr(cells, "_memory_bytes", lambda opened: 2 * (15 * pool))
    groups = list(cells._groups([cell(h=h, lam=float(k), **wide) for k, h in enumerate((1, 1, 1, 3, 3, 1))], opened))
    assert [[each.settings.h for each in group] for group in groups] == [[1, 1, 1], [3, 3], [1]]
