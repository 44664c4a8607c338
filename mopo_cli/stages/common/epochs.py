"""An epoch of policy training, and its row in the live table."""

from dataclasses import dataclass, field
from typing import Any

from mopo_cli.agents.runs import Loop
from mopo_cli.stages.common.watch import Played


@dataclass
class Epoch:
    """An epoch that has ended: the record of each member, which have diverged, and their evaluations."""

    number: int
    records: list[dict[str, Any] | None]
    lost: list[bool]
    played: dict[int, Played] = field(default_factory=dict)


_TITLES = {"q": "Q"} | {f"ratio_p{level}": f"ratio {level} %" for level in (10, 50, 90)}


def _metrics(loop: Loop) -> tuple[str, ...]:
    """The metrics in the live table: the algorithm's, and the penalty where there is one."""
    penalised = bool(loop.penalty.any()) and loop.settings.real_rows < loop.settings.batch_size
    return (*loop.algorithm.metrics, *(("penalty",) if penalised else ()))


def columns(loop: Loop) -> tuple[str, ...]:
    """The titles of the live table."""
    titles = (_TITLES.get(name, name.replace("_", " ")) for name in _metrics(loop))
    return ("epoch", "return per seed or cell", *titles, *(("dead rollouts",) if max(loop.pool.capacities) else ()))


def row(loop: Loop, epoch: Epoch, epochs: int) -> tuple[Any, ...]:
    """The row of an epoch, one of ``epochs``."""
    living = [record for record, lost in zip(epoch.records, epoch.lost, strict=True) if record is not None and not lost]

    def mean(name: str) -> float | None:
        values: list[float] = [record[name] for record in living if name in record]
        return sum(values) / len(values) if values else None

    numbers: list[Any] = [mean(name) for name in _metrics(loop)]
    if max(loop.pool.capacities):
        dead = mean("dead")
        numbers.append(None if dead is None else f"{dead:.1%}")
    return f"{epoch.number}/{epochs}", " ".join(_outcomes(loop, epoch)), *numbers


def _outcomes(loop: Loop, epoch: Epoch) -> list[str]:
    """The return of every seed; where several cells are trained, the mean over seeds of each."""
    cells: dict[tuple[Any, ...], list[float | None]] = {}
    for member, record, lost in zip(loop.members, epoch.records, epoch.lost, strict=True):
        values = cells.setdefault((member.penalty, member.lam, member.h), [])
        values.append(float("nan") if lost or record is None else record.get("return"))
    if len(cells) > 1:
        shown = [[value for value in values if value is not None] for values in cells.values()]
        results = [sum(values) / len(values) if values else None for values in shown]
    else:
        (results,) = cells.values()
    return ["-" if value is None else "diverged" if value != value else f"{value:.1f}" for value in results]
