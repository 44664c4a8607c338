"""From the text of an expression to a function of tensors.

Python's parser reads the text; what is not listed here is refused, and nothing of it is ever run as code. To read a
text takes no torch, which is long to import: all is done by the tensors' methods.
"""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import methodcaller
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from mopo_cli.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

MAX_LENGTH = 1000
"""Characters an expression may have."""
MAX_DEPTH = 32
"""How deep its parts may lie within one another."""
Names = Mapping[str, Sequence[str]]
"""The names of the entries of "obs" and "action"."""
Variables = Mapping[str, "Tensor"]
"""The vectors `[..., width]` of "obs", "action", "next_obs", and "step" `[...]`."""
Evaluate = Callable[[Variables], "Tensor"]
_LARGEST = float(np.finfo(np.float32).max)
_VECTORS = ("obs", "action", "next_obs")
_ARITHMETIC: dict[type[ast.operator], Callable[["Tensor", "Tensor"], "Tensor"]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[["Tensor", "Tensor"], "Tensor"]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable[..., "Tensor"]] = {
    "abs": methodcaller("abs"),
    "exp": methodcaller("exp"),
    "log": methodcaller("log"),
    "sqrt": methodcaller("sqrt"),
    "sin": methodcaller("sin"),
    "cos": methodcaller("cos"),
    "tanh": methodcaller("tanh"),
    "min": lambda *values: reduce(lambda one, other: one.minimum(other), values),
    "max": lambda *values: reduce(lambda one, other: one.maximum(other), values),
}
_SEVERAL = ("min", "max")
_UNKNOWN = "is not known here"
_SHOWN = 12


@dataclass(frozen=True)
class Value:
    """A part of an expression: whether it is a condition, and what gives its value, float32 or bool `[...]`."""

    is_condition: bool
    evaluate: Evaluate

    def number(self) -> Evaluate:
        """A condition counts as 1 or 0, as in Python."""
        evaluate = self.evaluate
        return (lambda variables: evaluate(variables).float()) if self.is_condition else evaluate


