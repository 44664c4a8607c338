"""The algorithms by name: a file here is one, with its settings, its update and, as ALGORITHM, its registration.

Their names can be listed without importing any.
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
