"""fetch-data --check: every fault at once, the rule beside the stored terminals, and nothing written."""

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

PENDULUM = "generate:InvertedPendulum-v5:random"
MAP = "obs=x+y,action=a,reward=r,episode=e,terminal=t"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


@pytest.fixture
def check(mopo: Any, disk: Any) -> Any:
    """Runs --check: the exit code, the JSON object and stderr, after making sure that nothing was written."""

    def run(line: str) -> tuple[int, dict[str, Any], str]:
        before = disk()
        outcome = mopo(f"fetch-data --check --json {line}")
        assert disk() == before
        return outcome.code, json.loads(outcome.out) if outcome.out else {}, outcome.err

    return run


def write(**changes: Any) -> None:
    """Thirty steps in three episodes, the second of which ends in a failure at x = 9."""
    rows = np.arange(30)
    columns = {
        "x": rows % 10,
        "y": rows * 0.5,
        "a": np.sin(rows),
        "r": np.ones(30),
        "e": rows // 10,
        "t": (rows == 19).astype(int),
        "nx": rows % 10 + 1,
        "ny": rows * 0.5 + 0.5,
    }
    with open("my.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*({**columns, **changes}[name] for name in columns), strict=True))


def faults(result: dict[str, Any], kind: str = "fault") -> list[tuple[str, int | None]]:
    return [(check["column"], check["first_bad_row"]) for check in result["checks"] if check[kind]]


def test_good_data_are_usable(check: Any, mopo: Any) -> None:
    write()
    code, result, text = check(f"--dataset my.csv --columns {MAP}")
    assert code == 0 and result["usable"] and faults(result) == []
    assert "no termination rule" in text and "Error" not in text
    assert (result["summary"]["transitions"], result["summary"]["episodes"]) == (28, 3)
    assert {check["column"] for check in result["checks"]} >= {
        "observations",
        "actions",
        "rewards",
        "next_observations",
    }
    shown = mopo(f"fetch-data --check --dataset my.csv --columns {MAP}")
    assert shown.code == 0 and "my.csv is usable" in shown.out
    assert "first bad row" in shown.err and "transitions" in shown.err


def test_all_faults_of_the_columns_are_told_at_once(check: Any) -> None:
    write(y=["oops" if i == 4 else 1 for i in range(30)], r=["" if i == 7 else 1 for i in range(30)])
    code, result, text = check(f"--dataset my.csv --columns {MAP.replace('action=a', 'action=b')}")
    assert code == 4 and not result["usable"] and result["summary"] is None
    assert faults(result) == [("b (actions)", None), ("y", 4), ("r", 7)]
    assert text.startswith("Error: my.csv is not usable: my.csv: column b is missing")
    assert len([line for line in text.splitlines() if line.startswith("Error")]) == 1


def test_flags_and_values_are_told_together(check: Any) -> None:
    write(t=[7 if i == 2 else 0 for i in range(30)], x=["nan" if i == 3 else i for i in range(30)])
    code, result, _ = check(f"--dataset my.csv --columns {MAP}")
    assert code == 4 and faults(result) == [("x (observations)", 3), ("t (terminals)", 2)]


def test_faults_between_columns_are_told_together(check: Any) -> None:
    write(nx=[99 if i in (3, 5) else i % 10 + 1 for i in range(30)])
    Path("map.yaml").write_text(
        "obs: [x, y]\nnext_obs: [nx, ny]\naction: a\nreward: r\nepisode: e\naction_low: [-0.5]\naction_high: [0.99]\n"
    )
    code, result, _ = check("--dataset my.csv --columns map.yaml")
    assert code == 4 and faults(result) == [("actions", 4), ("next_observations", 3)]
    assert result["summary"]["transitions"] == 30


@pytest.mark.parametrize(
    ("rule", "reproduced", "false_alarms", "first"),
    [
        ("obs[0]>9.5", 1.0, 2, 9),  # x reaches 10 at the end of every episode
        ("obs[0]>9.5 and 9 < obs[1] < 11", 1.0, 0, None),
        ("obs[0]>100", 0.0, 0, None),
        ("none", 0.0, 0, None),
    ],
)
def test_the_rule_is_held_against_the_stored_terminals(
    check: Any, rule: str, reproduced: float, false_alarms: int, first: int | None
) -> None:
    write()
    Path("map.yaml").write_text("obs: [x, y]\nnext_obs: [nx, ny]\naction: a\nreward: r\nepisode: e\nterminal: t\n")
    Path("mine.yaml").write_text(f"fetch-data: {{termination: '{rule}'}}\n")
    code, result, _ = check("--dataset my.csv --columns map.yaml --config mine.yaml")
    assert code == 0
    assert result["termination"] == {
        "rule": rule,
        "terminals": 1,
        "reproduced": reproduced,
        "false_alarms": false_alarms,
        "first_false_alarm": first,
    }


def test_states_after_terminals_that_are_not_logged_tell_nothing_of_the_rule(check: Any) -> None:
    write()
    _, result, _ = check(f"--dataset my.csv --columns {MAP} --termination obs[0]>8.5")
    assert result["termination"]["reproduced"] is None
    assert result["termination"]["false_alarms"] == 3  # the rows that lead to x = 9


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("--dataset gone.csv", 4, "gone.csv does not exist"),
        ("--dataset my.csv --columns obz=x", 2, "'obz'"),
        ("--dataset my.csv --columns gone.yaml", 4, "gone.yaml"),
        ("--dataset my.csv --termination obs[0]+>2", 4, "'>2' (character 8)"),
        ("--dataset my.csv --force", 2, "--force"),
        ("--dataset my.csv --list", 2, "Use only one of --check, --explain and --list."),
        ("--dataset cut.h5", 5, "cut.h5"),
        (f"--dataset {PENDULUM}", 4, "must be generated first"),
        ("--dataset walker2d-medium", 4, "must be downloaded first"),
        ("--dataset minari:own/nothing-v0", 4, "must be downloaded first"),
    ],
)
def test_a_request_that_is_wrong_in_itself(check: Any, line: str, code: int, said: str) -> None:
    write()
    Path("cut.h5").write_bytes(b"\x89HDF")
    actual, result, text = check(line)
    assert (actual, result) == (code, {}) and said in text


