"""The pieces of a page that needs nothing from outside: no script, no network, one file for screen, phone and print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from numbers import Real
from typing import Any

from mopo_cli import __version__
from mopo_cli.report.console import Report, format_value

MARK = '<meta name="generator" content="mopo'
"""What the beginning of every page has, and no other file."""
HEAD_BYTES = 512
"""In how many bytes from the beginning it stands."""

_LONG = 40  # characters that a cell has in one line

_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --ground: #fff; --faint: #5d6670; --rule: #d5dae0; --soft: #f3f5f7;
  --a: #1f6fb4; --b: #c2570c; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --ground: #14171a; --faint: #a0a9b2; --rule: #3a4148;
  --soft: #1e2226; --a: #6cb2ee; --b: #f59e5b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 66rem; padding: 1rem; color: var(--text); background: var(--ground);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3 { line-height: 1.25; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--rule); padding-bottom: .25rem; }
a { color: var(--a); }
p, ul { max-width: 46rem; }
.note { border-left: 4px solid var(--b); padding-left: .75rem; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
caption span { display: inline-block; max-width: min(100%, calc(100vw - 2rem)); }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: normal; font-variant-numeric: tabular-nums; }
th { vertical-align: bottom; }
td { white-space: nowrap; }
.long { white-space: normal; min-width: 18rem; overflow-wrap: anywhere; }
.number { text-align: right; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; padding: .6rem; background: var(--soft); border-radius: .4rem; break-inside: avoid; }
figcaption { font-size: .85rem; }
svg { display: block; width: 100%; height: auto; max-width: 30rem; }
svg text { font: 11px system-ui, sans-serif; fill: var(--faint); }
.grid { stroke: var(--rule); stroke-width: .6; }
.axis { stroke: var(--faint); }
.line { fill: none; stroke-width: 2; }
.line.a { stroke: var(--a); } .line.b { stroke: var(--b); }
.dot.a, .area.a { fill: var(--a); } .dot.b { fill: var(--b); }
.area { fill-opacity: .35; }
.rule { stroke: var(--faint); stroke-dasharray: 5 4; fill: none; }
.key { print-color-adjust: exact; display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 .4em;
  border-radius: 2px; }
.key.a { background: var(--a); } .key.b { background: var(--b); } .pale { opacity: .35; }
@media print { body { max-width: none; font-size: 10pt; } .table { overflow: visible; } table { font-size: 8pt; }
  td, th { white-space: normal; min-width: 0; overflow-wrap: anywhere; }
  tr, figure { break-inside: avoid; } nav { display: none; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page under a heading: its blocks are HTML, made by the functions here and in `page_charts`."""

    title: str
    blocks: Sequence[str]


def page(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole page: one HTML document."""
    links = "".join(f'<li><a href="#part-{n}">{escape(s.title)}</a></li>' for n, s in enumerate(sections, start=1))
    parts = [
        f'<section id="part-{n}"><h2>{escape(section.title)}</h2>\n' + "\n".join(section.blocks) + "\n</section>"
        for n, section in enumerate(sections, start=1)
    ]
    text = "\n".join(
        (
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'{MARK} {__version__}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style></head>",
            f"<body><h1>{escape(title)}</h1>",
            *introduction,
            f"<nav><ol>{links}</ol></nav>" if links else "",
            *parts,
            "</body></html>\n",
        )
    )
    return text.encode(errors="replace").decode()  # JSON may hold halves of characters, which no file can


def heading(text: str) -> str:
    """A heading inside a section."""
    return f"<h3>{escape(text)}</h3>"


def paragraph(text: str) -> str:
    """Text as it is: nothing in it is HTML."""
    return f"<p>{escape(text)}</p>"


def listed(texts: Sequence[str]) -> str:
    """A list of sentences."""
    return f"<ul>{''.join(f'<li>{escape(text)}</li>' for text in texts)}</ul>"


def note(text: str) -> str:
    """A paragraph that deserves a look."""
    return f'<p class="note">{escape(text)}</p>'


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in a box of its own that scrolls; numbers are written as on the terminal, at the right."""
    right = [
        bool(rows) and all(row[i] is None or isinstance(row[i], Real) for row in rows) for i in range(len(columns))
    ]
    heads = "".join(f'<th scope="col"{_side(side)}>{escape(c)}</th>' for c, side in zip(columns, right, strict=True))
    body = "\n".join(
        "<tr>" + "".join(_cell(value, side) for value, side in zip(row, right, strict=True)) + "</tr>" for row in rows
    )
    return (
        f'<div class="table" tabindex="0"><table><caption><span>{escape(caption)}</span></caption>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def charts(figures: Sequence[str]) -> str:
    """Charts side by side, as many as there is room for."""
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


class Collected(Report):
    """Takes what a command tells its user as blocks of a page."""

    def __init__(self) -> None:
        super().__init__("quiet")
        self.blocks: list[str] = []

    def say(self, text: str) -> None:
        """A sentence as a paragraph."""
        self.blocks.append(paragraph(text))

    def warn(self, text: str) -> None:
        """A warning as a paragraph that deserves a look."""
        self.blocks.append(note(text))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table."""
        self.blocks.append(table(title, columns, rows))


def pairs(caption: str, values: Mapping[str, Any], names: tuple[str, str]) -> str:
    """A table of two columns."""
    return table(caption, names, list(values.items()))


def _side(right: bool) -> str:
    return ' class="number"' if right else ""


def _cell(value: Any, right: bool) -> str:
    text = "–" if value is None else format_value(value)
    kind = ' class="long"' if len(text) > _LONG else _side(right)
    return f"<td{kind}>{escape(text)}</td>"
