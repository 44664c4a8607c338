"""The metrics that every run has: a file of JSON lines per member, which grows while training runs."""

import json
from collections.abc import Mapping, Sequence
from os import SEEK_END
from pathlib import Path
from typing import Any

from mopo_cli.store.atomic import cannot_write, make_folder, plain

FILE = "metrics.jsonl"


class JsonLines:
    """``MEMBER/metrics.jsonl`` under ``folder``: one line per epoch, with sorted keys, written in one piece.

    Raises InputError where a file cannot be written; a line may then be there in part.
    """

    def __init__(self, folder: Path, members: Sequence[str]) -> None:
        self._paths = {member: folder / member / FILE for member in members}
        for path in self._paths.values():
            make_folder(path.parent)
            self._write(path, "wb", b"")
        same = folder / Path(*("*" for _ in Path(members[0]).parts)) / FILE
        self.where = f"tail -F {same if len(members) > 1 else self._paths[members[0]]}"

    def log(self, member: str, epoch: int, values: Mapping[str, Any]) -> None:
        """Append a line for an epoch of a member."""
        line = json.dumps(plain({**values, "epoch": epoch}), sort_keys=True, allow_nan=False) + "\n"
        self._write(self._paths[member], "r+b", line.encode())

    def file(self, member: str) -> Path:
        """The member's file, to publish beside what it learned."""
        return self._paths[member]

    @staticmethod
    def _write(path: Path, mode: str, content: bytes) -> None:
        try:
            with open(path, mode, buffering=0) as file:
                file.seek(0, SEEK_END)
                while content:  # once, unless the disk fills up meanwhile
                    content = content[file.write(content) :]
        except OSError as error:
            raise cannot_write(path.parent, error) from error
