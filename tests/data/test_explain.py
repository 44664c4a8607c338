"""What is said of a file that somebody wants to learn from, and the map that is suggested for it."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Mopo

from mopo_cli.data.files.explain import explain
from mopo_cli.data.files.local import load_local
from mopo_cli.data.files.read_columns import Reading
from mopo_cli.errors import InputError


def test_a_table_with_names_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "plant.csv"
    path.write_text("time,temp,valve,sex\n01.03.2024 06:00,1.5,2,F\n01.03.2024 06:05,,4,M\n")
    about = explain([path])
    assert (about.layout, about.rows) == ("table", 2)
    assert [column.name for column in about.columns] == ["time", "temp", "valve", "sex"]
    assert [(column.least, column.greatest) for column in about.columns[1:]] == [(1.5, 1.5), (2, 4), (None, None)]
    assert [column.first for column in about.columns[2:]] == ["2, 4", "'F', 'M'"]
    assert about.column_map == "obs=STATE+STATE,action=ACTION,reward=REWARD"


def test_the_suggested_map_reads_the_file_as_without_a_map(tmp_path: Path) -> None:
    path, draw = tmp_path / "demos.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for i in range(3):
            file[f"demo_{i}/obs/arm"], file[f"demo_{i}/obs/cube"] = draw.normal(size=(5, 2)), draw.normal(size=(5, 1))
            file[f"demo_{i}/actions"], file[f"demo_{i}/rewards"] = draw.uniform(-1, 1, (5, 2)), draw.normal(size=5)
    about = explain([path])
    assert about.understood.endswith("; 3 groups demo_*, one per episode")
    assert {column.name: column.role for column in about.columns} == {
        "actions": "action",
        "obs/arm": "obs",
        "obs/cube": "obs",
        "rewards": "reward",
    }
    plain, mapped = (load_local([path], None, ["0"], Reading(text))[0] for text in (None, about.column_map))
    np.testing.assert_array_equal(plain.observations, mapped.observations)
    assert mapped.obs_dim == 3 and mapped.timeouts.sum() == 3


def test_images_are_not_in_the_suggested_map(tmp_path: Path) -> None:
    path, draw = tmp_path / "demos.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for i in range(3):
            file[f"demo_{i}/obs/arm"], file[f"demo_{i}/obs/view"] = draw.normal(size=(5, 2)), np.zeros((5, 8, 8, 3))
            file[f"demo_{i}/actions"], file[f"demo_{i}/rewards"] = draw.uniform(-1, 1, (5, 2)), draw.normal(size=5)
    about = explain([path])
    assert about.column_map == "obs=obs/arm,action=actions,reward=rewards"
    assert load_local([path], None, ["0"], Reading(about.column_map))[0].obs_dim == 2


@pytest.mark.parametrize("form", ["obs_{}", "obs_{:02}"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbered_columns_are_read_in_order_and_as_the_map_says(tmp_path: Path, form: str, first: int) -> None:
    path, states = tmp_path / "my.csv", np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
    names = [form.format(first + i) for i in range(12)]
    order = sorted(range(12), key=names.__getitem__)
    lines = [",".join([*(repr(float(row[i])) for i in order), f"0.{k}", "1"]) for k, row in enumerate(states)]
    path.write_text("\n".join([",".join([*(names[i] for i in order), "action_0", "reward"]), *lines, ""]))
    about = explain([path])
    assert about.column_map == f"obs={'+'.join(names)},action=action_0,reward=reward"
    np.testing.assert_array_equal(
        load_local([path], None, ["0"], Reading(about.column_map))[0].observations, states[:4]
    )
    if first:  # perhaps obs_0 was lost
        with pytest.raises(InputError, match="column obs_0 is missing"):
            load_local([path], None, ["0"])
    else:
        np.testing.assert_array_equal(load_local([path], None, ["0"])[0].observations, states[:4])


@pytest.mark.parametrize("command", ["--check", "--run r"])
def test_every_refusal_of_a_file_ends_with_the_command_that_explains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Mopo, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plant.csv").write_text("temp,valve\n1.5,2\n2.5,3\n")
    outcome = mopo(f"fetch-data --dataset ./plant.csv {command}")
    assert outcome.code == 4
    assert outcome.err.rstrip().endswith("Try: mopo fetch-data --dataset ./plant.csv --explain")


def test_a_name_is_quoted_for_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mopo: Mopo) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plant.csv").write_text("temp,valve\n1.5,2\n2.5,3\n")
    for command in ("--check", "--run r"):
        outcome = mopo(f"fetch-data --dataset ./p*.csv {command}")
        assert outcome.err.rstrip().endswith("Try: mopo fetch-data --dataset './p*.csv' --explain")
    assert "mopo fetch-data --dataset './p*.csv' --columns" in mopo("fetch-data --dataset ./p*.csv --explain").out


def test_columns_are_read_together_as_fetch_data_does(tmp_path: Path) -> None:
    """That one column has decimal commas says what a comma means in another."""
    path = tmp_path / "log.csv"
    path.write_text("name;temp;load\nA;20,5;61,000\nB;21,5;60\n")
    by_name = {column.name: column for column in explain([path]).columns}
    assert (by_name["load"].least, by_name["load"].greatest) == (60, 61)
    assert by_name["name"].first == "'A', 'B'"
