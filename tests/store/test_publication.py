"""Files of a stage are published together or not at all."""

import os
from pathlib import Path

import pytest

from mopo_cli.errors import InputError
from mopo_cli.store.publication import Publication, published_together


def tree(folder: Path) -> dict[str, str | None]:
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "old").mkdir()
    (tmp_path / "old/a").write_text("old a")
    (tmp_path / "old/stale").write_text("stale")
    (tmp_path / "record").write_text("old record")
    return tmp_path


def fill(out: Publication, root: Path) -> None:
    for name in ("old/a", "new/deep/b", "record"):
        out.stage(root / name).write_text(f"new {name}")
    out.remove(root / "old/stale")


def test_nothing_shows_before_the_commit_and_all_after_it(root: Path) -> None:
    before = tree(root)
    out = Publication(root / ".state/staged")
    fill(out, root)
    assert {name: text for name, text in tree(root).items() if not name.startswith(".state")} == before
    assert out.at_present(root / "old/a").read_text() == "new old/a"
    assert out.names(root / "old") == {"a"} and out.names(root / "new/deep") == {"b"}
    out.commit()
    assert tree(root) == {
        ".state": None,
        "new": None,
        "new/deep": None,
        "new/deep/b": "new new/deep/b",
        "old": None,
        "old/a": "new old/a",
        "record": "new record",
    }


@pytest.mark.parametrize("failing", range(3))
def test_a_move_that_fails_leaves_all_as_it_was(root: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    before, replace, moves = tree(root), os.replace, []

    def fail(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == failing + 1:
            raise OSError(28, "No space left on device", str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="cannot be written"), published_together(root / "staged") as out:
        fill(out, root)
    assert tree(root) == before


def test_the_file_staged_last_is_moved_last_and_after_the_others_are_on_disk(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    replace, fsync = os.replace, os.fsync
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append(Path(b).name), replace(a, b)))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (events.append("sync"), fsync(descriptor)))
    with published_together(root / "staged") as out:
        fill(out, root)
        out.stage(root / "old/a")
        events.clear()
    assert events == ["b", "record", "sync", "sync", "a", "sync"]


def test_a_body_that_fails_publishes_nothing(root: Path) -> None:
    before = tree(root)
    with pytest.raises(ZeroDivisionError), published_together(root / "staged") as out:
        fill(out, root)
        raise ZeroDivisionError
    assert tree(root) == before
