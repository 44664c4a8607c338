"""The table of sources, and what a dataset's name means."""

import difflib

from mopo_cli.data import source_d4rl, source_files, source_generated, source_minari
from mopo_cli.data.source import DatasetName, Source
from mopo_cli.errors import InputError

# To add a source, add a line. Files come last: any name with a slash is a path.
SOURCES: dict[str, Source] = {
    "minari": source_minari.SOURCE,
    "d4rl": source_d4rl.SOURCE,
    "generate": source_generated.SOURCE,
    "local": source_files.SOURCE,
}
"""The sources, by the kind of their names; the first that knows a name has it."""


def parse_dataset(name: str) -> DatasetName:
    """The dataset that ``name`` means; nothing is opened or fetched.

    Raises InputError for an unknown name, with the closest known one.
    """
    for source in SOURCES.values():
        if (parsed := source.parse(name)) is not None:
            return parsed
    close = difflib.get_close_matches(name, [each for source in SOURCES.values() for each in source.names], n=1)
    suggestion = f"; did you mean {close[0]!r}?" if close else "."
    examples = ", ".join(source.example for source in SOURCES.values())
    raise InputError(f"The dataset {name!r} is not known{suggestion}", hint=f"a name such as {examples}")
