"""Downloading: whatever the server does, the target is the known file or is not there."""

import email.utils
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probes.web import Answer, Handler, Web, file, hang_up, serving, status

import mopo_cli.data.download as download_module
from mopo_cli.data.download import Patience, Remote, download, partial_file
from mopo_cli.data.http import Trouble, _redirected
from mopo_cli.errors import InputError, LockedError, NetworkError

CONTENT = bytes(range(256)) * 4000
SIZE = len(CONTENT)
OTHER = CONTENT[::-1]
MEND = "put the file there by hand"
GOOD = file(CONTENT)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Case:
    """One target, and what its downloads told."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "deep" / "file.hdf5"
        self.part = partial_file(self.target)
        self.progress: list[int] = []
        self.troubles: list[str] = []
        self.slept: list[float] = []

    def partial(self, content: bytes) -> None:
        self.part.parent.mkdir(exist_ok=True)
        self.part.write_bytes(content)

    def __call__(self, url: str, on_bytes: Callable[[int], None] | None = None, **patience: Any) -> None:
        remote = Remote(f"{url}/file.hdf5", SIZE, hashlib.sha256(CONTENT).hexdigest())
        patience = {"connect": 5, "silence": 5, "attempts": 3, "sleep": self.slept.append, **patience}
        download(
            remote, self.target, MEND, on_bytes or self.progress.append, self.troubles.append, Patience(**patience)
        )

    def fails(self, web: Web, says: str, **patience: Any) -> None:
        """The download ends with one sentence that names the address, and the mend."""
        with pytest.raises(NetworkError, match=says) as caught:
            self(web.url, **patience)
        message = caught.value.message
        assert message.startswith(f"{web.url}/file.hdf5 cannot be downloaded: ") and message.endswith(".")
        assert "\n" not in message and caught.value.hint == MEND
        assert not self.target.exists()

    @property
    def left(self) -> dict[str, int]:
        """What lies in the folder, with its size."""
        return {path.name: path.stat().st_size for path in self.target.parent.iterdir()}

    def check(self) -> None:
        assert self.target.read_bytes() == CONTENT
        assert self.left == {"file.hdf5": SIZE}


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_a_file_comes_whole_in_one_request(case: Case) -> None:
    with serving(GOOD) as web:
        case(web.url)
        assert web.asked == [("/file.hdf5", None)]
        case.check()
        assert sum(case.progress) == SIZE and not case.slept and not case.troubles
        case(web.url)  # it is there
        assert len(web.asked) == 1
        case.target.write_bytes(OTHER)  # it is another
        case(web.url)
        assert len(web.asked) == 2
        case.check()


@pytest.mark.parametrize(("ranges", "length"), [(True, 0), (False, 0), (True, None)])
def test_what_breaks_off_once_is_gone_on_with(case: Case, ranges: bool, length: int | None) -> None:
    with serving(file(CONTENT, cut=5000, length=length), file(CONTENT, ranges=ranges)) as web:
        case(web.url)
        assert web.ranges == [None, "bytes=5000-"]
    case.check()
    assert sum(case.progress) == SIZE and sum(case.slept) == 1
    assert len(case.troubles) == 1 and case.troubles[0].endswith(": trying again in 1 s.")


def test_what_always_breaks_off_is_given_up_and_kept(case: Case) -> None:
    with serving(file(CONTENT, ranges=False, cut=5000)) as web:
        case.fails(web, r"connection was lost, 4 times in a row \(5,000 of 1,024,000 bytes are kept\)", attempts=4)
        assert len(web.asked) == 4
    assert case.left == {"file.hdf5.part": 5000}
    assert case.part.read_bytes() == CONTENT[:5000]
    assert sum(case.slept) == 1 + 2 + 4


def test_pauses_have_an_upper_bound(case: Case) -> None:
    with serving(hang_up) as web:
        case.fails(web, "5 times", attempts=5, longest_pause=3)
    assert sum(case.slept) == 1 + 2 + 3 + 3


def test_tries_count_anew_when_something_came(case: Case) -> None:
    with serving(file(CONTENT, cut=SIZE // 10)) as web:
        case(web.url, attempts=2)
        assert web.ranges == [None, *(f"bytes={SIZE // 10 * i}-" for i in range(1, 10))]
    case.check()


def test_a_trickle_is_not_progress_for_ever(case: Case) -> None:
    with serving(file(CONTENT, cut=100)) as web:
        case.fails(web, "3 times")
        assert web.ranges == [None, "bytes=100-", "bytes=200-"]
    assert case.left == {"file.hdf5.part": 300}


@given(
    cuts=st.lists(st.tuples(st.integers(0, SIZE), st.booleans(), st.sampled_from([0, None])), max_size=6),
    before=st.integers(0, SIZE),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_row_of_mishaps_ends_with_the_file(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[int, bool, int | None]], before: int
) -> None:
    case = Case(tmp_path_factory.mktemp("any"))
    case.partial(CONTENT[:before])
    answers = [file(CONTENT, cut=cut, ranges=ranges, length=length) for cut, ranges, length in cuts]
    with serving(*answers, GOOD) as web:
        case(web.url, attempts=9)
        done, expected = before, []
        for cut, ranges, _ in [*cuts, (SIZE, True, 0)]:
            if done < SIZE:
                expected.append(f"bytes={done}-" if done else None)
                done = min(SIZE, (done if ranges else 0) + cut)
        assert web.ranges == expected
    case.check()
    assert before + sum(case.progress) == SIZE


REFUSED: list[tuple[Answer, str, int]] = [
    *((file(CONTENT, ranges=False, length=n), f"has {SIZE + n:,} bytes, not {SIZE:,}", 10) for n in (1, -1, -5000)),
    (status(200, b"<html>please log in</html>"), "the file has 26 bytes", 0),
    (file(OTHER), f"is {hashlib.sha256(OTHER).hexdigest()}, not {hashlib.sha256(CONTENT).hexdigest()}", 0),
    *((status(code, CONTENT), f"answers {code} instead of 200", 0) for code in (206, 416)),
    *((status(code), rf"answers {code} [A-Z].*1,000 of", 1000) for code in (400, 401, 403, 404, 410, 304)),
    *(
        (status(302, Location=place), "redirects to .*, which is not a safe address", 0)
        for place in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "https://[::")
    ),
]


@pytest.mark.parametrize(("answer", "says", "kept"), REFUSED)
def test_what_is_clearly_not_the_file_is_asked_for_once(case: Case, answer: Answer, says: str, kept: int) -> None:
    """Another length, a page, wrong bytes, a range nobody asked for, a no, a redirect that is not followed."""
    if kept:
        case.partial(CONTENT[:kept])
    with serving(answer) as web:
        case.fails(web, says)
        assert len(web.asked) == 1
    assert case.left == ({"file.hdf5.part": kept} if kept else {}) and sum(case.progress) == 0


def test_a_whole_partial_file_needs_no_server(case: Case) -> None:
    case.partial(CONTENT)
    case("http://127.0.0.1:9")
    case.check()


def test_pieces_that_never_fit_are_tried_twice(case: Case) -> None:
    case.partial(CONTENT[:1000])
    with serving(file(OTHER, cut=2000), file(OTHER, cut=500), file(OTHER)) as web:
        case.fails(web, "its sha256 is")
        assert web.ranges == ["bytes=1000-", "bytes=3000-", "bytes=3500-", None]
    assert case.left == {}


def instead(first: int, last: int, content_range: str | None) -> Answer:
    """Answers a request for a range with CONTENT[first:last], said to be ``content_range``."""

    def answer(handler: Handler) -> None:
        if handler.headers.get("Range") is None:
            GOOD(handler)
            return
        named = {"Content_Range": content_range} if content_range else {}
        handler.head(206, Content_Length=last - first, **named)
        handler.wfile.write(CONTENT[first:last])

    return answer


def no_range(handler: Handler) -> None:
    if handler.headers.get("Range") is None:
        GOOD(handler)
    else:
        handler.head(416, Content_Length=0)


RANGES: dict[str, Answer] = {
    "another": instead(500, SIZE, f"bytes 500-{SIZE - 1}/{SIZE}"),
    "shorter": instead(1000, 1010, f"bytes 1000-1009/{SIZE}"),
    "nameless": instead(1000, SIZE, None),
    "no": no_range,
    "another file's": instead(1000, SIZE, f"bytes 1000-{SIZE - 1}/{SIZE + 7}"),
}


# What is there already, and what the server answers: the ranges that are asked for, and the bytes that are discarded.
BEGUN: dict[str, tuple[bytes, Answer, list[str | None], int]] = {
    "it goes on": (CONTENT[:1000], GOOD, ["bytes=1000-"], 0),
    "it goes on without a length": (CONTENT[:1000], file(CONTENT, length=None), ["bytes=1000-"], 0),
    "there are no ranges": (OTHER[:1000], file(CONTENT, ranges=False), ["bytes=1000-"], 1000),
    **{f"{name} range": (CONTENT[:1000], answer, ["bytes=1000-", None], 1000) for name, answer in RANGES.items()},
    "it began wrongly": (OTHER[:1000], GOOD, ["bytes=1000-", None], SIZE),
    "it is all wrong": (OTHER, GOOD, [None], SIZE),
    "it is too long": (CONTENT + b"x", GOOD, [None], SIZE + 1),
}


@pytest.mark.parametrize("begun", BEGUN)
def test_an_earlier_attempt_is_gone_on_from_or_thrown_away_once(case: Case, begun: str) -> None:
    before, answer, ranges, discarded = BEGUN[begun]
    case.partial(before)
    with serving(answer) as web:
        case(web.url)
        assert web.ranges == ranges
    case.check()
    assert len(before) + sum(case.progress) == SIZE and min(0, *case.progress) == -discarded and not case.slept


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(case: Case, code: int) -> None:
    with serving(status(code), status(code), GOOD) as web:
        case(web.url)
        assert len(web.asked) == 3
    case.check()
    assert sum(case.slept) == 1 + 2 and f"answers {code}" in case.troubles[0]


@pytest.mark.parametrize(
    ("says", "pause"),
    [
        ("7", 7),
        ("0", 0),
        ("9999", 60),
        ("soon", 1),
        # Named, as processes that share out the tests must find the same.
        pytest.param(email.utils.formatdate(time.time() + 3600, usegmt=True), 60, id="in an hour"),
        pytest.param(email.utils.formatdate(time.time() - 3600, usegmt=True), 0, id="an hour ago"),
    ],
)
@pytest.mark.parametrize("code", [429, 503])
def test_a_server_says_when_to_ask_again(case: Case, code: int, says: str, pause: float) -> None:
    with serving(status(code, Retry_After=says), GOOD) as web:
        case(web.url)
    case.check()
    assert sum(case.slept) == pause


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed_with_the_range(case: Case, code: int) -> None:
    case.partial(CONTENT[:1000])
    with serving(GOOD) as other:
        away = status(code, Location=f"{other.url}/file")
        with serving(status(code, Location="/there"), away) as web:
            case(web.url)
        assert web.asked == [("/file.hdf5", "bytes=1000-"), ("/there", "bytes=1000-")]
        assert other.asked == [("/file", "bytes=1000-")]
    case.check()


def test_a_loop_of_redirects_ends(case: Case) -> None:
    with serving(status(302, Location="/file.hdf5")) as web:
        case.fails(web, "more than 5 redirects")
        assert len(web.asked) == 6
    assert case.left == {}


def test_redirects_do_not_give_up_encryption() -> None:
    assert _redirected("https://a/x", "/y") == "https://a/y"
    assert _redirected("http://a/x", "https://b/y") == "https://b/y"
    for location in ("http://a/x", "HTTP://a/x"):
        with pytest.raises(Trouble, match="redirects to") as caught:
            _redirected("https://a/x", location)
        assert not caught.value.passes


def test_a_silent_server_is_left(case: Case) -> None:
    with serving(file(CONTENT, stall=5000), file(CONTENT, stall=0), GOOD) as web:
        case(web.url, silence=0.1)
        assert web.ranges == [None, "bytes=5000-", "bytes=5000-"]
    case.check()
    assert [trouble.split(":")[0] for trouble in case.troubles] == ["The server stopped sending data"] * 2


def test_a_server_that_never_answers(case: Case) -> None:
    def silent(handler: Handler) -> None:
        handler.web.ends.wait(30)

    with serving(silent) as web:
        case.fails(web, "the server stopped sending data, 2 times in a row", silence=0.1, attempts=2)
        assert len(web.asked) == 2


def test_no_server(case: Case) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = SimpleNamespace(url=f"http://127.0.0.1:{taken.getsockname()[1]}")
        case.fails(nobody, r"no connection \(Connection refused\), 3 times")  # type: ignore[arg-type]
    assert sum(case.slept) == 1 + 2 and case.left == {}


@pytest.mark.parametrize("url", ["http://", "http://[::", "gopher://127.0.0.1"])
def test_an_address_that_is_none(case: Case, url: str) -> None:
    case.fails(SimpleNamespace(url=url), "address is not valid")  # type: ignore[arg-type]
    assert not case.slept


class Enough(Exception):
    pass


def test_whoever_counts_may_stop_it(case: Case) -> None:
    def stop(n: int) -> None:
        raise Enough

    with serving(GOOD) as web:
        with pytest.raises(Enough):
            case(web.url, on_bytes=stop)
        (begun,) = case.left.values()
        assert 0 < begun < SIZE and case.left == {"file.hdf5.part": begun}
        case(web.url)
        assert web.ranges == [None, f"bytes={begun}-"]
    case.check()


def test_and_also_while_it_waits(case: Case) -> None:
    def stop(n: int) -> None:
        if sum(case.slept) > 20:
            raise Enough

    with serving(status(503, Retry_After=50)) as web, pytest.raises(Enough):
        case(web.url, on_bytes=stop)
    assert 20 < sum(case.slept) < 22


def test_a_folder_that_cannot_be_written(case: Case) -> None:
    case.target.parent.write_text("a file")
    with pytest.raises(InputError, match=f"folder {case.target.parent} cannot be written") as caught:
        case("http://127.0.0.1:9")
    assert "MOPO_HOME" in caught.value.hint


def test_too_little_space_is_told_before_the_first_byte(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    case.partial(CONTENT[:1000])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SIZE - 1001))
    with serving(GOOD) as web:
        with pytest.raises(InputError, match=r"has 1 MB of free space, but 1 MB are needed"):
            case(web.url)
        assert not web.asked
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=SIZE - 1000))
        case(web.url)
    case.check()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_disk_that_fills_up(case: Case) -> None:
    case.target.parent.mkdir()
    case.part.symlink_to("/dev/full")
    with serving(GOOD) as web, pytest.raises(InputError, match="cannot be written: No space left on device"):
        case(web.url)
    assert len(web.asked) == 1 and not case.target.exists()


def test_one_process_at_a_time(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "_LOCK_SECONDS", 0.1)
    case.partial(CONTENT[:1000])
    with FileLock(case.target.with_name(".file.hdf5.lock")), pytest.raises(LockedError, match="is downloading"):
        case("http://127.0.0.1:9")
    assert case.part.read_bytes() == CONTENT[:1000]


def test_the_proxy_of_the_environment_is_asked(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    logins = []

    def proxy(handler: Handler) -> None:
        logins.append(handler.headers.get("Proxy-Authorization"))
        GOOD(handler)

    with serving(proxy) as web:
        monkeypatch.setenv("http_proxy", web.url.replace("//", "//me:p%40ss@"))
        case("http://nowhere.invalid")
        assert web.asked == [("http://nowhere.invalid/file.hdf5", None)]
        assert logins == ["Basic bWU6cEBzcw=="]
        case.check()
        case.target.unlink()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        case(web.url)
        assert web.asked[1:] == [("/file.hdf5", None)]


SCRIPT = """
import sys
from pathlib import Path
from mopo_cli.data.download import Remote, download
url, size, sha256, target = sys.argv[1:]
download(Remote(url, int(size), sha256), Path(target), "")
"""


def test_a_killed_download_is_gone_on_with(case: Case) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    with serving(file(CONTENT, stall=700_000)) as web:
        arguments = [f"{web.url}/file.hdf5", str(SIZE), sha256, str(case.target)]
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, *arguments])
        try:
            deadline = time.monotonic() + 60
            while not case.part.exists() or case.part.stat().st_size < 500_000:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    killed = case.part.stat().st_size
    assert not case.target.exists() and case.part.read_bytes() == CONTENT[:killed]
    with serving(GOOD) as web:
        case(web.url)
        assert web.ranges == [f"bytes={killed}-"]
    case.check()
