"""Sets that the minari library wrote, against the same steps logged beside it."""

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from hypothesis import given, settings
from hypothesis import strategies as st
from probes.minari_sets import Step, buffers, change_metadata, change_spec, log, walk, write

from mopo_cli.data.minari.load import fingerprint, load_minari
from mopo_cli.data.minari.sets import local_sets
from mopo_cli.data.transitions import COLUMNS, Transitions, episode_returns
from mopo_cli.data.validate import validate
from mopo_cli.errors import CorruptError, InputError, MopoError, UsageError
from mopo_cli.evaluation.play import open_environments

HOPPER = {"env": "Hopper-v5", "observation_space": Box(-9, 9, (2,)), "action_space": Box(-1, 1, (1,))}


def columns_of(logged: list[list[Step]]) -> dict[str, np.ndarray[Any, Any]]:
    """What the transitions must be, from the logged steps alone."""
    steps = [step for episode in logged for step in episode]
    last = [k == len(episode) - 1 for episode in logged for k in range(len(episode))]
    return {
        "observations": np.array([step[0] for step in steps], np.float32),
        "actions": np.array([step[1] for step in steps], np.float32),
        "rewards": np.array([step[2] for step in steps], np.float32),
        "next_observations": np.array([step[3] for step in steps], np.float32),
        "terminals": np.array([step[4] for step in steps]),
        "timeouts": np.array([(step[5] or end) and not step[4] for step, end in zip(steps, last, strict=True)]),
    }


def assert_equal(transitions: Transitions, logged: list[list[Step]]) -> None:
    wanted = columns_of(logged)
    for name in COLUMNS:
        assert np.array_equal(getattr(transitions, name), wanted[name]), name
        assert getattr(transitions, name).dtype == (np.float32 if wanted[name].dtype.kind == "f" else np.bool_)


@pytest.mark.parametrize(("env_id", "limit", "episodes"), [("Pendulum-v1", 7, 4), ("InvertedPendulum-v5", 6, 30)])
@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_transitions_are_the_steps_that_were_logged(env_id: str, limit: int, episodes: int, data_format: str) -> None:
    environment = gym.make(env_id, max_episode_steps=limit)
    logged = log(environment, episodes)
    write("pend/random-v0", buffers(logged), env=environment, data_format=data_format)
    transitions, info = load_minari("pend/random-v0")
    assert_equal(transitions, logged)
    validate(transitions, info)
    assert transitions.timeouts.sum() + transitions.terminals.sum() == episodes
    assert (env_id == "Pendulum-v1") or 0 < transitions.terminals.sum() < episodes
    assert episode_returns(transitions) == pytest.approx([sum(step[2] for step in steps) for steps in logged], rel=1e-5)
    assert (info.dataset_id, info.env_id, info.seed) == ("minari:pend/random-v0", env_id, None)
    box: Any = environment.action_space
    assert info.action_low.tolist() == box.low.tolist()
    assert info.action_high.tolist() == box.high.tolist()
    assert info.termination == {"Pendulum-v1": "none", "InvertedPendulum-v5": "inverted-pendulum"}[env_id]
    assert info.env_id is not None
    with open_environments(info.env_id, 1, info.env_kwargs) as (rebuilt,):
        assert rebuilt.spec.max_episode_steps == limit


def test_ends_as_they_are_marked() -> None:
    logged = walk(4)
    *before, (o, a, r, following, _, _) = logged[0]
    logged[0] = [*before, (o, a, r, following, True, True)]  # both marks: the task ended
    *before, (o, a, r, following, _, _) = logged[1]
    logged[1] = [*before, (o, a, r, following, False, False)]  # no mark: the record did
    o, a, r, following, _, _ = logged[2][2]
    logged[2][2] = (o, a, r, following, False, True)  # marked before its end
    write("toy-v0", buffers(logged))
    transitions, _ = load_minari("toy-v0")
    assert_equal(transitions, logged)
    assert np.flatnonzero(transitions.terminals).tolist() == [4]
    assert np.flatnonzero(transitions.timeouts).tolist() == [9, 12, 14, 19]


