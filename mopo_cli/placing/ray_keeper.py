"""Where a study's running jobs leave their news and checkpoints until the driver takes them."""

from dataclasses import dataclass, field

from mopo_cli.placing.parcels import Parcel


@dataclass
class News:
    """Of a running job: where it is, its epoch and return, and files to keep that are new since it was last asked."""

    attempt: int
    where: str = ""
    epoch: int | None = None
    value: float | None = None
    kept: dict[str, bytes] = field(default_factory=dict)


class Keeper:
    """An actor beside the driver. Where the driver is no node of the cluster, beside what it is connected to."""

    def __init__(self) -> None:
        self._news: dict[str, News] = {}
        self._attempts: dict[str, int] = {}
        self._stopping = False

    def tell(
        self, name: str, attempt: int, where: str, epoch: int | None, value: float | None, kept: Parcel | None = None
    ) -> bool:
        """News of a job's attempt; returns whether it is to stop: all are, or another attempt has begun since."""
        if attempt < self._attempts.get(name, 0):
            return True
        self._attempts[name] = attempt
        news = self._news.setdefault(name, News(attempt))
        news.attempt, news.where, news.epoch, news.value = attempt, where, epoch, value
        news.kept |= kept or {}
        return self._stopping

    def take(self) -> dict[str, News]:
        """The news since the last call, by the jobs' names."""
        news, self._news = self._news, {}
        return news

    def stop(self) -> None:
        """Have all jobs save and stop."""
        self._stopping = True
