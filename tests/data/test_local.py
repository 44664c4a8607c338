"""Files in D4RL's layout, with the liberties they take."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mopo_cli.data.files.local import load_local
from mopo_cli.data.generate import generate_random
from mopo_cli.data.transitions import COLUMNS, Transitions
from mopo_cli.data.validate import validate
from mopo_cli.errors import CorruptError, InputError

N = 300


@pytest.fixture(scope="module")
def logged() -> Transitions:
    """Hopper, because it falls: several terminals, and a record that ends inside an episode."""
    transitions, _ = generate_random("Hopper-v5", N, seed=1)
    assert transitions.terminals.sum() > 3 and transitions.timeouts[-1]
    return transitions


def columns(logged: Transitions, **changes: Any) -> dict[str, Any]:
    arrays = {name: getattr(logged, name) for name in COLUMNS}
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


def save(path: Path, data: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        for name, value in data.items():
            file[name] = value
    return path


def load(path: Path, env_id: str | None = "Hopper-v5") -> tuple[Transitions, Any]:
    transitions, info = load_local([path], env_id, ["0" * 64])
    validate(transitions, info)
    return transitions, info


def same(a: Transitions, b: Transitions) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in COLUMNS)


def test_a_whole_file_comes_back_unchanged(tmp_path: Path, logged: Transitions) -> None:
    transitions, info = load(save(tmp_path / "my.h5", columns(logged)))
    assert same(transitions, logged)
    assert (info.dataset_id, info.env_id, info.termination) == ("my.h5", "Hopper-v5", "hopper")
    assert info.source == f"file my.h5 sha256 {'0' * 64}"
    assert (info.action_low.tolist(), info.action_high.tolist()) == ([-1] * 3, [1] * 3)
    assert (info.reference_min, info.reference_max, info.seed) == (None, None, None)


@pytest.mark.parametrize("flag", [np.uint8, np.int64, np.float32, np.bool_])
def test_wide_rewards_doubles_and_number_flags(tmp_path: Path, logged: Transitions, flag: type) -> None:
    data = columns(
        logged,
        observations=logged.observations.astype(np.float64),
        next_observations=logged.next_observations.astype(np.float64),
        actions=logged.actions.astype(np.float64),
        rewards=logged.rewards.astype(np.float64)[:, None],
        terminals=logged.terminals.astype(flag)[:, None],
        timeouts=logged.timeouts.astype(flag),
    )
    transitions, _ = load(save(tmp_path / "my.h5", data))
    assert same(transitions, logged)
    assert {getattr(transitions, name).dtype.str for name in ("observations", "actions", "rewards")} == {"<f4"}


def test_further_columns_and_compression_do_no_harm(tmp_path: Path, logged: Transitions) -> None:
    path = save(tmp_path / "my.h5", columns(logged, rewards=None, **{"infos/qpos": np.zeros((N, 6))}))
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=logged.rewards, compression="gzip", shuffle=True)
        file["metadata/algorithm"] = "SAC"
    assert same(load(path)[0], logged)


def test_without_timeouts_none_are_assumed_and_said(tmp_path: Path, logged: Transitions) -> None:
    transitions, info = load(save(tmp_path / "my.h5", columns(logged, timeouts=None)))
    assert not transitions.timeouts.any()
    assert "no timeouts column: none assumed" in info.source


def test_without_next_observations_no_state_crosses_an_episode(tmp_path: Path, logged: Transitions) -> None:
    transitions, info = load(save(tmp_path / "my.h5", columns(logged, next_observations=None)))
    kept = np.flatnonzero(~logged.timeouts)
    alive = ~logged.terminals[kept]
    assert np.array_equal(transitions.observations, logged.observations[kept])
    assert np.array_equal(transitions.next_observations[alive], logged.next_observations[kept][alive])
    assert np.array_equal(transitions.next_observations[~alive], logged.observations[kept][~alive])
    assert np.array_equal(transitions.actions, logged.actions[kept])
    assert np.array_equal(transitions.rewards, logged.rewards[kept])
    assert np.array_equal(transitions.terminals, logged.terminals[kept])
    assert np.array_equal(transitions.timeouts, alive & np.isin(kept + 1, np.flatnonzero(logged.timeouts)))
    assert not info.terminal_next_known
    assert f"{logged.timeouts.sum()} rows that end the record dropped" in info.source
    assert f"the states after its {logged.terminals.sum()} terminals are unknown" in info.source


def test_an_unmarked_time_limit_is_found_by_validation(tmp_path: Path, logged: Transitions) -> None:
    terminals = logged.terminals.copy()
    terminals[np.flatnonzero(terminals)[:2]] = False
    with pytest.raises(InputError, match=r"my\.h5: column next_observations differs .* in 2 of"):
        load(save(tmp_path / "my.h5", columns(logged, terminals=terminals)))


def test_d4rl_reference_scores_go_with_v4(tmp_path: Path, logged: Transitions) -> None:
    info = load(save(tmp_path / "my.h5", columns(logged)), "Hopper-v4")[1]
    assert (info.reference_min, info.reference_max) == (-20.272305, 3234.3)


def test_without_an_environment_the_bounds_come_from_the_data(tmp_path: Path, logged: Transitions) -> None:
    actions = logged.actions * np.array([1, 3, 50], np.float32)
    actions[:, 2] = np.abs(actions[:, 2])  # a valve, from shut to open
    _, info = load(save(tmp_path / "my.h5", columns(logged, actions=actions)), None)
    least, greatest = actions[:, 1:].min(axis=0), actions[:, 1:].max(axis=0)
    margin = 0.05 * (greatest - least)
    assert info.action_high == pytest.approx([1, *(greatest + margin)])
    assert info.action_low == pytest.approx([-1, least[0] - margin[0], 0])
    assert (info.env_id, info.termination) == (None, "none")
    assert "action bounds taken from the data: actions[0] from -1 to 1, the data come near both" in info.source
    assert "a margin of up to 5 % of the range on both sides" in info.source


@pytest.mark.parametrize("column", ["observations", "actions", "rewards", "terminals"])
def test_a_missing_column_is_named(tmp_path: Path, logged: Transitions, column: str) -> None:
    with pytest.raises(InputError, match=rf"my\.h5: column {column} is missing"):
        load(save(tmp_path / "my.h5", columns(logged, **{column: None})))


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("observations", np.zeros(N), "not .rows, width."),
        ("observations", np.zeros((N, 11, 2)), "not .rows, width."),
        ("observations", np.zeros((N, 12)), "12 dimensions, but Hopper-v5 has 11"),
        ("observations", np.float32(1), "not .rows, width."),
        ("actions", np.zeros((N, 2)), "2 dimensions, but Hopper-v5 has 3"),
        ("actions", np.zeros((N - 1, 3)), "has 299 rows, but observations has 300"),
        ("rewards", np.zeros((N, 2)), "not .rows. or"),
        ("rewards", np.zeros(N + 1), "has 301 rows"),
        ("rewards", np.full(N, 1e300), "holds NaN or infinity in row 0"),
        ("rewards", np.full(N, b"x"), "does not hold numbers"),
        ("rewards", np.full(N, 1j), "does not hold numbers"),
        ("terminals", np.full(N, 2), "holds 2 in row 0"),
        ("terminals", np.full(N, np.nan), "holds nan in row 0"),
        ("timeouts", np.arange(N), "holds 2 in row 2"),
        ("next_observations", np.zeros((N, 3)), "has shape"),
        ("next_observations", np.zeros((N - 5, 11)), "has 295 rows"),
        ("actions", np.full((N, 3), 2.0), "is outside the bounds of Hopper-v5 in 300 of 300 rows"),
    ],
)
def test_misshapen_columns_are_named(tmp_path: Path, logged: Transitions, column: str, value: Any, says: str) -> None:
    with pytest.raises(InputError, match=f"column {column}.*{says}"):
        load(save(tmp_path / "my.h5", columns(logged, **{column: value})))


@pytest.mark.parametrize(
    ("rows", "missing"), [(0, None), (1, None), (0, "next_observations"), (2, "next_observations")]
)
def test_too_few_rows_are_refused(tmp_path: Path, logged: Transitions, rows: int, missing: str | None) -> None:
    data = {name: value[:rows] for name, value in columns(logged).items() if name != missing}
    with pytest.raises(InputError, match="at least 2 are needed" if rows else "my.h5 has no rows"):
        load(save(tmp_path / "my.h5", data))


@pytest.mark.parametrize(
    ("env_id", "says"), [("Hoper-v5", "Hoper"), ("no_such_module:Hopper-v5", "cannot be imported")]
)
def test_an_unknown_environment(tmp_path: Path, logged: Transitions, env_id: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load(save(tmp_path / "my.h5", columns(logged)), env_id)


def test_files_that_are_none(tmp_path: Path) -> None:
    text = tmp_path / "text.h5"
    text.write_text("observations")
    with pytest.raises(CorruptError, match=r"text\.h5"):
        load(text)
    for path in (tmp_path / "absent.h5", tmp_path):
        with pytest.raises(InputError, match=r"does not exist|it is a folder"):
            load(path)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(InputError, match="the file holds nothing"):
        load(tmp_path / "empty.h5")


def test_ends_of_d3rlpy_are_timeouts_where_no_terminal_is(tmp_path: Path, logged: Transitions) -> None:
    ends = logged.terminals | logged.timeouts
    ends[100] |= True  # by time
    data = columns(logged, timeouts=None, next_observations=None, episode_terminals=ends.astype(np.float32)[:, None])
    transitions, info = load(save(tmp_path / "v1.h5", data))
    by_time = ends & ~logged.terminals
    kept = ~by_time
    assert np.array_equal(transitions.observations, logged.observations[kept])
    assert np.array_equal(transitions.terminals, logged.terminals[kept])
    assert np.flatnonzero(transitions.timeouts).tolist() == [99, len(transitions) - 1]
    assert "timeouts = episode_terminals where no terminal is" in info.source
    assert info.doubts == ()
    whole, _ = load(save(tmp_path / "next.h5", columns(logged, timeouts=None, episode_terminals=ends)))
    assert np.array_equal(whole.timeouts, by_time)


def test_terminals_alone_are_warned_of_where_next_states_are_guessed(tmp_path: Path, logged: Transitions) -> None:
    bare = {"timeouts": None, "next_observations": None}
    (doubt,) = load(save(tmp_path / "my.h5", columns(logged, **bare)))[1].doubts
    assert doubt.warning.startswith(f"my.h5 marks terminals ({logged.terminals.sum()}), but has neither timeouts nor")
    assert load(save(tmp_path / "known.h5", columns(logged, timeouts=None)))[1].doubts == ()


@pytest.mark.parametrize(
    ("column", "bounds"),
    [
        (np.linspace(-0.2, 0.2, 300), (-0.22, 0.22)),
        (np.linspace(-0.9, 1, 300), (-1, 1)),
        (np.linspace(-0.8, 1, 300), (-0.89, 1.09)),
        (np.linspace(-3, 1, 300), (-3.2, 1.2)),
        (np.linspace(1, 101, 300), (0, 106)),
        (np.linspace(-3, -1, 300), (-3.1, -0.9)),
        (np.clip(np.linspace(-0.3, 0.4, 300), -0.2, 0.2), (-0.2, 0.2)),
        (np.clip(np.linspace(0, 60, 300), 0, 50), (0, 50)),
        (np.array([2] * 299 + [4]), (2, 4.1)),
    ],
)
def test_bounds_are_those_of_the_data_with_a_margin(
    tmp_path: Path, logged: Transitions, column: Any, bounds: tuple[float, float]
) -> None:
    actions = np.random.default_rng(0).permutation(column)[:, None].astype(np.float32)
    _, info = load(save(tmp_path / "my.h5", columns(logged, actions=actions)), None)
    assert (float(info.action_low[0]), float(info.action_high[0])) == pytest.approx(bounds)
    assert f"actions from {info.action_low[0]:g} to {info.action_high[0]:g}, " in info.source


def test_an_action_that_stays_the_same_is_warned_of_where_its_bounds_are_given(
    tmp_path: Path, logged: Transitions
) -> None:
    actions = logged.actions.copy()
    actions[:, 1] = 0.5
    (doubt,) = load(save(tmp_path / "my.h5", columns(logged, actions=actions)))[1].doubts
    assert "column actions[1] is 0.5 in every row" in doubt.warning
    with pytest.raises(InputError, match=r"column actions\[1\] is 0.5 in every row, so its effect is unknown"):
        load(save(tmp_path / "my.h5", columns(logged, actions=actions)), None)


def test_a_value_that_swamps_its_column_is_refused_by_the_row_of_the_file(tmp_path: Path, logged: Transitions) -> None:
    observations = logged.observations.copy()
    observations[200, 4] = 1e30
    bare = {"next_observations": None, "observations": observations}
    with pytest.raises(InputError, match=r"column observations\[4\] \(observations\) holds 1e\+30 in row 200"):
        load(save(tmp_path / "my.h5", columns(logged, **bare)))
