"""YAML that nobody vouches for: the one reader of settings files, presets and column maps.

A document is small, flat, and a tree: what is larger, deeper, holds itself, or grows when written out, is refused.
"""

from pathlib import Path
from typing import Any

import yaml

from mopo_cli.store.files import read_text

_MOST_BYTES = 1_000_000
_DEEPEST = 30
# Of keys and values when every alias is written out.
_MOST_NODES = 5_000
_LONGEST_NUMBER = 100
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class BadYamlError(Exception):
    """Reads as what is wrong with a text, to follow its name: "is not valid YAML (line 3, column 4)"; with a hint."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.hint = hint


def read_yaml_text(path: Path, what: str = "") -> str:
    """The text of a YAML file; ``what`` begins an error's sentence. InputError where it cannot be read or is large."""
    return read_text(path, _MOST_BYTES, what)


def parse_yaml(text: str, most_nodes: int = _MOST_NODES) -> Any:
    """The value of a YAML document, None for an empty one.

    BadYamlError where it has none, or one that is no tree or has more than ``most_nodes`` keys and values.
    """
    try:
        loader = _Loader(text, most_nodes)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, [], most_nodes)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise BadYamlError(f"is not valid YAML{where}") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # of a tag or a date that its text does not fit
        raise BadYamlError("is not valid YAML") from error


class _Loader(yaml.SafeLoader):
    """Stops where a document is too deep or too long to be settings, before all of it is read."""

    def __init__(self, text: str, most_nodes: int) -> None:
        super().__init__(text)
        self._most_nodes = most_nodes
        self._depth = self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth, self._nodes = self._depth + 1, self._nodes + 1
        if self._depth > _DEEPEST:
            raise BadYamlError(f"is nested deeper than {_DEEPEST} levels")
        if self._nodes > self._most_nodes:
            raise _too_many(self._most_nodes)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _count(node: yaml.Node, above: list[yaml.Node], most: int) -> int:
    """The nodes of a document when every alias is written out."""
    if any(node is other for other in above):
        raise BadYamlError(f"contains itself (line {node.start_mark.line + 1})")
    if len(above) >= _DEEPEST:
        raise BadYamlError(f"is nested deeper than {_DEEPEST} levels")
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > _LONGEST_NUMBER:
            raise BadYamlError(f"holds a number of {len(node.value)} characters (line {node.start_mark.line + 1})")
        return 1
    if isinstance(node, yaml.MappingNode):
        _refuse_twice(node)
    count = 1
    for part in node.value:
        for child in part if isinstance(part, tuple) else (part,):
            count += _count(child, [*above, node], most)
            if count > most:
                raise _too_many(most)
    return count


def _too_many(most: int) -> BadYamlError:
    return BadYamlError(f"holds more than {most:,} keys and values")


def _refuse_twice(mapping: yaml.MappingNode) -> None:
    # YAML itself would drop the first of two.
    seen: set[str] = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                problem = f"gives {key.value} twice (line {key.start_mark.line + 1})"
                raise BadYamlError(problem, hint="remove one of the two")
            seen.add(key.value)
