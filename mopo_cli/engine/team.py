"""Processes that take the same step together, each its share of it, and tell one another what came of that.

All run the same program on the same numbers, so that they agree on what comes next; what one of them computes for all
goes through memory that they share. They wait for one another where they tell, thousands of times a second: too
often to be woken up for it, so they keep looking.
"""

import mmap
import time
from array import array
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from itertools import count
from math import prod

import torch
from torch import Tensor

Told = Tensor | tuple[Tensor, ...] | None
"""What can be told of a piece of work."""

_ROOM, _HEAD = 1 << 25, 1 << 16  # bytes for what is told, and among them for what says what it is
_LINE = 8  # counters of 8 bytes in a line of a cache, which no two processes should write to
# Who is waited for longer may itself be waiting for a core, so that the own one is left for a while, in seconds.
_LOOKS, _NAP = 2000, 5e-5
_DTYPES = [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool]
_ONE, _NOTHING = -1, -2


@dataclass
class Team:
    """Processes `0 … size - 1`, of which this is `rank`; made before they are forked, and theirs alone."""

    size: int
    rank: int = 0
    _turn: int = 0
    _counts: memoryview = field(init=False, repr=False)
    _rooms: list[tuple[mmap.mmap, ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, 8 * _LINE * self.size)).cast("q")
        # Who begins to tell again has heard all the others tell, and so knows that they have read what came before:
        # two rooms are enough. They take memory as far as they are used.
        self._rooms = [(mmap.mmap(-1, _ROOM), mmap.mmap(-1, _ROOM)) for _ in range(self.size)]

    def at(self, rank: int) -> "Team":
        """The same team, as one of its processes sees it."""
        place = copy(self)
        place.rank = rank
        return place

    def exchange(self, own: list[Told]) -> list[list[Told]]:
        """Tell what this process has computed, and hear the same of all: a list for each of them, by rank.

        RuntimeError for a piece that no room is large enough for.
        """
        told: list[list[Told]] = [[] for _ in range(self.size)]
        told[self.rank], left = own, own
        goes_on = True
        while goes_on:
            left = self._tell(left)
            goes_on = bool(left)
            for rank in range(self.size):
                if rank != self.rank:
                    heard, more = self._hear(rank)
                    told[rank] += heard
                    goes_on |= more
        return told

    def _tell(self, pieces: list[Told]) -> list[Told]:
        """Begin the next turn with as many pieces as there is room for; returns the others.

        In front is written how many pieces there are, whether more will come, and of each piece how many tensors it
        is, or that it is one, or nothing; of each tensor its type, its place, and its shape.
        """
        room = self._rooms[self.rank][(self._turn + 1) % 2]
        head, at, number = array("q", (0, 0)), _HEAD, 0
        for piece in pieces:
            tensors = piece if isinstance(piece, tuple) else () if piece is None else (piece,)
            words = len(head) + 1 + sum(3 + tensor.dim() for tensor in tensors)
            if 8 * words > _HEAD or at + sum(_padded(tensor.nbytes) for tensor in tensors) > _ROOM:
                break
            head.append(_NOTHING if piece is None else len(piece) if isinstance(piece, tuple) else _ONE)
            for tensor in tensors:
                head.extend((_DTYPES.index(tensor.dtype), at, tensor.dim(), *tensor.shape))
                _view(room, tensor.dtype, at, tensor.shape).copy_(tensor)
                at += _padded(tensor.nbytes)
            number += 1
        if pieces and not number:
            raise RuntimeError(f"a piece of work takes more than {_ROOM} bytes to tell")
        head[0], head[1] = number, number < len(pieces)
        memoryview(room).cast("q")[: len(head)] = memoryview(head)
        self._turn += 1
        self._counts[self.rank * _LINE] = self._turn
        return pieces[number:]

    def _hear(self, rank: int) -> tuple[list[Told], bool]:
        self._wait(rank)
        room = self._rooms[rank][self._turn % 2]
        head = iter(memoryview(room).cast("q"))

        def read() -> Tensor:
            dtype, at = _DTYPES[next(head)], next(head)
            return _view(room, dtype, at, [next(head) for _ in range(next(head))]).clone()

        def piece() -> Told:
            kind = next(head)
            if kind == _NOTHING:
                return None
            return read() if kind == _ONE else tuple(read() for _ in range(kind))

        number, more = next(head), next(head)
        return [piece() for _ in range(number)], bool(more)

    def _wait(self, rank: int) -> None:
        place = rank * _LINE
        for looks in count():
            if self._counts[place] >= self._turn:
                return
            if looks > _LOOKS:
                time.sleep(_NAP)


def _view(room: mmap.mmap, dtype: torch.dtype, at: int, shape: Sequence[int]) -> Tensor:
    # Of nothing there can be no view.
    size = prod(shape)
    floats = torch.frombuffer(room, dtype=dtype, count=size, offset=at) if size else torch.empty(0, dtype=dtype)
    return floats.view(shape)


def _padded(size: int) -> int:
    return -(-size // 64) * 64
