"""The presets that ship with mopo: one YAML file per data set, found by name or by data set, and one per method."""

import re
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from mopo_cli.errors import SettingsError, UsageError
from mopo_cli.store.documents import RENAMED, as_key

Sections = dict[str, dict[str, Any]]
"""A settings file: section (the stage's command) -> key as in the schema -> value, not yet validated."""

Kind = Literal["method", "table"]
"""What ships besides presets."""

_METHODS = "methods"
_VERSION = re.compile(r"-v[012]$")


def preset_names() -> list[str]:
    """The names of all presets, sorted; ``quickstart`` first."""
    names = (path.stem for path in presets_folder().glob("*.yaml"))
    return sorted(names, key=lambda name: (name != "quickstart", name))


def preset_text(name: str) -> str:
    """A preset's YAML with its header comment. Raises UsageError when there is none of that name."""
    if name not in preset_names():
        close = suggestion(name, preset_names())
        raise UsageError(f"There is no preset {name!r}{close}.", hint="mopo presets ls, methods or tables")
    return (presets_folder() / f"{name}.yaml").read_text(encoding="utf-8")


def summary(text: str) -> str:
    """The first line of the header comment of a preset, method or table: what it is for."""
    return text.splitlines()[0].removeprefix("#").strip()


def suggestion(word: str, choices: list[str]) -> str:
    """``" (did you mean 'beta'?)"``, or nothing where no choice is close."""
    close = get_close_matches(word, choices, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def load_preset(name: str, method: str | None = None) -> Sections:
    """A preset's sections, or those for one method on its data set, empty where none. UsageError for another name."""
    sections, of_methods = parse_file(preset_text(name), f"preset {name}")
    return sections if method is None else of_methods.get(method, {})


def names_of(kind: Kind) -> list[str]:
    """The names of the papers' methods or tables, sorted."""
    return sorted(path.stem for path in (presets_folder() / f"{kind}s").glob("*.yaml"))


def text_of(kind: Kind, name: str) -> str:
    """A method's or table's YAML with its header comment. UsageError, listing the known ones, for an unknown name."""
    if name not in (names := names_of(kind)):
        raise UsageError(f"There is no {kind} {name!r}; there are {', '.join(names)}.", hint=f"mopo presets {kind}s")
    return (presets_folder() / f"{kind}s" / f"{name}.yaml").read_text(encoding="utf-8")


def method_names() -> list[str]:
    """The names of the papers' methods, sorted."""
    return names_of("method")


def load_method(name: str) -> Sections:
    """The settings that make a method, by stage. Raises what `text_of` raises."""
    return parse_sections(text_of("method", name), f"method {name}")


def find_preset(dataset: str) -> str | None:
    """The preset that applies to a data set by default, None where there is none.

    ``mixed`` is ``medium-replay``, and a D4RL set's preset serves all its versions: walker2d-medium-v0,
    walker2d-medium-v2. A preset whose name is not its data set (quickstart) never applies by itself.
    """
    name = _canonical(dataset)
    if name not in preset_names():
        return None
    dataset = load_preset(name).get("fetch-data", {}).get("dataset", "")
    return name if _canonical(str(dataset)) == name else None


def preset_dataset(name: str) -> str:
    """The data set a preset is for. Raises UsageError when there is no such preset."""
    return str(load_preset(name)["fetch-data"]["dataset"])


def parse_file(text: str, label: str) -> tuple[Sections, dict[str, Sections]]:
    """A settings file's sections, and its sections for single methods, by method. Raises as `parse_sections`."""
    sections = parse_sections(text, label)
    methods = {}
    for key, of_method in sections.pop(_METHODS, {}).items():
        method = as_key(key)  # keys were made fields, but a method's name is no field
        if not isinstance(of_method, dict | None):
            raise SettingsError(f"{label}: {_METHODS}: {method} must hold sections such as 'train-policy:'.")
        where = f"{label}, method {method}"
        methods[method] = {
            str(section): _keys(values, str(section), where) for section, values in (of_method or {}).items()
        }
    return sections, methods


def parse_sections(text: str, label: str) -> Sections:
    """YAML text -> sections, with dashes in keys turned into underscores; values are not checked.

    Raises SettingsError, naming ``label``, when the text is not YAML or not sections of keys and values.
    """
    from mopo_cli.store.yaml_text import BadYamlError

    try:
        document = _document(text)
    except BadYamlError as error:
        raise SettingsError(f"{label} {error}.", error.hint) from error
    document = {} if document is None else document
    if not isinstance(document, dict):
        raise SettingsError(f"{label} must hold sections such as 'train-policy:', each with keys and values.")
    return {str(section): _keys(values, str(section), label) for section, values in document.items()}


@lru_cache(maxsize=64)
def _document(text: str) -> Any:
    """The value of a YAML document; a table asks for the same few presets and methods for every data set."""
    from mopo_cli.store.yaml_text import parse_yaml

    return parse_yaml(text)


def _keys(values: Any, section: str, label: str) -> dict[str, Any]:
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{label}: section {section} must hold keys and values such as 'seed: 0'.")
    renamed = RENAMED.get(section, {})
    keys = [renamed.get(key, key) for key in (str(key).replace("-", "_") for key in values)]
    twice = sorted({as_key(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise SettingsError(f"{label}: section {section} has {', '.join(twice)} twice.")
    return dict(zip(keys, values.values(), strict=True))


def _canonical(dataset: str) -> str:
    name = _VERSION.sub("", dataset).replace(":", "-")
    return f"{name.removesuffix('-mixed')}-medium-replay" if name.endswith("-mixed") else name


def presets_folder() -> Path:
    """The presets, methods and tables inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "presets"