def test_more_steps_than_are_told_of_at_once() -> None:
    logged = walk(3, 9000)
    write("toy-v0", buffers(logged))
    progress: list[int] = []
    transitions, _ = load_minari("toy-v0", progress.append)
    assert_equal(transitions, logged)
    assert progress == [18000, 9000]

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_minari("toy-v0", stop)


def test_the_fingerprint_is_of_the_data_and_not_of_the_file() -> None:
    other = walk(seed=1)
    for name, logged, data_format in (("a", walk(), "hdf5"), ("b", walk(), "parquet"), ("c", other, "hdf5")):
        write(f"toy/{name}-v0", buffers(logged), data_format=data_format)
    first, second, third = (load_minari(f"toy/{name}-v0") for name in "abc")
    digest = hashlib.sha256()
    for name, column in columns_of(walk()).items():
        digest.update(f"{name} {column.shape}\n".encode() + column.tobytes())
    assert digest.hexdigest() == fingerprint(first[0]) == fingerprint(second[0]) != fingerprint(third[0])
    assert digest.hexdigest() in first[1].source


def test_the_source_names_the_makers_on_one_line() -> None:
    data = write("toy-v0", buffers(walk()), author="A. Nother", code_permalink="https://example.org/code")
    source = load_minari("toy-v0")[1].source
    assert "A. Nother" in source and "https://example.org/code" in source and f"minari {minari.__version__}" in source
    assert "names no environment" in source
    change_metadata(data, lambda m: m.update(author=["\x1b[31mred\nline" + "x" * 900]))
    source = load_minari("toy-v0")[1].source
    assert source.isprintable() and "[31mred line" in source and len(source) < 600


@pytest.mark.parametrize(
    ("scores", "reference"),
    [
        ({"ref_min_score": -3.5, "ref_max_score": 100}, (-3.5, 100)),
        ({"ref_min_score": None, "ref_max_score": 100.0}, (None, None)),
        ({"ref_min_score": 7.0, "ref_max_score": 7.0}, (None, None)),
        ({"ref_min_score": float("nan"), "ref_max_score": 7.0}, (None, None)),
        ({"ref_min_score": 0, "ref_max_score": 10**400}, (None, None)),
        ({"ref_min_score": False, "ref_max_score": True}, (None, None)),
        ({}, (None, None)),
    ],
)
def test_reference_scores_are_the_sets_own(
    scores: dict[str, Any], reference: tuple[float | None, float | None]
) -> None:
    data = write("toy-v0", buffers(walk()))
    change_metadata(data, lambda m: m.update(scores))
    info = load_minari("toy-v0")[1]
    assert (info.reference_min, info.reference_max) == reference


def test_no_reference_is_borrowed_from_d4rl() -> None:
    environment = gym.make("Hopper-v4", max_episode_steps=20)
    write("hop-v0", buffers(log(environment, 2)), env=environment)
    info = load_minari("hop-v0")[1]
    assert (info.env_id, info.reference_min, info.termination) == ("Hopper-v4", None, "hopper")


def test_the_environment_is_made_as_the_set_says() -> None:
    made = gym.make("Ant-v5", max_episode_steps=9, include_cfrc_ext_in_observation=False, render_mode="rgb_array")
    write("ant-v0", buffers(log(made, 1)), env=made)
    info = load_minari("ant-v0")[1]
    assert info.env_kwargs == {"include_cfrc_ext_in_observation": False, "max_episode_steps": 9}
    assert info.termination == "ant"
    assert info.env_id is not None
    with open_environments(info.env_id, 1, info.env_kwargs) as (rebuilt,):
        assert rebuilt.observation_space.shape == (27,)
        assert rebuilt.spec.max_episode_steps == 9


