"""Random logs of which the truth is known, and what a reader must make of them: nothing of the package is used here."""

import itertools
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Piece:
    """Transitions that follow one another; the last next observation is None where the log does not hold it."""

    observations: list[list[float]]
    actions: list[list[float]]
    rewards: list[float]
    following: list[list[float] | None]
    terminal: bool


@dataclass
class Log:
    """Rows in the order of time: `episode` and `time` `[N]`, `obs` and `following` `[N, O]`, `action` `[N, A]`,
    `terms` of the reward `[N, K]` with their `weights`, `terminal` `[N]`, and `word` `[N]`, a category or "".

    `lacks` are (row, column of values) whose value is missing.
    """

    episode: NDArray[np.int64]
    time: NDArray[np.int64]
    obs: Floats
    following: Floats
    action: Floats
    terms: Floats
    weights: list[float]
    terminal: NDArray[np.bool_]
    word: list[str]
    lacks: set[tuple[int, str]] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.time)

    def select(self, rows: list[int]) -> "Log":
        """These rows only."""
        arrays = ("episode", "time", "obs", "following", "action", "terms", "terminal")
        some: dict[str, Any] = {name: getattr(self, name)[rows] for name in arrays}
        return replace(self, **some, word=[self.word[row] for row in rows])


def simulate(chance: np.random.Generator, decimals: int, units: list[float], quantity: bool) -> Log:
    """Episodes of a random walk or of noise; `units` are those of the observations, rounded to so many decimals."""
    count = int(chance.integers(2, 9))
    lengths = chance.integers(chance.choice([1, 3]), 25, count)
    lengths[0] = max(lengths[0], 12)
    width, actions, terms = len(units), int(chance.integers(1, 4)), int(chance.integers(1, 4))
    walk, rows = chance.random() < 0.5, int(lengths.sum())
    steps = [chance.normal(size=(n + 1, width)) for n in lengths]
    paths = [chance.normal(0, 3, width) + 0.2 * s.cumsum(axis=0) if walk else s for s in steps]
    paths = [np.round(path, decimals) * units for path in paths]
    action = chance.uniform(-2, 5, (rows, actions))
    values = np.round(chance.uniform(-1, 1, (rows, terms)), decimals)
    ends = chance.random(count) < 0.5
    return Log(
        episode=np.repeat(np.arange(count), lengths),
        time=np.concatenate([np.arange(n) for n in lengths]),
        obs=np.concatenate([path[:-1] for path in paths]),
        following=np.concatenate([path[1:] for path in paths]),
        action=np.round(action * 40) if quantity else np.round(action, decimals),
        terms=values,
        weights=[1.0] if terms == 1 else [float(w) for w in np.round(chance.uniform(-2, 2, terms) + 0.01, 2)],
        terminal=np.concatenate([[*[False] * (n - 1), end] for n, end in zip(lengths, ends, strict=True)]),
        word=[""] * rows,
    )


def pieces_of(log: Log, has_next: bool, sees_gaps: bool, remedy: str, sees_terminals: bool = True) -> list[Piece]:
    """What must be read of a log: with next observations or without, and cut at gaps if there is a column of steps."""
    words = sorted({word for i, word in enumerate(log.word) if word and (i, "word") not in log.lacks})
    made = []
    for episode in dict.fromkeys(log.episode.tolist()):
        rows = [i for i in range(len(log)) if log.episode[i] == episode]
        parts = [[rows[0]]]
        for before, row in itertools.pairwise(rows):
            if sees_gaps and log.time[row] != log.time[before] + 1:
                parts.append([])
            parts[-1].append(row)
        for part in parts:
            for values in _mended(log, part, remedy):
                made += _piece(log, values, words, has_next, sees_terminals)
    return made


