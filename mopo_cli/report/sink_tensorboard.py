"""Metrics for TensorBoard: a folder with an event file per member."""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from mopo_cli.report.sink import Curves, Values

_FILES = "events.out.tfevents."  # by this TensorBoard knows them


class TensorBoard:
    """An event file in ``folder/STAGE/MEMBER``, whole after every epoch; those of an earlier attempt are removed.

    TensorBoard's usual writer would leave the writing, and its errors, to a thread per member.
    """

    library = "tensorboard"

    def __init__(self, folder: Path, curves: Curves) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.where = f"tensorboard --logdir {folder}"
        self._writers: dict[str, Any] = {}
        for member in curves.members:
            place = folder / curves.name(member)
            for earlier in place.glob(f"{_FILES}*"):
                earlier.unlink()
            self._writers[member] = RecordWriter(_new_file(place))
            self._write(member, file_version="brain.Event:2")

    def log(self, member: str, epochs: Mapping[int, Values]) -> None:
        """Write an event with all values per epoch."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for epoch, values in epochs.items():
            scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
            self._write(member, step=epoch, summary=Summary(value=scalars))

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, member: str, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writers[member].write(Event(wall_time=time.time(), **fields).SerializeToString())
        self._writers[member].flush()


def _new_file(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{_FILES}{int(time.time())}.{socket.gethostname()}.{os.getpid()}").open("wb")
