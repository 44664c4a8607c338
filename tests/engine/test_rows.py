"""Packed transitions: every column comes back where it was put."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.engine.rows import RowLayout

dims = st.integers(1, 6)


def columns(rows: RowLayout, count: int) -> dict[str, torch.Tensor]:
    """Columns in which no two numbers are equal, but for terminal."""
    shapes = {
        "observation": (count, rows.obs_dim),
        "action": (count, rows.act_dim),
        "reward": (count,),
        "next_observation": (count, rows.obs_dim),
        "uncertainty": (count, rows.uncertainties),
    }
    out, offset = {}, 10
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        out[name] = torch.arange(offset, offset + size, dtype=torch.float32).view(shape)
        offset += size
    out["terminal"] = torch.arange(count) % 3 == 0
    return out


@given(dims, dims, st.integers(0, 4), st.integers(0, 7))
def test_split_undoes_pack(obs_dim: int, act_dim: int, uncertainties: int, count: int) -> None:
    rows = RowLayout(obs_dim, act_dim, uncertainties)
    given = columns(rows, count)
    packed = rows.pack(**given)
    assert packed.shape == (count, rows.width) and packed.dtype == torch.float32
    split = rows.split(packed)
    for name, column in given.items():
        assert torch.equal(getattr(split, name), column.float()), name
        assert getattr(split, name).shape == column.shape, name


def test_terminal_is_one_where_the_episode_ended() -> None:
    rows = RowLayout(2, 1, 3)
    assert rows.split(rows.pack(**columns(rows, 4))).terminal.tolist() == [1.0, 0.0, 0.0, 1.0]


def test_a_stack_of_batches_is_split_without_a_copy() -> None:
    rows = RowLayout(3, 2, 3)
    packed = rows.pack(**columns(rows, 12))
    split = rows.split(packed.view(3, 4, -1))
    assert split.observation.shape == (3, 4, 3) and split.action.shape == (3, 4, 2)
    assert split.reward.shape == split.terminal.shape == (3, 4) and split.uncertainty.shape == (3, 4, 3)
    assert torch.equal(split.next_observation.flatten(0, 1), rows.split(packed).next_observation)
    packed[5] = -1.0
    assert (split.observation[1, 1] == -1).all() and split.reward[1, 1] == -1
