"""Columns that float32 cannot hold are stored less an offset, and come back as they were."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.data.offsets import lift_offsets, without_offset
from mopo_cli.data.statistics import dataset_statistics
from mopo_cli.data.transition_files import read_dataset, read_rollouts, write_dataset, written_rollouts
from mopo_cli.errors import InputError

CLOCK = 1.7e9 + 60.0 * np.arange(500)
PLAIN = np.random.default_rng(0).normal(size=500)
YEARS = 1.7e9 + 60.0 * np.arange(4_000_000)[::97]  # so long that a step is little beside the deviation


def lift(column: NDArray[np.float64]) -> tuple[NDArray[np.float64], float, list[str]]:
    (stored,), _, offsets, checks = lift_offsets([column], [], ["clock"], "my.csv")
    return stored, 0.0 if offsets is None else float(offsets[0]), [check.warning for check in checks]


@pytest.mark.parametrize("column", [CLOCK, CLOCK.astype(np.int64), YEARS, 5e6 + np.round(PLAIN, 2), 300 + 1e-5 * PLAIN])
def test_an_offset_keeps_what_float32_would_lose(column: NDArray[np.float64]) -> None:
    stored, offset, warnings = lift(column)
    assert offset and stored.dtype == np.float32 and len(warnings) == 1
    assert f"{offset:.15g}" in warnings[0] and "column clock" in warnings[0]
    exact = column.astype(np.float64)
    error = np.abs(stored.astype(np.float64) + offset - exact).max()
    assert error <= 0.1 * np.abs(exact - exact.astype(np.float32)).max()
    assert abs(exact.mean() - offset) <= exact.std()


@pytest.mark.parametrize(
    "column",
    [
        PLAIN,
        CLOCK.astype(np.float32),  # what it lost is lost
        np.full(500, 1.7e9 + 1),
        0.1 + 0.2 + np.where(PLAIN > 0, 1e-16, 0),
        np.append(PLAIN, 1e12),
        np.append(PLAIN[:250], 1e12 + PLAIN[250:]),  # no offset helps
        np.append(CLOCK, np.nan),
        np.append(CLOCK, 1e300),
        1e-6 * PLAIN + 2e-6,
        np.arange(500) + 5_000_000,
    ],
)
def test_other_columns_stay_as_they_are(column: NDArray[np.float64]) -> None:
    stored, offset, warnings = lift(column)
    assert stored is column and not offset and not warnings


def test_next_observations_have_the_same_offsets_part_by_part() -> None:
    wide = np.stack([PLAIN, CLOCK], axis=1)
    observations, following, offsets, checks = lift_offsets(
        [CLOCK, wide], [CLOCK + 60, wide + 60], ["a", "b[0]", "b[1]"], "my.h5"
    )
    assert offsets is not None and [check.column for check in checks] == ["a", "b[1]"]
    assert (offsets[0], offsets[1]) == (offsets[2], 0)
    for one, other in zip(observations, following, strict=True):
        np.testing.assert_allclose(other.astype(np.float64) - one, 60, rtol=1e-5)


def table(path: Path) -> Path:
    rows = [f"{k // 50},{CLOCK[k]:.0f},{PLAIN[k]:.4f},{np.sin(k):.3f},{k % 7}" for k in range(500)]
    path.write_text("\n".join(["batch,clock,x,u,r", *rows]) + "\n")
    return path


def test_a_file_with_a_clock_keeps_its_minutes_and_says_so(tmp_path: Path) -> None:
    columns = "obs=clock+x,action=u,reward=r,episode=batch"
    t, info = load_local([table(tmp_path / "my.csv")], None, ["0" * 64], Reading(columns))
    assert info.observation_offset is not None and info.observation_offset.tolist() == [1_700_015_000, 0]
    assert (t.next_observations[:, 0] - t.observations[:, 0] == 60).all()
    np.testing.assert_allclose(t.observations[:, 1], np.delete(PLAIN, np.s_[49::50]), atol=1e-4)
    assert any("clock" in check.warning and "1700015000" in check.warning for check in info.doubts)

    clock = dataset_statistics(t, info).observations[0]
    assert (clock.min, clock.max) == (CLOCK[0], CLOCK[-2])

    write_dataset(tmp_path / "dataset.h5", t, info)
    again, stored = read_dataset(tmp_path / "dataset.h5")
    assert np.array_equal(again.observations, t.observations)
    assert np.array_equal(stored.observation_offset, info.observation_offset)  # type: ignore[arg-type]
    plain, described = without_offset(again, stored)
    assert described.observation_offset is None and described.doubts == tuple(
        check for check in info.doubts if "clock" not in check.column or "taken off" not in check.warning
    )
    np.testing.assert_allclose(plain.observations[:, 0], np.delete(CLOCK, np.s_[49::50]), rtol=1e-7)


def test_far_values_are_told_in_the_files_units(tmp_path: Path) -> None:
    text = table(tmp_path / "my.csv").read_text().replace(f"{CLOCK[70]:.0f}", f"{CLOCK[70] + 3e6:.0f}", 1)
    (tmp_path / "my.csv").write_text(text)
    _, info = load_local(
        [tmp_path / "my.csv"], None, ["0" * 64], Reading("obs=clock+x,action=u,reward=r,episode=batch")
    )
    assert info.observation_offset is not None and info.observation_offset[0]
    assert any("column clock (observations) holds 1.703e+09 in row 70" in check.warning for check in info.doubts)


def test_data_without_an_offset_have_no_attribute(tmp_path: Path) -> None:
    t, info = load_local(
        [table(tmp_path / "my.csv")], None, ["0" * 64], Reading("obs=x,action=u,reward=r,episode=batch")
    )
    write_dataset(tmp_path / "dataset.h5", t, info)
    with h5py.File(tmp_path / "dataset.h5") as file:
        assert "observation_offset" not in file.attrs
    assert read_dataset(tmp_path / "dataset.h5")[1].observation_offset is None


@pytest.mark.parametrize("offset", [np.zeros(3), np.zeros(2, np.float32), np.array([np.nan, 0])])
def test_an_offset_that_does_not_fit_is_refused(tmp_path: Path, offset: NDArray[np.float64]) -> None:
    t, info = load_local(
        [table(tmp_path / "my.csv")], None, ["0" * 64], Reading("obs=clock+x,action=u,reward=r,episode=batch")
    )
    write_dataset(tmp_path / "dataset.h5", t, replace(info, observation_offset=offset))
    with pytest.raises(InputError, match="observation_offset"):
        read_dataset(tmp_path / "dataset.h5")


def test_rollout_files_hold_the_users_units_and_are_read_as_they_were_stored(tmp_path: Path) -> None:
    observations = np.array([[60.0, 1.0], [-120.0, 2.0]], np.float32)
    columns = {
        "observations": observations,
        "actions": np.zeros((2, 1), np.float32),
        "rewards": np.zeros(2, np.float32),
        "next_observations": observations + 1,
        "terminals": np.zeros(2, np.bool_),
        "timeouts": np.zeros(2, np.bool_),
        "step": np.zeros(2, np.int32),
        "network": np.zeros(2, np.int32),
    }
    path = tmp_path / "rollouts.h5"
    with written_rollouts(path, {"observation_offset": np.array([1.7e9, 0])}) as append:
        append(columns)
    with h5py.File(path) as file:
        assert file["observations"][:].tolist() == [[1_700_000_060, 1], [1_699_999_880, 2]]
    read, attributes = read_rollouts(path)
    assert read["observations"].dtype == np.float32 and attributes["observation_offset"].tolist() == [1.7e9, 0]
    assert np.array_equal(read["observations"], observations)
    assert np.array_equal(read["next_observations"], observations + 1)
