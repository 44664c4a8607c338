"""Environments by their ids: ``Hopper-v5``, those of installed packages, and ``module:ID`` of a module to import.

A module is looked for as Python does, and after that in the working directory. Packages register by entry points in
the group ``gymnasium.envs``; Gymnasium 1.0 stopped reading these itself.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from functools import cache
from importlib.metadata import entry_points

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, namespace, parse_env_id

from mopo_cli.errors import InputError
from mopo_cli.tasks import registration

gym.register_envs(registration)

LIST_IDS = 'list the known ids with: python -c "import gymnasium; gymnasium.pprint_registry()"'
_GROUP = "gymnasium.envs"
# These packages' environments are registered in every process.
_ALWAYS_HERE = ("gymnasium", "mopo_cli")


def split_id(env_id: str) -> tuple[str | None, str]:
    """``module:ID`` as (module, ID), ``ID`` as (None, ID)."""
    module, colon, name = env_id.rpartition(":")
    return (module if colon else None), name


def registered(env_id: str) -> EnvSpec:
    """What an id is registered with; of an id without a version, the highest there is.

    Imports the module of ``module:ID``, and installed plug-ins where ID is not known without them. Raises InputError,
    with what to do, where the module cannot be imported or nothing is registered by that name.
    """
    module, name = split_id(env_id)
    if module is not None:
        _import(module, env_id)
    failures: tuple[str, ...] = ()
    if (spec := _look_up(env_id, name)) is None and module is None:
        failures = _load_plugins()
        spec = _look_up(env_id, name)
    if spec is None:
        raise _not_registered(env_id, failures)
    return spec


def registered_id(env_id: str) -> str:
    """The id with its version, and without a module that is always imported. Raises what `registered` does."""
    module, name = split_id(env_id)[0], registered(env_id).id
    return name if module is None or module.split(".")[0] in _ALWAYS_HERE else f"{module}:{name}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says, with its type where that is no error of Gymnasium's."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "").rstrip(".?")
    if isinstance(error, gym.error.Error) and line:
        return line
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _look_up(env_id: str, name: str) -> EnvSpec | None:
    if (spec := gym.registry.get(name)) is not None:
        return spec
    try:
        space, bare, version = parse_env_id(name)
    except gym.error.Error as error:
        raise InputError(f"The environment {env_id!r} cannot be made: {first_line(error)}.", LIST_IDS) from error
    highest = find_highest_version(space, bare) if version is None else None
    return None if highest is None else gym.registry[get_env_id(space, bare, highest)]


def _not_registered(env_id: str, failures: tuple[str, ...]) -> InputError:
    module, name = split_id(env_id)
    try:
        gym.spec(name)
        reason = "nothing is registered by that name"
    except gym.error.Error as error:
        reason = first_line(error)
        if isinstance(error, gym.error.UnregisteredEnv) and not isinstance(
            error, gym.error.NameNotFound | gym.error.NamespaceNotFound
        ):  # it is there in other versions
            return InputError(f"The environment {env_id!r} is not registered: {reason}.", LIST_IDS)
    if module is not None:
        return InputError(
            f"The module {module!r} was imported, but it does not register the environment {name!r}: {reason}.",
            f"in {module}: gymnasium.register({name!r}, entry_point=..., max_episode_steps=...)",
        )
    broken = f"; a plug-in failed: {'; '.join(failures)}" if failures else ""
    return InputError(
        f"The environment {env_id!r} is not registered ({reason}{broken}): name the module that registers it (--env "
        f"my_module:{name or 'ID'}), or install a package that does so by an entry point in the group {_GROUP}.",
        LIST_IDS,
    )


def _import(module: str, env_id: str) -> None:
    if not all(part.isidentifier() for part in module.split(".")):
        raise InputError(
            f"The environment {env_id!r} must be written MODULE:ID, with the module as Python imports it.",
            "--env my_module:Tank-v0",
        )
    with _outside_code():
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            absent = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
            raise InputError(
                f"The module {module!r} of the environment {env_id!r} cannot be imported: {first_line(error)}.",
                "run the command in the folder of the module, or put that folder into PYTHONPATH" if absent else "",
            ) from error


@cache
def _load_plugins() -> tuple[str, ...]:
    """Let every installed plug-in register its environments, once per process; says which failed, and why."""
    failures = []
    for plugin in entry_points(group=_GROUP):
        # As Gymnasium did before 1.0: the name is the environments' namespace, but __root__ is none.
        hidden = plugin.name.startswith("__") and plugin.name.endswith("__")
        with _outside_code(), nullcontext() if hidden else namespace(plugin.name):
            try:  # within the namespace, which an error would leave as it is
                register = plugin.load()
                if plugin.attr:
                    register()
            except (Exception, SystemExit) as error:
                failures.append(f"{plugin.value}: {first_line(error)}")
    return tuple(failures)


@contextmanager
def _outside_code() -> Iterator[None]:
    """Somebody's module is imported: it finds its neighbours in the working directory, and prints to stderr."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        here = ""
    if here and here not in sys.path:
        sys.path.append(here)  # last, so that no file here stands in for an installed package
    with redirect_stdout(sys.stderr):
        yield
