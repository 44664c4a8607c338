"""The library's own client against a server on 127.0.0.1 that answers as the Hugging Face hub does."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from probes.minari_sets import buffers, change_metadata, walk, write

from mopo_cli.data.minari import remote as minari_remote
from mopo_cli.data.minari.load import load_minari
from mopo_cli.data.minari.remote import download, remote_sets
from mopo_cli.data.minari.sets import is_here, is_missing, minari_root, open_set
from mopo_cli.errors import CorruptError, InputError, NetworkError

COMMIT = "a" * 40
SETS = ["toy/walk/long-v0", "toy/walk/random-v0", "toy/walk/random-v2"]

ARROW = "toy/walk/random-v2"


class Hub(ThreadingHTTPServer):
    """Serves the folders under ``root`` as dataset repositories; ``stalls`` after that many bytes of a data file."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root = root
        self.stalls: int | None = None
        self.ends = threading.Event()
        self.asked: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        parts = urlsplit(self.path).path.strip("/").split("/")
        match parts:
            case ["api", "datasets"]:
                spaces = sorted(path.name for path in self.server.root.iterdir())
                self.tell([{"_id": "1", "id": f"farama-minari/{space}"} for space in spaces])
            case ["api", "datasets", _, space, "revision", _]:
                files = [{"rfilename": name} for name in self.files(space)]
                self.tell({"_id": "1", "id": f"farama-minari/{space}", "sha": COMMIT, "siblings": files})
            case ["api", "datasets", _, space, "tree", _]:
                sizes = self.files(space).items()
                self.tell([{"type": "file", "path": n, "size": s, "oid": "b" * 40} for n, s in sizes])
            case ["datasets", _, space, "resolve", _, *rest]:
                self.give(self.server.root.joinpath(space, *rest))
            case _:
                self.send(b"")

    def files(self, space: str) -> dict[str, int]:
        folder = self.server.root / space
        return {str(f.relative_to(folder)): f.stat().st_size for f in sorted(folder.rglob("*")) if f.is_file()}

    def tell(self, answer: object) -> None:
        self.send(json.dumps(answer).encode(), Content_Type="application/json")

    def give(self, path: Path) -> None:
        if not path.is_file():
            return self.send(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        content = path.read_bytes()
        self.send(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)

    def send(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.stalls is not None and self.path.endswith(".hdf5"):
            self.wfile.write(content[: self.server.stalls])
            self.wfile.flush()
            self.server.ends.wait(60)
            return
        self.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has SETS, and nothing under Minari's root here."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "there"))
    for k, name in enumerate(SETS):
        write(name, buffers(walk(40, 50, seed=k)), data_format="arrow" if name == ARROW else "hdf5")
    (tmp_path / "there/toy/namespace_metadata.json").write_text(
        json.dumps({"datasets": SETS, "namespaces": ["toy/walk"]})
    )
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "here"))
    server = Hub(tmp_path / "there")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield server
    server.ends.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_set_is_downloaded_and_read(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    progress: list[int] = []
    download("toy/walk/random-v0", progress.append)
    transitions, info = load_minari("toy/walk/random-v0")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(hub.root))
    there, its = load_minari("toy/walk/random-v0")
    assert np.array_equal(transitions.observations, there.observations)
    assert info.source == its.source
    assert sum(progress) > (hub.root / "toy/walk/random-v0/data/main_data.hdf5").stat().st_size
    assert capfd.readouterr() == ("", "")


def test_a_set_of_many_files_is_whole_when_it_is_downloaded(hub: Hub) -> None:
    download(ARROW)
    assert not is_missing(ARROW)
    assert len(load_minari(ARROW)[0]) == 2000


def test_what_the_remote_has_is_listed(hub: Hub) -> None:
    result = remote_sets()
    assert sorted(result) == SETS
    assert result["toy/walk/long-v0"]["total_steps"] == 2000
    assert not minari_root().exists()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("toy/walk/randon-v0", "there is no such set; similar ones are toy/walk/random-v0, toy/walk/random-v2"),
        ("toy/walk/random-v1", "there is no such set; similar ones are toy/walk/random-v"),
        ("other/set-v0", "there is no such set"),
    ],
)
def test_an_id_that_nobody_has(hub: Hub, name: str, says: str) -> None:
    with pytest.raises(InputError, match=f"{name} cannot be downloaded: {says}") as caught:
        download(name)
    assert caught.value.hint == "mopo fetch-data --list --remote"
    assert not is_here(name)


def test_close_names_on_this_machine_are_told(hub: Hub) -> None:
    write("other/sets-v0", buffers(walk()))
    with pytest.raises(InputError, match=r"on this machine: other/sets-v0\.$"):
        download("other/set-v0")


def test_a_set_that_this_minari_cannot_read_is_refused_in_its_words(hub: Hub) -> None:
    change_metadata(hub.root / "toy/walk/long-v0/data", lambda m: m.update(minari_version="99.0"))
    with pytest.raises(InputError, match="compatible"):
        download("toy/walk/long-v0")
    assert not is_here("toy/walk/long-v0")


def test_a_remote_that_cannot_be_reached(hub: Hub) -> None:
    hub.shutdown()
    hub.server_close()
    with pytest.raises(NetworkError, match=r"toy/walk/long-v0 cannot be downloaded: .*refused") as caught:
        download("toy/walk/long-v0")
    assert caught.value.exit_code == 8 and caught.value.hint
    with pytest.raises(NetworkError, match="cannot be listed"):
        remote_sets()
    assert not minari_root().exists()


@pytest.mark.parametrize("value", ["nowhere", "ftp://farama"])
def test_a_remote_that_is_none(hub: Hub, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MINARI_REMOTE", value)
    with pytest.raises(InputError, match="MINARI_REMOTE must be"):
        download("toy/walk/long-v0")
    assert hub.asked == []


def test_a_remote_that_falls_silent_is_given_up_and_gone_on_with(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minari_remote, "STALL_SECONDS", 2.5)
    hub.stalls = 5000
    began = time.monotonic()
    with pytest.raises(NetworkError, match=r"no data came for 2\.5 seconds"):
        download("toy/walk/long-v0")
    assert time.monotonic() - began < 30
    assert is_here("toy/walk/long-v0") and is_missing("toy/walk/long-v0")
    hub.stalls = None
    hub.ends.set()
    download("toy/walk/long-v0")
    assert not is_missing("toy/walk/long-v0")
    assert len(load_minari("toy/walk/long-v0")[0]) == 2000


def test_whoever_counts_the_bytes_may_stop_it(hub: Hub) -> None:
    hub.stalls = 5000

    def stop(_: int) -> None:
        if any(request.startswith("GET") and request.endswith(".hdf5") for request in hub.asked):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download("toy/walk/long-v0", stop)
    asked = len(hub.asked)
    hub.ends.set()  # a client that were still there would ask for the rest
    time.sleep(1)
    assert len(hub.asked) == asked
    assert is_here("toy/walk/long-v0") and is_missing("toy/walk/long-v0")


def test_an_incomplete_set_that_is_no_download_is_left_alone(hub: Hub) -> None:
    data = write("toy/walk/long-v0", buffers(walk()))
    (data / "main_data.hdf5").unlink()
    assert not is_missing("toy/walk/long-v0")
    with pytest.raises(CorruptError, match="incomplete") as caught:
        download("toy/walk/long-v0")
    assert str(data.parent) in caught.value.hint
    with pytest.raises(CorruptError, match=r"incomplete: it has no data/main_data\.hdf5"):
        open_set("toy/walk/long-v0")
    assert hub.asked == []
