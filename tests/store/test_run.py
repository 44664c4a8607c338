"""Which run a command works on, and where things lie in it."""

import os
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mopo_cli.errors import InputError, SettingsError
from mopo_cli.store.run import RunFolder, cache_dir, dataset_slug, remember_run, resolve_run


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("dataset", "slug"),
    [
        ("walker2d-medium", "walker2d-medium"),
        ("walker2d-medium-v2", "walker2d-medium-v2"),
        ("generate:InvertedPendulum-v5:random", "generate-InvertedPendulum-v5-random"),
        ("minari:mujoco/walker2d/medium-v0", "minari-mujoco-walker2d-medium-v0"),
        ("./my-logs.h5", "my-logs"),
        ("/data/../other/logs.v2.HDF5", "logs.v2"),
        ("./plant.csv", "plant"),
        ("./logs/", "logs"),
        ("logs/worker_*.csv", "logs"),
        ("./worker_*.csv", "work"),
        ("*.csv", "work"),
        ("./", "work"),
        ("current", "current-data"),
    ],
)
def test_slugs_of_the_documented_names(dataset: str, slug: str) -> None:
    assert dataset_slug(dataset) == slug


@given(st.text(st.sampled_from("ab1.:/\\~ -_\n\0é"), max_size=30) | st.text(max_size=200))
def test_a_slug_is_one_visible_folder_below_runs(dataset: str) -> None:
    try:
        slug = dataset_slug(dataset)
    except InputError:
        return
    assert ".." not in slug and not slug.startswith((".", "-")) and 0 < len(slug) <= 100
    assert os.path.normpath(os.path.join("runs", slug)) == f"runs/{slug}"
    assert slug.isascii() and slug.isprintable() and "\\" not in slug and " " not in slug


@pytest.mark.parametrize("dataset", ["", "..", "../..", ":", "λ"])
def test_a_name_without_letters_or_digits_is_refused(dataset: str) -> None:
    with pytest.raises(InputError):
        dataset_slug(dataset)


def test_precedence(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError) as caught:
        resolve_run(None, None)
    assert "--dataset" in caught.value.hint
    (elsewhere / "runs" / "a").mkdir(parents=True)
    remember_run(RunFolder(Path("runs/a")))
    assert resolve_run(None, None).root.resolve() == elsewhere / "runs" / "a"
    monkeypatch.setenv("MOPO_RUN", "/from/env")
    assert resolve_run(None, None).root == Path("/from/env")
    assert resolve_run(None, "walker2d-medium").root == Path("runs/walker2d-medium")
    assert resolve_run(Path("x/y"), "walker2d-medium").root == Path("x/y")


def test_a_run_outside_runs_is_remembered_by_its_full_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "far").mkdir()
    remember_run(RunFolder(Path("../far")))
    assert resolve_run(None, None).root.resolve() == tmp_path / "far"


def test_a_run_named_by_the_environment_is_not_remembered(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (elsewhere / "runs" / name).mkdir(parents=True)
    remember_run(RunFolder(Path("runs/a")))
    monkeypatch.setenv("MOPO_RUN", "runs/b")
    remember_run(resolve_run(None, None))
    monkeypatch.delenv("MOPO_RUN")
    assert resolve_run(None, None).root == Path("runs/a")


def test_a_variant_is_not_remembered_but_a_run_of_that_name_is(elsewhere: Path) -> None:
    run = RunFolder(Path("runs/a"))
    run.root.mkdir(parents=True)
    run.lineage.write_text("{}")
    remember_run(run)
    remember_run(run.variant("networks-1"))
    assert resolve_run(None, None) == run
    other = RunFolder(Path("runs/variants/b"))
    other.root.mkdir(parents=True)
    remember_run(other)
    assert resolve_run(None, None) == other


@pytest.mark.parametrize("content", [b"gone\n", b"\n", b"\xff"])
def test_a_current_run_that_is_not_there_is_told(elsewhere: Path, content: bytes) -> None:
    (elsewhere / "runs").mkdir()
    (elsewhere / "runs" / "current").write_bytes(content)
    with pytest.raises(InputError):
        resolve_run(None, None)


def test_a_working_directory_that_cannot_remember_is_no_fault(elsewhere: Path) -> None:
    (elsewhere / "runs").write_text("a file where the folder should be")
    remember_run(RunFolder(elsewhere))


def test_what_a_killed_process_left_of_the_current_run_is_cleared(elsewhere: Path) -> None:
    for name in ("runs/.current.0a1b2c3d.mopo-tmp", "runs/a/.current.0a1b2c3d.mopo-tmp", "runs/.other.0a.mopo-tmp"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("runs/hal")
    remember_run(RunFolder(Path("runs/a")))
    assert {path.name for path in Path("runs").iterdir()} == {"a", "current", ".other.0a.mopo-tmp"}
    assert len(list(Path("runs/a").iterdir())) == 1 and resolve_run(None, None).root == Path("runs/a")


def test_layout() -> None:
    run = RunFolder(Path("r"))
    assert [
        path.as_posix()
        for path in (
            run.lineage,
            run.model_dir,
            run.model,
            run.elites,
            run.rollouts("uniform_h5"),
            run.policy("mopo_max-var_lam1_h5", 3),
            run.evaluation("p"),
            run.ablation_dir("t"),
            run.variant("networks-1").model,
            run.state("train-policy/mopo_max-var_lam0.5_h5"),
            run.state("train-model"),
        )
    ] == [
        "r/run.json",
        "r/model",
        "r/model/ensemble.safetensors",
        "r/elites.json",
        "r/rollouts/uniform_h5.h5",
        "r/policies/mopo_max-var_lam1_h5/seed-3/policy.safetensors",
        "r/evaluations/p.json",
        "r/ablations/t",
        "r/variants/networks-1/model/ensemble.safetensors",
        "r/.state/train-policy/mopo_max-var_lam0.5_h5",
        "r/.state/train-model",
    ]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc", ".hidden", "a\n", "a b", "a" * 200])
def test_a_name_that_leaves_the_run_is_refused(name: str) -> None:
    run = RunFolder(Path("r"))
    for place in (run.rollouts, partial(run.policy, seed=0), run.evaluation, run.ablation_dir, run.variant):
        with pytest.raises(SettingsError, match="file name"):
            place(name)


@pytest.mark.parametrize("key", ["", "..", "train-policy/", "train-policy/..", "/etc/passwd", "a//b"])
def test_a_state_outside_the_run_is_refused(key: str) -> None:
    with pytest.raises(SettingsError):
        RunFolder(Path("r")).state(key)


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOPO_HOME", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("MOPO_HOME")
    assert cache_dir().is_absolute() and "mopo" in cache_dir().parts
