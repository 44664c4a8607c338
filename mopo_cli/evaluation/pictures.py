"""Pictures of environments, also on a machine without a screen."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from mopo_cli.errors import InputError, MopoError
from mopo_cli.evaluation.play import is_simulated, open_environments
from mopo_cli.evaluation.registered import first_line

Picture = NDArray[np.uint8]
"""`[height, width, 3]`, red, green and blue"""

DRAWN = {"render_mode": "rgb_array"}
"""What an environment is made with that gives pictures."""
_MODE = DRAWN["render_mode"]
_LIBRARIES = ("egl", "osmesa")
_GL = "MUJOCO_GL"
# In a process of its own: what a library loads or changes as it fails would spoil the next one.
_PROBE = (
    "import mujoco; model = mujoco.MjModel.from_xml_string('<mujoco/>'); renderer = mujoco.Renderer(model, 16, 16); "
    "renderer.update_scene(mujoco.MjData(model)); renderer.render()"
)
_PROBE_SECONDS = 60


class Filmed(gym.Wrapper[Any, Any, Any, Any]):
    """An environment, made with `DRAWN`, that hands a picture of each state to `film`: the first, and after each step.

    Raises what `picture_of` does.
    """

    def __init__(self, environment: gym.Env[Any, Any], env_id: str, film: Callable[[Picture], None]) -> None:
        super().__init__(environment)
        self._env_id, self._film = env_id, film

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As of any environment."""
        start = self.env.reset(seed=seed, options=options)
        self._film(picture_of(self.env, self._env_id))
        return start

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """As of any environment."""
        transition = self.env.step(action)
        self._film(picture_of(self.env, self._env_id))
        return transition


def picture_of(environment: gym.Env[Any, Any], env_id: str) -> Picture:
    """An environment as it looks now. InputError where it raises, or gives no array of bytes `[height, width, 3]`."""
    try:
        with redirect_stdout(sys.stderr):
            picture: Any = environment.render()
    except (MopoError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"The environment {env_id!r} cannot be drawn: {first_line(error)}.") from error
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != (*picture.shape[:2], 3):
        kind = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise InputError(
            f"The environment {env_id!r} draws {kind}: its render() must return an array of uint8 of the shape "
            "(height, width, 3)."
        )
    return picture


def check_pictures(env_id: str, kwargs: dict[str, Any], entries: Sequence[str] = ()) -> None:
    """Draw one picture. InputError where the environment has no such render mode, or this machine cannot draw it.

    For MuJoCo it first sees to MUJOCO_GL, see `choose_library`. Raises what `make_environments` does.
    """
    # Before MuJoCo is imported, which already fails where MUJOCO_GL names a library that is not there.
    if os.environ.get(_GL) or is_simulated(env_id):
        choose_library()
    with open_environments(env_id, 1, kwargs, entries) as (environment,):
        modes = environment.metadata.get("render_modes") or ()
        if _MODE not in modes:
            raise InputError(
                f"The environment {env_id!r} cannot be filmed: {_MODE} is not among its render modes "
                f"({', '.join(map(str, modes)) or 'it has none'}).",
                hint=f"give it a render() that returns an array, and metadata = {{'render_modes': ['{_MODE}']}}",
            )
    with open_environments(env_id, 1, kwargs | DRAWN, entries) as (environment,):
        environment.reset(seed=0)
        picture_of(environment, env_id)


def choose_library() -> None:
    """On Linux, set MUJOCO_GL to a library that draws without a screen: EGL, else OSMesa, unless it is set already.

    InputError where MuJoCo can draw with none of them, or not with the one that is set.
    """
    if sys.platform != "linux":
        return
    chosen = os.environ.get(_GL)
    library = next(filter(_can_draw, (chosen,) if chosen else _LIBRARIES), None)
    if library is None:
        what = f"with {_GL}={chosen}" if chosen else "without a screen: neither EGL nor OSMesa works"
        raise InputError(
            f"MuJoCo cannot draw here {what}.",
            hint=f"unset {_GL}" if chosen else "install one of them, on Debian and Ubuntu: apt install libegl1",
        )
    os.environ[_GL] = library


def _can_draw(library: str) -> bool:
    command = [sys.executable, "-P", "-c", _PROBE]
    environment = {**os.environ, _GL: library}
    try:
        return subprocess.run(command, env=environment, capture_output=True, timeout=_PROBE_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        return False
