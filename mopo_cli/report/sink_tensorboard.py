"""Metrics for TensorBoard: a folder of event files per member."""

from collections.abc import Mapping
from pathlib import Path

from mopo_cli.report.sink import Curves, Values


class TensorBoard:
    """Event files under ``folder/STAGE/MEMBER``, flushed after every epoch; those of an earlier attempt are removed."""

    library = "tensorboard"

    def __init__(self, folder: Path, curves: Curves) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.where = f"tensorboard --logdir {folder}"
        self._writers = {}
        for member in curves.members:
            place = folder / curves.name(member)
            for earlier in place.glob("events.out.tfevents.*"):
                earlier.unlink()
            self._writers[member] = SummaryWriter(str(place))

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        """Write a scalar per value."""
        writer = self._writers[member]
        for epoch, values in epochs.items():
            for name, value in values.items():
                writer.add_scalar(name, value, epoch)
        writer.flush()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
