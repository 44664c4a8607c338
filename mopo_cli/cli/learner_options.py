"""The options of single algorithms: made only when a command that has them is called, as their files import torch."""

import inspect
from typing import Any

import typer
from typer.core import TyperCommand

from mopo_cli.agents.algorithms import NAMES
from mopo_cli.cli.options import metavar, option, show


class TrainingCommand(TyperCommand):
    """A command with an option per setting of each algorithm, beside its own."""

    def get_params(self, context: Any) -> list[Any]:
        """All parameters, the algorithms' among them."""
        known = {parameter.name for parameter in self.params}
        if own := [parameter for parameter in _parameters() if parameter.name not in known]:
            self.params += own
            function = inspect.unwrap(self.callback)  # type: ignore[arg-type]
            # Typer's wrapper of it passes on only what was known when it was made.
            self.callback = typer.main.get_callback(
                callback=function, params=self.params, pretty_exceptions_short=False
            )
        return super().get_params(context)


def _parameters() -> list[Any]:
    def nothing(**given: Any) -> None:
        pass

    options = _options()
    nothing.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    nothing.__annotations__ = {parameter.name: parameter.annotation for parameter in options}
    app = typer.Typer(add_completion=False)
    app.command()(nothing)
    return list(typer.main.get_command(app).params)


def _options() -> list[inspect.Parameter]:
    from mopo_cli.config.learners import own_settings

    owners: dict[str, list[str]] = {}
    for algorithm in NAMES:
        for name in own_settings(algorithm):
            owners.setdefault(name, []).append(algorithm)
    found = []
    for name, algorithms in owners.items():
        kind, field = own_settings(algorithms[0])[name]
        about = [_default_and_source(own_settings(algorithm)[name][1], algorithm) for algorithm in algorithms]
        help = f"{field.description} ({'; '.join(about)})"
        found.append(option(name, help, metavar(kind), "Settings of single algorithms"))
    return found


def _default_and_source(field: Any, algorithm: str) -> str:
    source = field.json_schema_extra["source"]
    return f"{algorithm}: default {show(field.default)}{f', {source}' if source else ''}"
