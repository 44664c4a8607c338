"""MuJoCo without its warnings."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_mujoco() -> Iterator[None]:
    """Keep MuJoCo's warnings, of old model syntax or unstable motion, off the terminal and out of MUJOCO_LOG.TXT."""
    import mujoco

    handler = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(handler)
