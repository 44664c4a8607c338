"""What is written comes back; what is damaged or hostile gives a named error and nothing else."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mopo_cli.data.checks import Check
from mopo_cli.data.transition_files import (
    dataset_shape,
    read_dataset,
    read_dataset_info,
    read_rollouts,
    write_dataset,
    written_rollouts,
)
from mopo_cli.data.transitions import COLUMNS, DatasetInfo, Transitions
from mopo_cli.errors import CorruptError, InputError, MopoError
from mopo_cli.store.atomic import sha256_file
from mopo_cli.store.columns import open_hdf5, read_columns

N = 40
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def transitions(n: int = N) -> Transitions:
    generator = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return generator.standard_normal(shape, dtype=np.float32)

    flags = generator.random((2, n)) < 0.1
    return Transitions(draw(n, 3), draw(n, 2), draw(n), draw(n, 3), *flags)


INFO = DatasetInfo(
    dataset_id="generate:Some-v0:random",
    env_id="Some-v0",
    source="made up – with an en dash",
    action_low=np.array([-9, -8], np.float32),
    action_high=np.array([9, 8], np.float32),
    termination="none",
    reference_min=-1.5,
    reference_max=2e3,
    seed=2**62,
)
BARE = replace(INFO, env_id=None, reference_min=None, reference_max=None, seed=None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "dataset.h5", transitions(), INFO)
    return tmp_path / "dataset.h5"


def equal(a: Any, b: Any) -> bool:
    """Field by field, types included."""
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(a)]
    return all(
        np.array_equal(x, y) and x.dtype == y.dtype if isinstance(x, np.ndarray) else (type(x), x) == (type(y), y)
        for x, y in pairs
    )


@pytest.mark.parametrize("info", [INFO, BARE, replace(INFO, source="", dataset_id="x" * 3000)])
@pytest.mark.parametrize("n", [2, 40, 9000])
def test_a_dataset_comes_back_as_it_was(tmp_path: Path, info: DatasetInfo, n: int) -> None:
    path = tmp_path / "dataset.h5"
    digest = write_dataset(path, transitions(n), info)
    rows, found_info = read_dataset(path)
    assert equal(rows, transitions(n))
    assert equal(found_info, info) and equal(read_dataset_info(path), replace(info, behaviour={}))
    assert digest == sha256_file(path)
    assert [p.name for p in tmp_path.iterdir()] == ["dataset.h5"]


def test_a_dataset_s_shape_is_told_without_reading_it(path: Path, tmp_path: Path) -> None:
    assert dataset_shape(path) == (N, 3, 2)
    with h5py.File(path, "a") as file:
        del file["actions"]
        file["actions"] = np.zeros(N, np.float32)
    with pytest.raises(InputError, match="must have the shape"):
        dataset_shape(path)
    with pytest.raises(InputError, match="does not exist"):
        dataset_shape(tmp_path / "absent.h5")


def test_the_layout_is_d4rl_s_with_its_schema_in_the_attributes(path: Path) -> None:
    with h5py.File(path) as file:
        layout = {name: (column.shape, column.dtype.str) for name, column in file.items()}
        assert dict(file.attrs)["schema_version"] == 1
        assert dict(file.attrs)["kind"] == b"dataset"
        assert file.attrs["env_id"] == b"Some-v0"
    assert layout == {
        "observations": ((N, 3), "<f4"),
        "actions": ((N, 2), "<f4"),
        "rewards": ((N,), "<f4"),
        "next_observations": ((N, 3), "<f4"),
        "terminals": ((N,), "|b1"),
        "timeouts": ((N,), "|b1"),
    }


def test_equal_content_gives_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write_dataset(tmp_path / "a.h5", transitions(), INFO)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert write_dataset(tmp_path / "other" / "b.h5", transitions(), INFO) == first
    assert write_dataset(tmp_path / "c.h5", transitions(), BARE) != first


def test_a_failed_write_leaves_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    broken = replace(transitions(), timeouts=np.array([object()]))
    with pytest.raises(TypeError):
        write_dataset(path, broken, INFO)
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 1


# --- damage


def reads_or_names_its_error(path: Path) -> bool:
    """True when the file reads as it was written, False when it is refused by name; all else fails."""
    try:
        rows, info = read_dataset(path)
    except (CorruptError, InputError) as error:
        assert str(path.name) in error.message
        return False
    assert equal(rows, transitions()) and equal(info, INFO), "damage went unnoticed"
    return True


@RELAXED
@given(share=st.floats(0, 1))
@example(share=0.0)
def test_a_file_cut_short_is_refused(path: Path, share: float) -> None:
    whole = path.read_bytes()
    cut = path.with_name("cut.h5")
    cut.write_bytes(whole[: min(int(share * len(whole)), len(whole) - 1)])
    with pytest.raises(CorruptError, match=r"cut\.h5"):
        read_dataset(cut)


@settings(RELAXED, max_examples=300)
@given(start=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255) | st.binary(min_size=1, max_size=300))
def test_flipped_bytes_and_overwritten_stretches_never_go_unnoticed(
    path: Path, start: float, change: int | bytes
) -> None:
    content = bytearray(path.read_bytes())
    at = int(start * len(content))
    noise = bytes([content[at] ^ change]) if isinstance(change, int) else change
    content[at : at + len(noise)] = noise
    bad = path.with_name("bad.h5")
    bad.write_bytes(content)
    reads_or_names_its_error(bad)


def test_no_text_lies_outside_the_checksums(path: Path, tmp_path: Path) -> None:
    # HDF5 keeps variable-length text in a heap without a checksum, and one flipped bit in the heap's sizes
    # makes the library read for ever, so there must be none to read.
    write_rollouts(tmp_path / "r.h5", [5])
    for written in (path, tmp_path / "r.h5"):
        assert b"GCOL" not in written.read_bytes()


def test_every_column_attribute_and_name_is_guarded(path: Path) -> None:
    whole = path.read_bytes()
    columns = [getattr(transitions(), name).tobytes() for name in COLUMNS]
    for stored in (*columns, b"Some-v0", b"made up", INFO.action_low.tobytes(), b"rewards"):
        content = bytearray(whole)
        content[whole.index(stored) + len(stored) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(CorruptError):
            read_dataset(path)


@given(noise=st.binary(max_size=400))
@RELAXED
def test_noise_is_refused(path: Path, noise: bytes) -> None:
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + noise)
    with pytest.raises(CorruptError):
        read_dataset(path)


# --- files that break the schema


def rewrite(name: str, value: Any) -> Callable[[Any, Path], None]:
    def change(file: Any, _folder: Path) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


def link_soft_out(file: h5py.File, _folder: Path) -> None:
    file["door"] = h5py.ExternalLink("other.h5", "/")
    del file["rewards"]
    file["rewards"] = h5py.SoftLink("/door/rewards")


def store_outside(file: h5py.File, folder: Path) -> None:
    (folder / "raw").write_bytes(bytes(4 * N))
    del file["rewards"]
    file.create_dataset("rewards", (N,), "f4", external=[(str(folder / "raw"), 0, 4 * N)])


def view_outside(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((N,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "rewards", (N,))
    del file["rewards"]
    file.create_virtual_dataset("rewards", layout)


def declare_huge(file: h5py.File, _folder: Path) -> None:
    del file["rewards"]
    file.create_dataset("rewards", (10**15,), "f4", chunks=(1024,))


def group(file: h5py.File, _folder: Path) -> None:
    del file["rewards"]
    file.create_group("rewards")


def attribute(name: str, value: Any) -> Callable[[h5py.File, Path], None]:
    return lambda file, folder: rewrite(name, value)(file.attrs, folder)


OUT, ROUND = h5py.ExternalLink("other.h5", "/rewards"), h5py.SoftLink("/rewards")
BROKEN = {
    "missing column": (rewrite("rewards", None), "column rewards is missing"),
    "external link": (
        rewrite("rewards", h5py.ExternalLink("other.h5", "/rewards")),
        "column rewards is missing \\(or a link",
    ),
    "soft link through an external one": (link_soft_out, "column rewards is missing \\(or a link"),
    "soft link to itself": (rewrite("rewards", ROUND), "column rewards is missing \\(or a link"),
    "external storage": (store_outside, "column rewards stores its numbers outside"),
    "virtual dataset": (view_outside, "column rewards stores its numbers outside"),
    "huge shape": (declare_huge, "declares 4,000,000,000,001"),
    "group": (group, "column rewards does not hold numbers"),
    "text": (rewrite("rewards", "text"), "column rewards does not hold numbers"),
    "no shape": (rewrite("rewards", h5py.Empty("f4")), "column rewards does not hold numbers"),
    "doubles": (rewrite("rewards", np.zeros(N)), "column rewards is of type float64"),
    "numbers for flags": (rewrite("terminals", np.zeros(N, "u1")), "column terminals is of type uint8"),
    "short": (rewrite("rewards", np.zeros(N - 1, "f4")), "has shape"),
    "wide": (rewrite("rewards", np.zeros((N, 1), "f4")), "column rewards has shape"),
    "NaN": (rewrite("rewards", np.full(N, np.nan, "f4")), "column rewards holds NaN or infinity in row 0"),
    "other schema": (attribute("schema_version", 2), "schema 2"),
    "no schema": (attribute("schema_version", None), "schema None"),
    "other kind": (attribute("kind", np.bytes_("rollouts")), "kind 'rollouts'"),
    "no action bounds": (attribute("action_low", None), "attribute action_low"),
    "double action bounds": (attribute("action_low", np.zeros(2)), "attribute action_low"),
    "too many bounds": (attribute("action_low", np.zeros(3, "f4")), "bounds"),
    "NaN in bounds": (attribute("action_low", np.full(2, np.nan, "f4")), "bounds"),
    "number for a name": (attribute("dataset_id", 7), "attribute dataset_id"),
    "text of variable length": (attribute("dataset_id", "some"), "attribute dataset_id is neither"),
    "text that is no UTF-8": (attribute("source", np.bytes_(b"\xff")), "attribute source is not UTF-8"),
    "text for a seed": (attribute("seed", np.bytes_("0")), "attribute seed"),
    "unknown rule": (attribute("termination", np.bytes_("os.system")), "rule 'os.system' is not known"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_schema_is_named(path: Path, case: str) -> None:
    change, says = BROKEN[case]
    write_dataset(path.parent / "other.h5", transitions(), INFO)
    with h5py.File(path, "a") as file:
        change(file, path.parent)
    with pytest.raises(InputError, match=says) as caught:
        read_dataset(path)
    assert str(path) in caught.value.message or INFO.dataset_id in caught.value.message


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("not a dataset")
    (tmp_path / "empty.h5").touch()
    for name in ("text.h5", "empty.h5"):
        with pytest.raises(CorruptError, match=name):
            read_dataset(tmp_path / name)
    for path in (tmp_path, tmp_path / "absent.h5"):
        with pytest.raises(InputError, match=r"does not exist|not a file"):
            read_dataset(path)


def test_our_own_errors_inside_the_block_keep_their_class(path: Path) -> None:
    with pytest.raises(MopoError) as caught, open_hdf5(path) as file:
        read_columns(file, ["nothing"])
    assert type(caught.value) is InputError


@RELAXED
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_files_without_checksums_are_read_or_refused(tmp_path: Path, place: float, flip: int) -> None:
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        for name in COLUMNS:
            file[name] = getattr(transitions(), name)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= flip
    path.write_bytes(content)
    try:
        with open_hdf5(path) as opened:
            read_columns(opened, COLUMNS)
    except MopoError as error:
        assert isinstance(error, (CorruptError, InputError))


# --- rollouts

ATTRIBUTES = {
    "dataset_id": "some",
    "env_id": None,
    "dataset_sha256": "0" * 64,
    "action_low": np.array([-1, -1], np.float32),
    "h": 5,
    "lam": 0.5,
}


def imagined(n: int, seed: int) -> dict[str, np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    rows = replace(transitions(n), rewards=generator.standard_normal(n, dtype=np.float32))
    return {
        **{name: getattr(rows, name) for name in COLUMNS},
        "step": np.full(n, seed, np.int32),
        "network": generator.integers(7, size=n, dtype=np.int32),
        "uncertainty/max-var": generator.random(n, dtype=np.float32),
        "uncertainty/ens": generator.random(n, dtype=np.float32),
    }


def write_rollouts(path: Path, sizes: list[int]) -> dict[str, np.ndarray[Any, Any]]:
    parts = [imagined(n, seed) for seed, n in enumerate(sizes)]
    with written_rollouts(path, ATTRIBUTES) as append:
        for part in parts:
            append(part)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("sizes", [[5], [5, 0, 3], [4096, 1, 5000]])
def test_rollouts_come_back_as_they_were_appended(tmp_path: Path, sizes: list[int]) -> None:
    written = write_rollouts(tmp_path / "r.h5", sizes)
    columns, attributes = read_rollouts(tmp_path / "r.h5")
    assert columns.keys() == written.keys()
    for name, column in written.items():
        assert columns[name].dtype == column.dtype
        assert np.array_equal(columns[name], column), name
    assert attributes.pop("action_low").tolist() == [-1, -1]
    assert attributes == {key: value for key, value in ATTRIBUTES.items() if key != "action_low"}


def test_an_older_file_is_read_by_the_names_of_now(tmp_path: Path) -> None:
    part = imagined(5, 0)
    with written_rollouts(tmp_path / "old.h5", {**ATTRIBUTES, "penalty_members": "elite"}) as append:
        append({"member" if name == "network" else name: column for name, column in part.items()})
    columns, attributes = read_rollouts(tmp_path / "old.h5")
    assert columns.keys() == part.keys() and np.array_equal(columns["network"], part["network"])
    assert attributes["penalty_networks"] == "elite" and "penalty_members" not in attributes
    with h5py.File(tmp_path / "old.h5", "a") as file:
        file["member"][0] = 6 - file["member"][0] + 7
    with pytest.raises(CorruptError, match="its content does not match its checksum"):
        read_rollouts(tmp_path / "old.h5")


def test_equal_rollouts_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        write_rollouts(tmp_path / name, [7, 3])
    assert sha256_file(tmp_path / "a.h5") == sha256_file(tmp_path / "b.h5")


def test_a_small_rollout_file_is_small(tmp_path: Path) -> None:
    write_rollouts(tmp_path / "r.h5", [10])
    assert (tmp_path / "r.h5").stat().st_size < 500_000


def test_nothing_is_seen_until_the_writer_is_done(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    with written_rollouts(path, ATTRIBUTES) as append:
        append(imagined(5, 0))
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), written_rollouts(path, ATTRIBUTES) as append:
        append(imagined(9, 1))
        raise ZeroDivisionError
    assert len(read_rollouts(path)[0]["rewards"]) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["r.h5"]


def test_a_writer_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), written_rollouts(tmp_path / "r.h5", {"bad": object()}):
        pass
    assert not list(tmp_path.iterdir())


def test_a_dataset_is_no_rollout_file_and_the_reverse(path: Path, tmp_path: Path) -> None:
    write_rollouts(tmp_path / "r.h5", [5])
    with pytest.raises(InputError, match="is not a rollouts file"):
        read_rollouts(path)
    with pytest.raises(InputError, match="is not a dataset file"):
        read_dataset(tmp_path / "r.h5")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (rewrite("step", np.zeros(5)), "column step"),
        (rewrite("network", np.zeros(4, np.int32)), "column network"),
        (rewrite("uncertainty/ens", np.zeros(4, "f4")), "column uncertainty/ens"),
        (rewrite("uncertainty/ens", np.full(5, np.nan, "f4")), "column uncertainty/ens holds NaN"),
        (rewrite("uncertainty/ens", h5py.ExternalLink("x.h5", "/y")), "column uncertainty/ens is missing"),
        (rewrite("rewards", None), "column rewards is missing"),
    ],
)
def test_broken_rollouts_are_named(tmp_path: Path, change: Callable[[h5py.File, Path], None], says: str) -> None:
    write_rollouts(tmp_path / "r.h5", [5])
    with h5py.File(tmp_path / "r.h5", "a") as file:
        change(file, tmp_path)
    with pytest.raises(InputError, match=says):
        read_rollouts(tmp_path / "r.h5")


def test_doubts_come_back_and_none_leave_no_trace(path: Path) -> None:
    with h5py.File(path) as file:
        assert "doubts" not in file.attrs
    assert read_dataset(path)[1].doubts == ()
    doubts = (Check("rewards", "varies", row=3, warning="odd – so"), Check("actions", "varies", warning="x"))
    write_dataset(path, transitions(), replace(INFO, doubts=doubts))
    assert read_dataset(path)[1].doubts == read_dataset_info(path).doubts == doubts


@pytest.mark.parametrize("text", ["{}", "[1]", "[{}]", '[{"column": 1}]', "[", "null"])
def test_doubts_that_are_none_are_refused(path: Path, text: str) -> None:
    with h5py.File(path, "a") as file:
        file.attrs.create("doubts", text.encode())
    with pytest.raises(InputError, match="attribute doubts"):
        read_dataset(path)
