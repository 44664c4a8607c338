"""Tensors and meta come back exactly, and a damaged file is named."""

import math
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mopo_cli.errors import CorruptError, InputError
from mopo_cli.store.checkpoint import load_tensors, save_tensors

META = {"step": 3, "best": math.inf, "lr": 0.1, "names": ["a", "λ"]}


def tensors() -> dict[str, torch.Tensor]:
    weights = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    return {
        "weights": weights,
        "a view of it": weights[1],
        "transposed": weights.mT,
        "expanded": torch.ones(1).expand(5),
        "nan": torch.tensor([math.nan, -0.0, 1e-45]),
        "step": torch.tensor(7),
        "stream": torch.Generator().manual_seed(0).get_state(),
        "mask": torch.tensor([True, False]),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "empty": torch.empty(0, 3),
    }


def test_content_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", tensors(), META)
    loaded, meta = load_tensors(tmp_path / "a.safetensors")
    assert meta == META
    assert loaded.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape, name
        expected = tensor.detach().contiguous().flatten().view(torch.uint8) if tensor.numel() else tensor
        got = loaded[name].flatten().view(torch.uint8) if tensor.numel() else loaded[name]
        assert torch.equal(got, expected), name
    assert not loaded["weights"].requires_grad


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a.safetensors", {"w": torch.ones(3)}, META)
    assert load_file(tmp_path / "a.safetensors")["w"].tolist() == [1, 1, 1]


def test_equal_content_has_equal_bytes(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", tensors(), META)
    names = list(tensors())
    random.Random(0).shuffle(names)
    save_tensors(tmp_path / "b", {name: tensors()[name] for name in names}, dict(reversed(META.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    save_tensors(path, {"w": torch.zeros(1000)}, {})
    loaded, _ = load_tensors(path)
    content = bytearray(path.read_bytes())
    content[-4000:] = b"\x7f" * 4000
    with path.open("r+b") as file:
        file.write(content)
    loaded["w"] += 1
    assert loaded["w"].tolist() == [1.0] * 1000


def test_meta_that_is_not_json_keeps_the_old_file(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {}, {"step": 1})
    with pytest.raises(TypeError):
        save_tensors(tmp_path / "a", {}, {"step": object()})
    assert load_tensors(tmp_path / "a") == ({}, {"step": 1})


def test_absent_and_foreign_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        load_tensors(tmp_path / "absent")
    save_file({"w": torch.ones(1)}, tmp_path / "foreign")
    with pytest.raises(InputError, match="foreign"):
        load_tensors(tmp_path / "foreign")


@pytest.mark.parametrize("header", ["", "{", "[1]", "[" * 100_000])
def test_a_damaged_header_is_corrupt(tmp_path: Path, header: str) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "bad", metadata={"mopo": header})
    with pytest.raises(CorruptError, match="bad"):
        load_tensors(tmp_path / "bad")


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pt").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(CorruptError, match=r"evil\.pt"):
        load_tensors(tmp_path / "evil.pt")


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_never_shows_a_traceback(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_tensors(path, {"w": torch.ones(3, 4), "n": torch.tensor(1)}, META)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        load_tensors(path)
    except (CorruptError, InputError) as error:
        assert path.name in error.message