class Parser:
    """From the tree that Python's parser makes of a text to a function of tensors, part by part."""

    def __init__(self, text: str, what: str, names: Names) -> None:
        self.text, self.what, self.names = text, what, names
        self.numbered = text  # with numbers in place of names
        self.entries: set[tuple[str, int]] = set()
        self.uses_step = self.uses_names = False

    def read(self) -> Value:
        """The value of the whole; `entries`, `uses_step` and `numbered` then say what it looks at."""
        if len(self.text) > MAX_LENGTH:
            raise InputError(f"The {self.what} has {len(self.text)} characters; {MAX_LENGTH} are allowed.")
        tree = self.tree()
        value = self._value(tree, 0)
        if not self.entries and not self.uses_step:
            self._fault(tree, "names no entry of the observation or the action, such as obs[0]")
        if self.uses_names:
            self.numbered = ast.unparse(_Numbered(self).visit(tree))
        return value

    def tree(self) -> ast.expr:
        """What Python's parser makes of the text; InputError where it is no expression at all."""
        try:
            return ast.parse(" ".join(self.text.split("\n")).strip(), mode="eval").body
        except SyntaxError as error:
            place = error.offset or 0
            part = self.text.strip()[place - 1 :].split()[:1] if place > 0 else []
            refuse(self.text, self.what, part[0] if part else "", place, "is not allowed there")
        except (ValueError, RecursionError, MemoryError):
            raise InputError(f"The {self.what} {self.text[:80]!r} cannot be read.", hint=_HINT) from None

    def _value(self, node: ast.expr, depth: int) -> Value:
        if depth > MAX_DEPTH:
            self._fault(node, f"is nested deeper than {MAX_DEPTH}")
        deeper = partial(self._value, depth=depth + 1)
        match node:
            case ast.Constant(value=bool()):
                self._fault(node, _UNKNOWN)
            case ast.Constant(value=int() | float() as value):
                return self._constant(node, value)
            case ast.Name(id="step"):
                self.uses_step = True
                return Value(False, lambda variables: variables["step"])
            case ast.Name() | ast.Subscript():
                vector, index = self.entry(node)
                self.entries.add((vector, index))
                return Value(False, lambda variables: variables[vector][..., index])
            case ast.UnaryOp(op=ast.USub()):
                inner = self._number(node.operand, depth + 1)
                return Value(False, lambda variables: -inner(variables))
            case ast.UnaryOp(op=ast.Not()):
                holds = self._condition(node.operand, depth + 1)
                return Value(True, lambda variables: ~holds(variables))
            case ast.BinOp():
                return self._arithmetic(node, depth)
            case ast.BoolOp():
                join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
                return Value(True, _all(join, [self._condition(part, depth + 1) for part in node.values]))
            case ast.Compare():
                return self._comparison(node, depth + 1)
            case ast.IfExp():
                holds = self._condition(node.test, depth + 1)
                one, other = (deeper(part).number() for part in (node.body, node.orelse))
                return Value(False, lambda variables: one(variables).where(holds(variables), other(variables)))
            case ast.Call():
                return self._call(node, depth + 1)
        self._fault(node, _UNKNOWN)

    def _constant(self, node: ast.expr, value: float) -> Value:
        if abs(value) > _LARGEST:
            self._fault(node, "is too large")

        def constant(variables: Variables) -> "Tensor":
            entry = variables["obs"][..., 0]
            return entry.new_full(entry.shape, float(value))

        return Value(False, constant)

    def entry(self, node: ast.Name | ast.Subscript) -> tuple[str, int]:
        """The vector and the number of an entry that is written by either, or by a name."""
        if isinstance(node, ast.Name):
            places = [
                (vector, i)
                for vector in ("obs", "action")
                for i, n in enumerate(self.names.get(vector, ()))
                if n == node.id
            ]
            if len(places) != 1:
                self._fault(node, "is both an observation and an action here" if places else self._unknown())
            self.uses_names = True
            return places[0]
        if not (isinstance(node.value, ast.Name) and node.value.id in _VECTORS):
            self._fault(node, _UNKNOWN)
        vector, index = node.value.id, node.slice
        columns = self.names.get("action" if vector == "action" else "obs", ())
        match index:
            case ast.Constant(value=str() as name) if name in columns:
                self.uses_names = True
                return vector, list(columns).index(name)
            case ast.Constant(value=int() as number) if not isinstance(number, bool) and number < 10**6:
                return vector, number
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)) if number < 10**6:
                return vector, -number
        self._fault(
            index, f"should be the number of an entry, as in {vector}[0] or {vector}[-1], or its name in quotes"
        )

    def _unknown(self) -> str:
        """What is said of a name that no column has."""
        columns = [*self.names.get("obs", ()), *self.names.get("action", ())]
        more = ", ..." if len(columns) > _SHOWN else ""
        return f"is not known here; the columns are {', '.join(columns[:_SHOWN])}{more}" if columns else _UNKNOWN

    def _arithmetic(self, node: ast.BinOp, depth: int) -> Value:
        """A long sum is a deep tree to the left, but is read as one."""
        steps: list[tuple[Callable[[Tensor, Tensor], Tensor], Evaluate]] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp):
            if type(left.op) not in _ARITHMETIC:
                self._fault(left, "has an operator that is not known here")
            steps.append((_ARITHMETIC[type(left.op)], self._value(left.right, depth + 1).number()))
            left = left.left
        first = self._value(left, depth + 1).number()

        def evaluate(variables: Variables) -> "Tensor":
            total = first(variables)
            for operation, right in reversed(steps):
                total = operation(total, right(variables))
            return total

        return Value(False, evaluate)

    def _comparison(self, node: ast.Compare, depth: int) -> Value:
        values = [self._number(part, depth) for part in (node.left, *node.comparators)]
        pairs: list[Evaluate] = []
        for i, kind in enumerate(node.ops):
            if type(kind) not in _COMPARE:
                self._fault(node, "has a comparison that is not known here")
            pairs.append(_all(_COMPARE[type(kind)], values[i : i + 2]))
        return Value(True, _all(operator.and_, pairs))

    def _call(self, node: ast.Call, depth: int) -> Value:
        if not (isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS):
            self._fault(node.func, f"is not known here; the functions are {', '.join(FUNCTIONS)}")
        name = node.func.id
        if node.keywords or not (len(node.args) > 1 if name in _SEVERAL else len(node.args) == 1):
            self._fault(node, f"should have {'several numbers' if name in _SEVERAL else 'one number'} in its brackets")
        arguments = [self._number(part, depth) for part in node.args]
        return Value(False, lambda variables: FUNCTIONS[name](*(argument(variables) for argument in arguments)))

    def _number(self, node: ast.expr, depth: int) -> Evaluate:
        value = self._value(node, depth)
        if value.is_condition:
            self._fault(node, "is a condition where a number should be")
        return value.evaluate

    def _condition(self, node: ast.expr, depth: int) -> Evaluate:
        value = self._value(node, depth)
        if not value.is_condition:
            self._fault(node, "is a number; compare it with another")
        return value.evaluate

    def _fault(self, node: ast.expr, problem: str) -> NoReturn:
        text = self.text.strip()
        part = ast.get_source_segment(text, node) or ""
        place = len(text.encode()[: node.col_offset].decode()) + 1
        refuse(self.text, self.what, part, place, problem)


class _Numbered(ast.NodeTransformer):
    """Writes entries by their numbers, for readers that do not have the names."""

    def __init__(self, parser: Parser) -> None:
        self.parser = parser

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in (*_VECTORS, "step", *FUNCTIONS):
            return node
        return self._numbered(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        return self._numbered(node)

    def _numbered(self, node: ast.Name | ast.Subscript) -> ast.expr:
        vector, index = self.parser.entry(node)
        return ast.Subscript(ast.Name(vector, ast.Load()), ast.Constant(index), ast.Load())


def _all(join: Callable[["Tensor", "Tensor"], "Tensor"], parts: list[Evaluate]) -> Evaluate:
    return lambda variables: reduce(join, (part(variables) for part in parts))


_HINT = (
    'comparisons and sums of obs[0], action[0], names of columns, obs["any name"], numbers and abs(...), '
    "joined by and, or, not"
)


def refuse(text: str, what: str, part: str, place: int, problem: str) -> NoReturn:
    """InputError about a part of the text that begins at character `place`, or about its end."""
    shown = f"{part!r} (character {place})" if part else "its end"
    raise InputError(f"The {what} {text!r} cannot be read: {shown} {problem}.", hint=_HINT)