def _mended(log: Log, rows: list[int], remedy: str) -> list[list[dict[str, Any]]]:
    """The rows without a missing value, as values by column; more than one list where the record is cut."""
    runs: list[list[dict[str, Any]]] = [[]]
    before: dict[str, Any] = {}
    for row in rows:
        values: dict[str, Any] = {f"obs {i}": value for i, value in enumerate(log.obs[row])}
        values |= {f"action {i}": value for i, value in enumerate(log.action[row])}
        values |= {f"reward {i}": value for i, value in enumerate(log.terms[row])}
        values |= {"word": log.word[row], "row": row}
        for name in [name for at, name in log.lacks if at == row]:
            values[name] = before.get(name) if remedy == "fill-forward" else None
        before = values
        if None not in values.values():
            runs[-1].append(values)
        elif remedy == "split-episodes":
            runs.append([])
    return [run for run in runs if run]


def _piece(log: Log, run: list[dict[str, Any]], words: list[str], has_next: bool, sees_terminals: bool) -> list[Piece]:
    def observation(values: dict[str, Any]) -> list[float]:
        numbers = [values[f"obs {i}"] for i in range(log.obs.shape[1])]
        return numbers + [float(values["word"] == word) for word in words]

    terminal = bool(log.terminal[run[-1]["row"]]) and sees_terminals
    kept = run if has_next or terminal else run[:-1]
    if not kept:
        return []
    following: list[list[float] | None] = [observation(values) for values in run[1:]]
    following.append(log.following[run[-1]["row"]].tolist() if has_next else None)
    return [
        Piece(
            [observation(values) for values in kept],
            [[values[f"action {i}"] for i in range(log.action.shape[1])] for values in kept],
            [sum(w * values[f"reward {i}"] for i, w in enumerate(log.weights)) for values in kept],
            [log.following[values["row"]].tolist() for values in kept] if has_next else following[: len(kept)],
            terminal,
        )
    ]


def difference(pieces: list[Piece], transitions: Any, offset: Floats | None) -> str:
    """How transitions that were read differ from what they must be; empty where they do not.

    Numbers may be rounded to float32, after an offset was taken off, but by no more than a hundredth of how much a
    column varies.
    """
    t = transitions
    shift = np.zeros(t.observations.shape[1]) if offset is None else offset
    ends = np.flatnonzero(t.terminals | t.timeouts)
    bounds = sorted({0, *(ends + 1).tolist(), len(t.rewards)})
    parts = [np.arange(a, b) for a, b in itertools.pairwise(bounds)]
    parts.sort(key=lambda rows: [*(t.observations[rows[0]] + shift).tolist(), *t.actions[rows[0]].tolist()])
    wanted = sorted(pieces, key=lambda piece: (piece.observations[0], piece.actions[0]))
    lengths, right = [len(rows) for rows in parts], [len(piece.rewards) for piece in wanted]
    if sorted(lengths) != sorted(right):
        return f"episodes of {sorted(lengths)} steps, not {sorted(right)}"
    scale = np.std([row for piece in pieces for row in piece.observations], axis=0)
    for rows, piece in zip(parts, wanted, strict=True):
        filler = piece.following[-1] is None
        number = len(rows) - filler
        for name, got, true, by, slack in (
            ("observations", t.observations[rows], piece.observations, shift, scale),
            ("next_observations", t.next_observations[rows][:number], piece.following[:number], shift, scale),
            ("actions", t.actions[rows], piece.actions, 0.0, np.inf),
            ("rewards", t.rewards[rows], piece.rewards, 0.0, np.inf),
        ):
            truth = np.array(true, np.float64).reshape(got.shape)
            off = np.abs(got.astype(np.float64) + by - truth)
            # The rounding of float32, and that of sums in another order.
            if not (off <= np.minimum(2e-7 * np.abs(truth - by) + 1e-6 * (name == "rewards"), 0.01 * slack)).all():
                return f"{name}: {got[:3].tolist()}, not {truth[:3].tolist()} (offset {by})"
        if bool(t.terminals[rows[-1]]) != piece.terminal:
            return f"terminal {not piece.terminal} at the end of an episode"
        if filler and not (piece.terminal and len(rows)):
            return "an end without a next observation that is no terminal"
    return ""