def test_arguments_that_move_the_bounds_of_termination_leave_the_rule_out() -> None:
    made = gym.make("Hopper-v5", max_episode_steps=9, healthy_z_range=(0.5, 2.0), healthy_reward=2.0)
    write("hop-v0", buffers(log(made, 1)), env=made)
    info = load_minari("hop-v0")[1]
    assert info.env_kwargs == {"healthy_z_range": [0.5, 2.0], "healthy_reward": 2.0, "max_episode_steps": 9}
    assert info.termination == "none" and "healthy_z_range" in info.source and "--termination" in info.source


def test_the_environment_for_evaluation_is_another_than_the_one_logged_in() -> None:
    logged = gym.make("Hopper-v5", max_episode_steps=9)
    evaluated = gym.make("Hopper-v4", max_episode_steps=11)
    write("hop-v0", buffers(log(logged, 1)), env=logged, eval_env=evaluated)
    info = load_minari("hop-v0")[1]
    assert (info.env_id, info.env_kwargs, info.termination) == ("Hopper-v4", {"max_episode_steps": 11}, "hopper")
    assert "environment Hopper-v4, logged in Hopper-v5" in info.source


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        *(
            ({"id": name, "kwargs": {"env_id": "evil_module:Evil-v0"}}, f"{name} is not registered")
            for name in ("NoSuchTask-v3", "evil_module:Evil-v0", "GymV26Environment-v0")
        ),
        ({"kwargs": {"no_such_argument": 1}}, "cannot be made here"),
        ({"kwargs": {"xml_file": "./gone.xml"}}, "cannot be made here"),
        ({"kwargs": {"disable_env_checker": True}}, "cannot be made here"),
    ],
)
def test_an_environment_that_cannot_be_made_means_no_evaluation(fields: dict[str, Any], says: str) -> None:
    change_spec(write("toy-v0", buffers(walk()), **HOPPER), **fields)
    transitions, info = load_minari("toy-v0")
    assert (info.env_id, info.env_kwargs) == (None, {}) and len(transitions) == 15
    assert says in info.source and "no evaluation" in info.source and "\n" not in info.source


def test_arguments_that_json_cannot_keep_are_refused() -> None:
    data = write("toy-v0", buffers(walk()), **HOPPER)
    change_spec(data, kwargs={"ctrl_cost_weight": float("nan")})
    with pytest.raises(InputError, match="are not JSON"):
        load_minari("toy-v0")


def test_the_environment_of_a_set_that_names_none_can_be_named() -> None:
    environment = gym.make("InvertedPendulum-v5", max_episode_steps=6)
    spaces = {"observation_space": Box(-9, 9, (4,), np.float64), "action_space": Box(-2.5, 2.5, (1,))}
    logged = [[(s, a * 0.5, *rest) for s, a, *rest in steps] for steps in log(environment, 4)]
    write("pend-v0", buffers(logged), **spaces)  # type: ignore[arg-type]
    assert load_minari("pend-v0")[1].env_id is None
    transitions, info = load_minari("pend-v0", env_id="InvertedPendulum-v5")
    assert (info.env_id, info.env_kwargs, info.termination) == ("InvertedPendulum-v5", {}, "inverted-pendulum")
    assert (info.action_low.tolist(), info.action_high.tolist()) == ([-3.0], [3.0])
    assert "the set names no environment: InvertedPendulum-v5 was named" in info.source
    validate(transitions, info)