def test_a_rule_beyond_the_observations_is_a_fault(check: Any) -> None:
    write()
    code, result, _ = check(f"--dataset my.csv --columns {MAP} --termination obs[2]>1")
    assert code == 4 and "obs[0] to obs[1]" in result["checks"][-1]["fault"]


def test_a_set_in_the_cache_is_at_hand(check: Any, mopo: Any) -> None:
    request = f"--dataset {PENDULUM} --transitions 50"
    assert mopo(f"fetch-data {request} --run one").code == 0
    code, result, _ = check(request)
    assert code == 0 and result["usable"]
    assert result["termination"]["reproduced"] == 1.0 and result["termination"]["false_alarms"] == 0
    assert check(f"--dataset {PENDULUM} --transitions 51")[0] == 4


def test_columns_that_do_not_fit_together_are_not_looked_at_further(check: Any) -> None:
    write()
    Path("map.yaml").write_text("obs: [x, y]\nnext_obs: nx\naction: a\nreward: r\nepisode: e\nterminal: t\n")
    code, result, _ = check("--dataset my.csv --columns map.yaml --termination obs[1]>3")
    assert code == 4 and faults(result) == [("next_observations", None)]
    assert result["summary"] is None and result["termination"] is None


def test_a_file_in_d4rls_layout_is_checked(check: Any) -> None:
    states = np.arange(20, dtype=np.float32).reshape(10, 2)
    with h5py.File("my.h5", "w") as file:
        file["observations"], file["next_observations"] = states, states + 2
        file["actions"], file["rewards"] = np.linspace(-1, 1, 10)[:, None], np.full(10, np.nan)
        file["terminals"], file["timeouts"] = np.zeros(10), np.full(9, False)
    code, result, _ = check("--dataset my.h5")
    assert code == 4 and faults(result) == [("rewards", 0), ("timeouts", None)]


def test_warnings_are_told_and_leave_the_data_usable(check: Any, mopo: Any) -> None:
    write(r=[7 if i in (9, 29) else -7 if i == 19 else 0 for i in range(30)])
    code, result, text = check(f"--dataset my.csv --columns {MAP}")
    assert code == 0 and result["usable"] and faults(result) == []
    assert faults(result, "warning") == [("rewards", 9)]
    (said,) = (row["warning"] for row in result["checks"] if row["warning"])
    assert "2 rows at the end of episodes" in said and f"Warning: {said}" in text
    assert result["summary"]["transitions"] == 30 and result["summary"]["return_mean"] == pytest.approx(7 / 3)

    shown = mopo(f"fetch-data --check --dataset my.csv --columns {MAP}")
    assert f"Warning: {said}" in shown.err and "warning, see above" in shown.err
    for run in ("one", "two"):  # made, and taken from the cache
        fetched = mopo(f"fetch-data --dataset my.csv --columns {MAP} --run {run} --json")
        assert fetched.code == 0 and f"Warning: {said}" in fetched.err


def test_a_constant_reward_is_told_of_any_set(check: Any) -> None:
    write()
    _, result, text = check(f"--dataset my.csv --columns {MAP}")
    assert ("rewards", 0) in faults(result, "warning") and "column rewards is 1 in every row" in text


def test_next_states_of_the_next_episode_are_refused(check: Any) -> None:
    write(nx=[(i + 1) % 10 for i in range(30)])  # back to x = 0 in the same step
    Path("map.yaml").write_text("obs: [x, y]\nnext_obs: [nx, ny]\naction: a\nreward: r\nepisode: e\nterminal: t\n")
    code, result, _ = check("--dataset my.csv --columns map.yaml")
    assert code == 4 and faults(result) == [("next_observations", 19)]
