"""Pictures of environments: who is asked for them, what is refused, and the library that MuJoCo draws with."""

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from probes.worn import Worn, registered

from mopo_cli.errors import InputError
from mopo_cli.evaluation import pictures
from mopo_cli.evaluation.pictures import DRAWN, Filmed, check_pictures, choose_library
from mopo_cli.evaluation.play import evaluate_returns, open_environments

FILMED = "mopo-test/Filmed-v0"


class Painted(Worn):
    """Its picture has the number of steps since the reset in every byte."""

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, paint: Any = None) -> None:
        super().__init__()
        self.render_mode, self.paint = render_mode, paint
        self.steps = 0

    def reset(self, **options: Any) -> Any:
        self.steps = 0
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        self.steps += 1
        return super().step(action)

    def render(self) -> Any:
        print("painting")
        if isinstance(self.paint, str):
            raise KeyError("brush")
        return self.paint if self.paint is not None else np.full((3, 5, 3), self.steps, np.uint8)


@pytest.fixture(autouse=True)
def environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("MUJOCO_GL", "")  # put back, also where it is set below
    with registered(FILMED, Painted, 6), registered("mopo-test/Unseen-v0", Worn, 6):
        yield


def test_a_picture_of_the_start_and_one_after_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    def still(observations: Any) -> Any:
        return np.zeros((len(observations), 1), np.float32)

    def play(film: bool) -> tuple[Any, list[int]]:
        steps: list[int] = []
        with open_environments(FILMED, 3, DRAWN if film else {}) as opened:
            if film:
                opened[1] = Filmed(opened[1], FILMED, lambda picture: steps.append(int(picture.max())))
            return evaluate_returns(still, opened, seed=4), steps

    (plain, _), (filmed, steps) = play(False), play(True)
    assert filmed.returns.tolist() == plain.returns.tolist() and filmed.lengths.tolist() == [6, 6, 6]
    assert steps == [0, 1, 2, 3, 4, 5, 6]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("paint", "says"),
    [
        ("raise", "cannot be drawn: KeyError: 'brush'"),
        (7, "draws int: its render"),
        (np.zeros((3, 5, 3)), r"draws float64 \(3, 5, 3\)"),
        (np.zeros((3, 5), np.uint8), r"draws uint8 \(3, 5\)"),
    ],
)
def test_what_is_no_picture_is_refused(paint: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_pictures(FILMED, {"paint": paint})


def test_an_environment_that_draws_nothing_is_named_with_the_mend() -> None:
    with pytest.raises(InputError, match=r"'mopo-test/Unseen-v0' cannot be filmed: rgb_array .* \(it has none\)") as no:
        check_pictures("mopo-test/Unseen-v0", {})
    assert "render()" in no.value.hint
    check_pictures(FILMED, {})


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo has one library, and that is used")
@pytest.mark.parametrize(
    ("before", "working", "after"),
    [
        (None, {"egl", "osmesa"}, "egl"),
        (None, {"osmesa"}, "osmesa"),
        (None, set(), "neither EGL nor OSMesa"),
        ("glfw", {"glfw", "egl"}, "glfw"),
        ("glfw", {"egl"}, "MUJOCO_GL=glfw"),
    ],
)
def test_egl_comes_before_osmesa_and_a_choice_of_the_user_before_both(
    before: str | None, working: set[str], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_can_draw", working.__contains__)
    if before is None:
        monkeypatch.delenv("MUJOCO_GL")
    else:
        monkeypatch.setenv("MUJOCO_GL", before)
    if " " in after or "=" in after:
        with pytest.raises(InputError, match=after) as refused:
            choose_library()
        assert refused.value.hint and os.environ.get("MUJOCO_GL") == before
    else:
        choose_library()
        assert os.environ["MUJOCO_GL"] == after


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere MuJoCo has one library, and that is used")
def test_mujoco_is_looked_at_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not pictures._can_draw("no-such-library")
    monkeypatch.setattr(pictures, "_PROBE", "import os; assert os.environ['MUJOCO_GL'] == 'egl'")
    assert pictures._can_draw("egl") and not pictures._can_draw("osmesa")


def test_an_environment_without_mujoco_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_can_draw", lambda library: False)
    check_pictures(FILMED, {})
    with pytest.raises(InputError, match="MuJoCo cannot draw here"):
        check_pictures("InvertedPendulum-v5", {})
