"""The algorithms by name: a file here is one, with its settings, its update and, as ALGORITHM, its registration.

MOPO and MBPO have no file: they are `sac` on rewards r - lambda u. `dynamics/penalties.py` computes u when a row of the
model is made, `agents/loop.py` subtracts lambda u when it is drawn, and `presets/methods/` says what each method sets.
To learn how they are written read `bc` first, then `sac`, on which all that learn from a model build, then `mobile`.

The names can be listed without importing any algorithm.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mopo_cli.agents.algorithm import Algorithm

NAMES = tuple(sorted(module.name.replace("_", "-") for module in iter_modules(__path__)))
"""The names of all algorithms: of their files, with dashes."""


def load(name: str) -> "Algorithm":
    """The algorithm of this name, one of `NAMES`."""
    algorithm: Algorithm = import_module(f"{__name__}.{name.replace('-', '_')}").ALGORITHM
    return algorithm