def test_an_environment_that_does_not_go_with_the_set_is_refused() -> None:
    write("walk-v0", buffers(walk()))
    with pytest.raises(InputError, match=r"walk-v0 does not match Hopper-v5, which has observations of 11 dimensions"):
        load_minari("walk-v0", env_id="Hopper-v5")
    with pytest.raises(InputError, match="NoSuchTask-v1"):
        load_minari("walk-v0", env_id="NoSuchTask-v1")
    environment = gym.make("InvertedPendulum-v5", max_episode_steps=6)
    write("pend-v0", buffers(log(environment, 2)), env=environment)
    assert load_minari("pend-v0", env_id="InvertedPendulum-v5")[1].env_kwargs == {"max_episode_steps": 6}
    with pytest.raises(UsageError, match="--env Hopper-v5 contradicts the Minari set pend-v0, which names its"):
        load_minari("pend-v0", env_id="Hopper-v5")


def test_data_that_the_environment_does_not_fit_are_refused() -> None:
    write("toy-v0", buffers(walk()), **HOPPER)
    with pytest.raises(
        InputError, match=r"Hopper-v5.* has observations of 11 dimensions \(the data: 2\) and actions of 3"
    ):
        load_minari("toy-v0")


def test_wrappers_are_named_and_not_applied() -> None:
    pendulum, bounds = gym.make("InvertedPendulum-v5", max_episode_steps=5), cast(Any, (-1.0, 1.0))
    wrapped: gym.Env[Any, Any] = gym.wrappers.RescaleAction(pendulum, *bounds)
    write("rescaled-v0", buffers(log(wrapped, 3)), env=wrapped)
    with pytest.raises(
        InputError, match=r"RescaleAction.* actions in \[-3.0\] to \[3.0\] \(the data: \[-1.0\] to \[1.0\]\)"
    ):
        load_minari("rescaled-v0")
    wrapped = gym.wrappers.DelayObservation(gym.make("InvertedPendulum-v5", max_episode_steps=5), delay=1)
    write("delayed-v0", buffers(log(wrapped, 3)), env=wrapped)
    info = load_minari("delayed-v0")[1]
    assert info.env_id == "InvertedPendulum-v5" and "wrappers are not applied: DelayObservation" in info.source
    assert info.termination == "none" and "name a rule with --termination" in info.source
    wrapped = gym.wrappers.RecordEpisodeStatistics(gym.make("InvertedPendulum-v5", max_episode_steps=5))
    write("counted-v0", buffers(log(wrapped, 3)), env=wrapped)
    assert load_minari("counted-v0")[1].termination == "inverted-pendulum"


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path, evil_module, that writes this file when it is imported."""
    sprung = tmp_path / "sprung"
    (tmp_path / "evil_module.py").write_text(f"open({str(sprung)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil_module", raising=False)
    return sprung


def hostile_evaluation(data: Path) -> None:
    change_metadata(data, lambda m: m.update(eval_env_spec=m["env_spec"]))
    change_spec(data, "eval_env_spec", entry_point="evil_module:Evil")


WRAPPER = {"name": "evil", "entry_point": "evil_module:Wrapper", "kwargs": {}}
HOSTILE: dict[str, Callable[[Path], None]] = {
    "wrapper": lambda data: change_spec(data, additional_wrappers=[WRAPPER]),
    "entry point": lambda data: change_spec(data, entry_point="evil_module:Evil"),
    "evaluation": hostile_evaluation,
    "id": lambda data: change_spec(data, id="evil_module:Evil-v0", entry_point=None),
}


@pytest.mark.parametrize("attack", HOSTILE)
@pytest.mark.parametrize("spaces", [True, False])
def test_nothing_in_a_set_is_run(trap: Path, attack: str, spaces: bool) -> None:
    environment = gym.make("InvertedPendulum-v5", max_episode_steps=5)
    logged = log(environment, 2)
    data = write("pend-v0", buffers(logged), env=environment)
    HOSTILE[attack](data)
    if spaces:
        transitions, info = load_minari("pend-v0")
        assert_equal(transitions, logged)
        assert info.env_id == (None if attack == "id" else "InvertedPendulum-v5")
    else:  # the library makes the stored environment to learn its spaces
        change_metadata(data, lambda m: m.pop("observation_space"))
        with pytest.raises(InputError, match="does not state its observation space"):
            load_minari("pend-v0")
    assert not trap.exists()


@pytest.mark.parametrize("attack", ["wrapper", "entry point", "evaluation"])
def test_the_library_itself_would_run_it(trap: Path, attack: str) -> None:
    environment = gym.make("InvertedPendulum-v5", max_episode_steps=5)
    data = write("pend-v0", buffers(log(environment, 2)), env=environment)
    HOSTILE[attack](data)
    with pytest.raises(Exception, match=r"evil|Evil"):
        minari.load_dataset("pend-v0").recover_environment(eval_env=True)
    assert trap.exists()


SPACES = [
    ("action", Discrete(3), "discrete actions"),
    ("action", MultiDiscrete([2, 2]), "discrete actions"),
    ("action", MultiBinary(2), "discrete actions"),
    ("action", Box(-1, 1, (2, 2)), r"actions of shape \(2, 2\)"),
    ("action", Box(-np.inf, np.inf, (1,)), "finite bounds"),
    ("action", Box(0, 9, (1,), np.int32), "int32 actions"),
    ("observation", Discrete(3), "discrete observations"),
    ("observation", Box(0, 255, (64, 64, 3), np.uint8), r"observations of shape \(64, 64, 3\)"),
    ("observation", Box(0, 255, (128,), np.uint8), "uint8 observations"),
    (
        "observation",
        Dict(position=Box(-1, 1, (2,)), lamp=Discrete(2)),
        r"Discrete\(2\) in the observation entry 'lamp'",
    ),
    ("observation", Dict(arm=Dict(note=Text(9))), "Text.* in the observation entry 'arm/note'"),
    ("observation", Dict(eye=Box(0, 255, (9, 9), np.uint8)), "uint8 numbers in the observation entry 'eye'"),
    ("observation", Dict(), "observations without entries"),
    ("observation", Tuple([Box(-1, 1, (2,))]), "observations of the kind Tuple"),
]


@pytest.mark.parametrize(("role", "space", "says"), SPACES)
def test_spaces_that_mopo_does_not_learn_in(role: str, space: gym.Space[Any], says: str) -> None:
    data = write("toy-v0", buffers(walk()))
    change_metadata(data, lambda m: m.update({f"{role}_space": minari.serialization.serialize_space(space)}))
    with pytest.raises(InputError, match=f"toy-v0 has .*{says}") as caught:
        load_minari("toy-v0")
    assert caught.value.exit_code == 4


INFOS = {
    "one per step": (lambda k, n: np.arange(n) + k, True),
    "the reset's first": (lambda k, n: np.concatenate([[np.nan], np.arange(n) + k]), True),
    "not in every episode": (lambda k, n: np.arange(n) + k if k else None, False),
    "not finite": (lambda k, n: np.full(n, np.inf), False),
    "vectors": (lambda k, n: np.zeros((n, 2)), False),
    "too many": (lambda k, n: np.zeros(n + 2), False),
}


@pytest.mark.parametrize("case", INFOS)
def test_velocities_that_the_environment_told(case: str) -> None:
    make, kept = INFOS[case]
    episodes = [make(k, 5) for k in range(3)]
    infos = [{"y": np.zeros(6)} | ({} if info is None else {"x_velocity": info}) for info in episodes]
    write("toy-v0", buffers(walk(), infos))
    transitions, info = load_minari("toy-v0")
    validate(transitions, info)
    assert_equal(transitions, walk())
    assert set(transitions.infos) == ({"x_velocity"} if kept else set())
    if kept:
        assert transitions.infos["x_velocity"].tolist() == [k + i for k in range(3) for i in range(5)]


def test_velocities_in_another_format() -> None:
    infos = [{"y_velocity": [-1.0, *(float(k + i) for i in range(5))]} for k in range(3)]
    write("toy-v0", buffers(walk(), infos), data_format="parquet")
    assert load_minari("toy-v0")[0].infos["y_velocity"].tolist() == [k + i for k in range(3) for i in range(5)]


def edit(change: Callable[[h5py.File], Any]) -> Callable[[Path], None]:
    def damage(data: Path) -> None:
        with h5py.File(data / "main_data.hdf5", "r+") as file:
            change(file)

    return damage


def put(name: str, value: Any) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = value

    return change


def cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda data: (data / name).write_bytes((data / name).read_bytes()[:size])


def tell(**fields: Any) -> Callable[[Path], None]:
    return lambda data: change_metadata(data, lambda m: m.update(fields))


def declare_huge(file: h5py.File) -> None:
    del file["episode_1/rewards"]
    file.create_dataset("episode_1/rewards", shape=(1 << 40,), dtype="f8", chunks=(1024,))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "main file gone": (lambda data: (data / "main_data.hdf5").unlink(), "incomplete: it has no data/main_data.hdf5"),
    "main file empty": (cut("main_data.hdf5", 0), "main_data.hdf5 is not an HDF5 file"),
    "main file cut": (cut("main_data.hdf5", 5000), "main_data.hdf5 is not an HDF5 file"),
    "metadata gone": (lambda data: (data / "metadata.json").unlink(), "incomplete: it has no data/metadata.json"),
    "metadata cut": (cut("metadata.json", 40), "metadata.json is not valid JSON"),
    "metadata a list": (lambda data: (data / "metadata.json").write_text("[]"), "has no valid field total_episodes"),
    "steps not told": (tell(total_steps=None), "has no valid field total_steps"),
    "more steps told": (tell(total_steps=16), "fewer steps than the 16"),
    "fewer steps told": (tell(total_steps=14), "more steps than the 14"),
    "absurd steps told": (tell(total_steps=10**18), "declares 32,000,000"),
    "more episodes told": (tell(total_episodes=4), "episode_3/observations is missing"),
    "fewer episodes told": (tell(total_episodes=2), "fewer steps than the 15"),
    "format not known": (tell(data_format="zarr"), "stored as 'zarr'"),
    "another set's": (tell(dataset_id="else-v0"), "names the set 'else-v0', not"),
    "space no JSON": (tell(observation_space="Box("), "observation_space is not valid"),
    "space no space": (tell(action_space='{"type": "Sphere"}'), "action_space is not valid"),
    "specification no JSON": (tell(env_spec="{"), "not an environment specification"),
    "specification a list": (tell(env_spec="[]"), "not an environment specification"),
    "specification without id": (tell(env_spec="{}"), "not an environment specification"),
    "arguments a list": (tell(env_spec='{"id": "Hopper-v5", "kwargs": [1]}'), "not an environment specification"),
    "episode gone": (edit(lambda file: file.pop("episode_1")), "episode_1/observations is missing"),
    "column gone": (edit(lambda file: file.pop("episode_1/rewards")), "episode_1/rewards is missing"),
    "T observations": (edit(put("episode_1/observations", np.zeros((5, 2)))), "observations of episode 1"),
    "wide observations": (edit(put("episode_1/observations", np.zeros((6, 3)))), "observations of episode 1"),
    "flat actions": (edit(put("episode_1/actions", np.zeros(5))), "actions of episode 1"),
    "short terminations": (edit(put("episode_1/terminations", np.zeros(4, bool))), "terminations of episode 1"),
    "text for rewards": (edit(put("episode_1/rewards", np.array([b"1"] * 5))), "does not hold numbers"),
    "a group for rewards": (
        edit(lambda file: (file.pop("episode_1/rewards"), file.create_group("episode_1/rewards"))),
        "does not hold numbers",
    ),
    "absurd column": (edit(declare_huge), "declares 8,79"),
    "a link out": (edit(put("episode_1/rewards", h5py.ExternalLink("other.h5", "/rewards"))), "or a link"),
    "a link in": (edit(put("episode_1", h5py.SoftLink("/episode_0"))), "or a link"),
}


@pytest.mark.parametrize("fault", DAMAGE)
def test_a_damaged_set_is_refused_with_its_mend_and_left_alone(fault: str, contents: Any) -> None:
    damage, says = DAMAGE[fault]
    data = write("toy/set-v0", buffers(walk()))
    damage(data)
    before = contents(data.parents[2])
    with pytest.raises((InputError, CorruptError)) as caught:
        load_minari("toy/set-v0")
    assert says in caught.value.message and str(data.parent) in f"{caught.value.message}"
    assert str(data.parent) in caught.value.hint or fault in ("format not known", "another set's", "absurd steps told")
    assert contents(data.parents[2]) == before


@pytest.mark.parametrize(
    ("fault", "error"),
    [("main file cut", CorruptError), ("metadata cut", CorruptError), ("another set's", InputError)],
)
def test_damage_and_misfit_are_told_apart(fault: str, error: type[MopoError]) -> None:
    DAMAGE[fault][0](write("toy/set-v0", buffers(walk())))
    with pytest.raises(error) as caught:
        load_minari("toy/set-v0")
    assert caught.value.exit_code == {CorruptError: 5, InputError: 4}[error]


def test_arrow_sets_that_are_damaged(contents: Any) -> None:
    data = write("toy-v0", buffers(walk()), data_format="arrow")
    part = next((data / "1").glob("*.arrow"))
    part.write_bytes(part.read_bytes()[:100])
    before = contents(data)
    with pytest.raises(CorruptError, match="cannot be read") as caught:
        load_minari("toy-v0")
    assert str(data.parent) in caught.value.hint and contents(data) == before
    shutil.rmtree(data / "1")
    with pytest.raises(CorruptError):
        load_minari("toy-v0")


def test_a_set_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="toy-v0 is not under"):
        load_minari("toy-v0")
    assert not (tmp_path / "none").exists()


def test_sets_are_found_where_minari_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a-v0", "toy/walk/b-v1", "toy/walk/b-v2", "toy/c-v0"]
    for name in names:
        write(name, buffers(walk()))
    assert list(local_sets()) == sorted(names, key=lambda name: name.split("/"))
    assert set(local_sets()) == set(minari.list_local_datasets())
    monkeypatch.delenv("MINARI_DATASETS_PATH")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(local_sets()) == [] and not (tmp_path / ".minari").exists()
    (tmp_path / ".minari" / "datasets").mkdir(parents=True)
    (tmp_path / ".minari" / "datasets" / "loop").symlink_to(tmp_path / ".minari" / "datasets")
    write("own-v0", buffers(walk()))
    assert "own-v0" in local_sets()
    assert len(load_minari("own-v0")[0]) == 15


@pytest.fixture(scope="module")
def good_metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINARI_DATASETS_PATH", str(tmp_path_factory.mktemp("fuzz")))
        environment = gym.make("Pendulum-v1", max_episode_steps=5)
        return write("pend-v0", buffers(log(environment, 1)), env=environment)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_metadata_of_any_bytes_are_understood_or_refused(good_metadata: Path, data: st.DataObject) -> None:
    path = good_metadata / "metadata.json"
    good = path.read_bytes()
    place = data.draw(st.integers(0, len(good) - 1))
    middle = data.draw(st.one_of(st.binary(max_size=3), st.sampled_from([b"null", b"-1", b"1e999", b"[", b"{}", b'"'])))
    try:
        path.write_bytes(good[:place] + middle + good[place + data.draw(st.integers(0, 20)) :])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MINARI_DATASETS_PATH", str(good_metadata.parents[1]))
            assert len(load_minari("pend-v0")[0]) == 5
    except (InputError, CorruptError) as error:
        assert error.message and "\n" not in error.message
    finally:
        path.write_bytes(good)
