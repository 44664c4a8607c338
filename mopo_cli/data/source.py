"""What a source of datasets is: a few functions that know its names, list its sets and read them.

A new source is one file with a `Source` in it and one line in `registry.SOURCES`. The functions import what is slow
to load inside themselves, as the command line loads every source at its start.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mopo_cli.config.schema_data import FetchData

if TYPE_CHECKING:
    from mopo_cli.data.transitions import DatasetInfo, Transitions

Dataset: TypeAlias = "tuple[Transitions, DatasetInfo]"


@dataclass(frozen=True)
class DatasetName:
    """A parsed name. ``kind`` is the key of its source in `registry.SOURCES`, ``dataset_id`` its canonical form.

    ``path`` is set for files, ``env_id`` where the name implies the environment, ``level`` (one of
    `source_generated.LEVELS`) for sets to generate.
    """

    kind: str
    dataset_id: str
    env_id: str | None = None
    path: Path | None = None
    level: str | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the task's environment."""
    behaviour_kwargs: dict[str, Any] = field(default_factory=dict)
    """Further keyword arguments while the behaviour is trained and logged."""
    relabel: str | None = None
    """The reward rule that turns the behaviour's log into the task's data."""


@dataclass(frozen=True)
class Entry:
    """One dataset in a list, or for ``generate`` a family of them; None where a field is not known."""

    kind: str
    """A key of some source's ``titles``, or "fetched"."""
    name: str
    """A value for --dataset."""
    environment: str | None = None
    transitions: int | None = None
    bytes: int | None = None
    here: bool = False
    """Whether it can be fetched without a network."""
    path: str | None = None
    note: str = ""
    aliases: tuple[str, ...] = ()
    """Other names that a pattern may match."""


@dataclass(frozen=True)
class Work:
    """What a source may use while it fetches: reports of progress, and the stage that can train a behaviour."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    progress: Callable[..., AbstractContextManager[Callable[[int], None]]]
    """``with progress(title, total, done=0, in_bytes=False) as count``: call ``count(n)`` after n more steps.

    ``count`` raises Stopped after a signal. ``total`` may be None.
    """
    sha256: Mapping[str, str]
    """The hash of each of the source's ``files``, by role."""
    generate: Callable[[DatasetName, FetchData], Dataset]
    """Trains or runs a behaviour in a simulator and logs it."""


@dataclass(frozen=True)
class Source:
    """Where datasets come from. Only ``parse``, ``fetch`` and ``example`` are needed."""

    parse: Callable[[str], DatasetName | None]
    """The dataset that a name means, None for another source's name. InputError for a name that is nearly right."""
    fetch: Callable[[DatasetName, FetchData, Work], Dataset]
    """Reads or makes the dataset; see `fetch_data.run_fetch_data` for the errors."""
    example: str
    """A name, for the hint after an unknown one."""
    names: tuple[str, ...] = ()
    """Names to suggest after a typing error."""
    verb: str = "downloaded"
    """What happens to a set that is not here yet."""
    settings: frozenset[str] = frozenset()
    """Those of the settings "env", "env_kwargs", "columns", "layout" and "missing" that may be given for its sets."""
    files: Callable[[DatasetName, FetchData], dict[str, Path]] = lambda _name, _settings: {}
    """The files by role that the data are read from and that may change under the same name. InputError if missing."""
    download: Callable[[DatasetName, Work], None] | None = None
    """Downloads those files before their hashes are taken; does nothing for files that are here."""
    is_here: Callable[[DatasetName], bool] = lambda _name: False
    """Whether the set can be read now, with neither a download nor a simulation."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """The kinds of the entries, and the title of each kind in a list."""
    entries: Callable[[set[str], bool], Iterable[Entry]] = lambda _fetched, _remote: ()
    """The known sets; arguments: the ids of the fetched sets, and whether a server may be asked."""
