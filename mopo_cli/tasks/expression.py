"""Termination rules written as a condition on the predicted observation, such as ``abs(obs[1]) > 0.2``.

The grammar, with Python's precedence and meaning:

    condition  = and_test { "or" and_test }
    and_test   = not_test { "and" not_test }
    not_test   = "not" not_test | comparison
    comparison = value { ("<" | "<=" | ">" | ">=" | "==" | "!=") value }      chained: each with the next
    value      = "-" value | number | "obs" "[" ["-"] integer "]" | "abs" "(" value ")" | "(" condition ")"

There is no arithmetic, no other name, and nothing is ever run as code.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import torch
from torch import Tensor

from mopo_cli.errors import InputError

MAX_LENGTH = 1000
"""Characters an expression may have."""
MAX_DEPTH = 32
"""Brackets, ``not``, ``abs`` and minus signs that may lie within one another."""

_LARGEST = torch.finfo(torch.float32).max
_TOKEN = re.compile(
    r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])|(?P<word>[A-Za-z_]\w*)|(?P<sign>[<>=!]=|[-<>()\[\]])",
    re.ASCII,
)
Join = Callable[[Tensor, Tensor], Tensor]
_COMPARE: dict[str, Join] = {
    "<": torch.lt,
    "<=": torch.le,
    ">": torch.gt,
    ">=": torch.ge,
    "==": torch.eq,
    "!=": torch.ne,
}

Evaluate = Callable[[Tensor], Tensor]
Kind = Literal["number", "condition"]


@dataclass(frozen=True)
class Expression:
    """A parsed condition: the termination rule it stands for, and the entries of the observation it names."""

    text: str
    indices: tuple[int, ...]
    """As written: -1 is the last entry."""
    holds: Evaluate
    """observation `[..., O]` -> bool `[...]`, where every named entry is finite"""

    def __call__(self, _observation: Tensor, _action: Tensor, next_observation: Tensor) -> Tensor:
        """Terminal `[...]` of the next observation `[..., O]`: the condition holds, or a named entry is not finite.

        A model that leaves the finite numbers has no state to go on from, and NaN would satisfy any ``not``.
        """
        named = next_observation[..., list(self.indices)]
        return self.holds(next_observation) | ~torch.isfinite(named).all(dim=-1)

    def check_width(self, obs_dim: int) -> None:
        """InputError unless every entry named exists in observations of ``obs_dim`` entries."""
        for index in self.indices:
            if not -obs_dim <= index < obs_dim:
                raise InputError(
                    f"The termination rule {self.text!r} names obs[{index}], but an observation here has "
                    f"{obs_dim} entries, obs[0] to obs[{obs_dim - 1}]."
                )


def parse_expression(text: str) -> Expression:
    """The rule that ``text`` stands for; InputError pointing at what is not in the grammar."""
    if len(text) > MAX_LENGTH:
        raise InputError(f"The termination rule has {len(text)} characters; {MAX_LENGTH} are allowed.")
    parser = _Parser(text)
    condition = parser.condition(depth=0)
    if parser.token:
        raise parser.fault("is not allowed there")
    if condition.kind != "condition":
        raise _refuse(text, condition.start, len(text), "is a number; compare it with another")
    if not parser.indices:
        raise _refuse(text, 0, len(text), "names no entry of the observation, obs[...]")
    return Expression(text, tuple(sorted(parser.indices)), condition.evaluate)


@dataclass(frozen=True)
class _Node:
    kind: Kind
    start: int
    evaluate: Evaluate


class _Parser:
    """Recursive descent: a method per line of the grammar, each a node and ``token`` behind it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.indices: set[int] = set()
        self.token = self.group = ""
        self.start = self.end = 0
        self._advance()

    def condition(self, depth: int) -> _Node:
        return self._joined("or", torch.logical_or, lambda: self._and_test(depth))

    def _and_test(self, depth: int) -> _Node:
        return self._joined("and", torch.logical_and, lambda: self._not_test(depth))

    def _joined(self, word: str, join: Join, part: Callable[[], _Node]) -> _Node:
        nodes = [part()]
        while self.token == word:
            self._need(nodes[-1], "condition")
            self._advance()
            nodes.append(part())
            self._need(nodes[-1], "condition")
        return nodes[0] if len(nodes) == 1 else _Node("condition", nodes[0].start, _all(join, nodes))

    def _not_test(self, depth: int) -> _Node:
        if self.token != "not":
            return self._comparison(depth)
        start = self.start
        self._advance()
        node = self._not_test(self._deeper(depth))
        self._need(node, "condition")
        return _Node("condition", start, lambda obs: ~node.evaluate(obs))

    def _comparison(self, depth: int) -> _Node:
        left = self._value(depth)
        pairs: list[_Node] = []
        while self.token in _COMPARE:
            self._need(left, "number")
            compare = _COMPARE[self._advance()]
            right = self._value(depth)
            self._need(right, "number")
            pairs.append(_Node("condition", left.start, _all(compare, [left, right])))
            left = right
        return _Node("condition", pairs[0].start, _all(torch.logical_and, pairs)) if pairs else left

    def _value(self, depth: int) -> _Node:
        start, word = self.start, self.token
        if self.group == "number":
            return self._number()
        if word == "obs":
            return self._entry()
        if word not in ("-", "(", "abs"):
            raise self.fault("is not known here" if word else "is where a value should be")
        self._advance()
        inner = self._deeper(depth)
        if word == "-":
            node = self._value(inner)
            self._need(node, "number")
            return _Node("number", start, lambda obs: -node.evaluate(obs))
        if word == "abs":
            self._expect("(")
        node = self._value_in_abs(inner) if word == "abs" else self.condition(inner)
        self._expect(")")
        return _Node(node.kind, start, node.evaluate)

    def _value_in_abs(self, depth: int) -> _Node:
        node = self._value(depth)
        self._need(node, "number")
        return _Node("number", node.start, lambda obs: node.evaluate(obs).abs())

    def _number(self) -> _Node:
        start, value = self.start, float(self.token)
        if value > _LARGEST:
            raise self.fault("is too large")
        self._advance()
        return _Node("number", start, lambda obs: torch.full_like(obs[..., 0], value))

    def _entry(self) -> _Node:
        start = self.start
        self._advance()
        self._expect("[")
        sign = -1 if self.token == "-" else 1
        if sign < 0:
            self._advance()
        if not re.fullmatch(r"\d{1,6}", self.token, re.ASCII):
            raise self.fault("should be the number of an entry, as in obs[0] or obs[-1]")
        index = sign * int(self._advance())
        self._expect("]")
        self.indices.add(index)
        return _Node("number", start, lambda obs: obs[..., index])

    def _advance(self) -> str:
        """Step to the next token; the one before is returned. At the end of the text it is empty."""
        before = self.token
        while self.text[self.end : self.end + 1].isspace():
            self.end += 1
        self.start = self.end
        self.token, self.group = "", ""
        if self.start < len(self.text):
            match = _TOKEN.match(self.text, self.start)
            if match is None:
                strange = re.findall(r"[\w.]+|.", self.text[self.start :], re.DOTALL)[0]
                raise _refuse(self.text, self.start, self.start + len(strange), "is not known here")
            self.token, self.group, self.end = match[0], match.lastgroup or "", match.end()
        return before

    def _expect(self, sign: str) -> None:
        if self.token != sign:
            raise self.fault(f"is where {sign!r} should be")
        self._advance()

    def _need(self, node: _Node, kind: Kind) -> None:
        if node.kind != kind:
            problem = "is a condition where a number should be" if kind == "number" else "is a number; compare it"
            raise _refuse(self.text, node.start, self.start, problem)

    def _deeper(self, depth: int) -> int:
        if depth == MAX_DEPTH:
            raise self.fault(f"is nested deeper than {MAX_DEPTH}")
        return depth + 1

    def fault(self, problem: str) -> InputError:
        """The error for the present token."""
        return _refuse(self.text, self.start, self.end, problem)


def _all(join: Join, nodes: list[_Node]) -> Evaluate:
    return lambda obs: reduce(join, (node.evaluate(obs) for node in nodes))


def _refuse(text: str, start: int, end: int, problem: str) -> InputError:
    part = f"{text[start:end].strip()!r} (character {start + 1})" if text[start:end].strip() else "its end"
    return InputError(
        f"The termination rule {text!r} cannot be read: {part} {problem}.",
        hint="comparisons of obs[0], obs[1], ..., numbers and abs(...), joined by and, or, not",
    )
