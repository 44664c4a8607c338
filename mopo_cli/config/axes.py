"""The axes of a grid of settings: how they are written, and how results are named after them."""

import re
from collections.abc import Sequence
from typing import Any

from mopo_cli.store.documents import present_names


def parse_axes(value: Any) -> Any:
    """``["beta=0.5,1"]``, as flags have it, or ``{"beta": [0.5, 1]}``, as YAML does -> values by field name.

    Values are not checked; anything else is returned unchanged. Raises ValueError for text of another form.
    """
    if isinstance(value, dict):
        axes = {str(name).replace("-", "_"): _values(values) for name, values in value.items()}
        return present_names("train-policy", axes)
    if not isinstance(value, str | list | tuple):
        return value
    axes = {}
    for text in [value] if isinstance(value, str) else value:
        name, equals, values = str(text).partition("=")
        field = name.strip().replace("-", "_")
        if not (field and equals and values.strip()):
            raise ValueError("must be NAME=V1,V2,...")
        if field in axes:
            raise ValueError(f"must not have {field.replace('_', '-')} twice")
        axes[field] = _values(values)
    return present_names("train-policy", axes)


def word(value: Any) -> str:
    """A setting's value as part of a name: ``0.5``, ``none``, ``runs-mine.h5``; numbers however they were written."""
    text = "none" if value is None else str(value)
    try:
        number = float(text)
    except ValueError:
        return re.sub(r"[^A-Za-z0-9.+=-]+", "-", text)
    short = f"{number:g}"
    return short if float(short) == number else repr(number).removesuffix(".0")


def mark(name: str, values: Sequence[Any]) -> str:
    """Values of a setting as the end of a name: ``_real-ratio0.5+0.8``, ``_actor-schedule-cosine``."""
    words = "+".join(map(word, values))
    return f"_{name.replace('_', '-')}{'-' if words[:1].isalpha() else ''}{words}"


def _values(value: Any) -> Any:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return value if isinstance(value, list | tuple) else [value]
