"""What a benchmark gives: rates, how far they spread, and the ceilings that matrix products set."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mopo_cli.bench.timing import Seconds

_BILLION = 1e9


@dataclass(frozen=True)
class Rate:
    """How fast one thing goes: ``per_second`` of ``unit``, and the ceiling, None where nothing is computed.

    ``ceiling`` is in the same unit: what the products alone would allow at the speed of products meanwhile. Both are
    medians, with their interquartile ranges. ``note`` is what the user should know of it.
    """

    name: str
    unit: str
    per_second: float
    ceiling: float | None = None
    note: str | None = None
    iqr: float | None = None
    ceiling_iqr: float | None = None

    @classmethod
    def of(cls, name: str, unit: str, amount: float, seconds: Seconds, note: str | None = None) -> "Rate":
        """The rate of what does this amount in these seconds."""
        per_second = amount / seconds.median
        return cls(name, unit, per_second, note=note, iqr=per_second * seconds.spread)

    @property
    def share(self) -> float | None:
        """Of the ceiling."""
        return None if self.ceiling is None else self.per_second / self.ceiling

    @property
    def spread(self) -> float | None:
        """The interquartile range as a share of the median."""
        return None if self.iqr is None else self.iqr / self.per_second

    @property
    def ceiling_spread(self) -> float | None:
        """The same of the ceiling."""
        return None if self.ceiling is None or self.ceiling_iqr is None else self.ceiling_iqr / self.ceiling


@dataclass(frozen=True)
class Products:
    """The matrix products that something is compared with: a call of some, and the operations of a call."""

    name: str
    work: Callable[[], object]
    flops: int

    def beside(self, rate: Rate, flops: float, seconds: Seconds) -> tuple[Rate, Rate]:
        """The products' rate, and `rate` with its ceiling: its unit takes `flops`, a call of the products `seconds`."""
        speed = Rate.of(self.name, "billion operations", self.flops / _BILLION, seconds)
        ceiling = speed.per_second * _BILLION / flops
        return speed, replace(rate, ceiling=ceiling, ceiling_iqr=ceiling * seconds.spread)
