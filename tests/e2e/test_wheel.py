"""What `pip install .` brings: a command that works from any folder, starts fast and finds its presets and tables."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SLOW = {"torch", "gymnasium", "mujoco", "minari", "h5py", "matplotlib", "safetensors", "scipy"}
PRESETS = {path.stem for path in (PROJECT / "presets").glob("*.yaml")}
METHODS = {path.stem for path in (PROJECT / "presets/methods").glob("*.yaml")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the project's wheel, but none of its dependencies, has been installed."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # Without isolation, nothing is downloaded.
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    subprocess.run([*pip, "wheel", "--no-deps", *isolation, "--wheel-dir", folder, PROJECT], check=True)
    (wheel,) = folder.glob("mopo-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "installed", wheel], check=True)
    return folder


def run(installed: Path, folder: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed / "installed")}
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(installed: Path) -> None:
    (wheel,) = installed.glob("mopo-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"mopo_cli", "mopo"}
    assert "mopo_cli/py.typed" in names and any(name.endswith("licenses/LICENSE") for name in names)
    shipped = {str(path.relative_to(PROJECT)) for path in (PROJECT / "presets").rglob("*") if path.is_file()}
    assert {name.removeprefix("mopo_cli/") for name in names if name.startswith("mopo_cli/presets/")} == shipped
    assert {"presets/methods/mbpo.yaml", "presets/quickstart.yaml"} < shipped
    assert {path.name for path in (PROJECT / "mopo_cli").rglob("*.csv")} <= {Path(name).name for name in names}


def test_help_is_there_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert "train-policy" in run(installed, tmp_path, str(installed / "installed/bin/mopo"), "--help")


def test_help_imports_the_installed_package_and_nothing_slow(installed: Path, tmp_path: Path) -> None:
    # How long it takes depends on the machine; what it waits for does not.
    script = (
        "import sys, mopo_cli\n"
        "from mopo_cli.__main__ import main\n"
        "assert main(['--help']) == 0\n"
        f"print(mopo_cli.__file__, *sorted({SLOW!r} & set(sys.modules)))"
    )
    place, *slow = run(installed, tmp_path, sys.executable, "-c", script).splitlines()[-1].split()
    assert Path(place).is_relative_to(installed) and slow == []


def test_presets_and_published_numbers_are_found(installed: Path, tmp_path: Path) -> None:
    mopo = str(installed / "installed/bin/mopo")
    listing = run(installed, tmp_path, mopo, "presets", "ls")
    assert {line.split()[0] for line in listing.splitlines()} == PRESETS
    methods = run(installed, tmp_path, mopo, "presets", "methods")
    assert {line.split()[0] for line in methods.splitlines()} == METHODS
    source = (PROJECT / "presets/quickstart.yaml").read_text(encoding="utf-8")
    assert run(installed, tmp_path, mopo, "presets", "show", "quickstart").rstrip() == source.rstrip()
    script = "from mopo_cli.evaluation.published import published; print(len(published('walker2d-medium')))"
    assert int(run(installed, tmp_path, sys.executable, "-c", script)) > 0
