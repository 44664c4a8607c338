"""What a dataset's name means: a file, a set to generate, or a published set."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mopo_cli.errors import InputError

Kind = Literal["local", "generate", "d4rl", "minari"]

# The environment a D4RL policy is evaluated in: -v4 has the model and reward of the -v2 it was logged in.
_D4RL_ENVIRONMENTS = {
    "hopper": "Hopper-v4",
    "halfcheetah": "HalfCheetah-v4",
    "walker2d": "Walker2d-v4",
    "ant": "Ant-v4",
}
_D4RL_LEVELS = ("random", "medium", "medium-replay", "mixed", "medium-expert", "expert", "full-replay")
_D4RL_NAMES = [f"{body}-{level}" for body in _D4RL_ENVIRONMENTS for level in _D4RL_LEVELS]
_DATA_FILES = (".h5", ".hdf5")
_ENV_ID = r"(?:[A-Za-z0-9_-]+/)?[A-Za-z0-9_.-]+-v\d+"
_MINARI_ID = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*/)*[A-Za-z0-9_][A-Za-z0-9_.-]*-v\d+"
_EXAMPLES = "known names: generate:ENV-ID:random, ./file.h5, walker2d-medium, minari:mujoco/walker2d/medium-v0"


@dataclass(frozen=True)
class DatasetName:
    """A parsed name. ``dataset_id`` is its canonical form; ``path`` is set for files, ``env_id`` where the
    name tells the environment."""

    kind: Kind
    dataset_id: str
    env_id: str | None = None
    path: Path | None = None


def parse_dataset(name: str) -> DatasetName:
    """What ``name`` stands for; nothing is opened or fetched.

    A file is what ends in .h5 or .hdf5 or holds a path separator. Raises InputError for an unknown name,
    with the closest known one.
    """
    scheme, colon, rest = name.partition(":")
    if colon and scheme == "generate":
        return _parse_generate(name, rest)
    if colon and scheme == "minari":
        return _parse_minari(name, rest)
    if name.lower().endswith(_DATA_FILES) or "/" in name or os.sep in name:
        path = Path(name).expanduser()
        return DatasetName("local", path.name, path=path)
    return _parse_d4rl(name)


def not_yet(source: DatasetName) -> InputError:
    """The error for a published set, which this version knows by name only."""
    env_id = source.env_id or "ENV-ID"
    return InputError(
        f"not yet: {source.dataset_id} cannot be downloaded by this version; "
        f"use a file you have: --dataset ./file.h5 --env {env_id}",
        hint="mopo fetch-data --dataset generate:InvertedPendulum-v5:random",
    )


def _parse_generate(name: str, rest: str) -> DatasetName:
    env_id, _, behaviour = rest.rpartition(":")
    if not re.fullmatch(_ENV_ID, env_id) or ".." in env_id:
        example = rest if re.fullmatch(_ENV_ID, rest) else "Hopper-v5"
        raise InputError(
            f"The dataset {name!r} must be written generate:ENV-ID:random.",
            hint=f"mopo fetch-data --dataset generate:{example}:random",
        )
    if behaviour != "random":
        raise InputError(
            f"The dataset {name!r} asks for the behaviour {behaviour!r}; only 'random' can be generated.",
            hint=f"mopo fetch-data --dataset generate:{env_id}:random",
        )
    return DatasetName("generate", name, env_id=env_id)


def _parse_minari(name: str, rest: str) -> DatasetName:
    if not re.fullmatch(_MINARI_ID, rest) or ".." in rest:
        raise InputError(
            f"The dataset {name!r} must be written minari:NAMESPACE/NAME-vN.",
            hint="for example minari:mujoco/walker2d/medium-v0",
        )
    return DatasetName("minari", name)


def _parse_d4rl(name: str) -> DatasetName:
    version = name[-3:] if name.endswith(("-v0", "-v2")) else ""
    stem = name.removesuffix(version)
    if stem not in _D4RL_NAMES:
        raise _unknown(name)
    body, _, level = stem.partition("-")
    level = "medium-replay" if level == "mixed" else level
    return DatasetName("d4rl", f"{body}-{level}{version or '-v2'}", env_id=_D4RL_ENVIRONMENTS[body])


def _unknown(name: str) -> InputError:
    stem, dash, version = name.rpartition("-v")
    if dash and stem in _D4RL_NAMES:
        return InputError(
            f"The dataset {name!r} has the unknown version v{version}: D4RL has -v0 and -v2.", hint=_EXAMPLES
        )
    close = difflib.get_close_matches(name, _D4RL_NAMES, n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else "."
    return InputError(f"The dataset {name!r} is not known{suggestion}", hint=_EXAMPLES)
