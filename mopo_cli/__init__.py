"""Model-based offline policy optimisation (MOPO), from logged data to a policy.

`load_policy`, `load_model` and `open_run` are for programs of your own; no other name is promised to stay.
"""

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["load_model", "load_policy", "open_run"]


def __getattr__(name: str) -> Any:
    # The command line imports this package and must start at once.
    if name in __all__:
        return getattr(importlib.import_module("mopo_cli.policy.door"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
