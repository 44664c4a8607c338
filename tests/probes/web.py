"""A web server on 127.0.0.1 that answers one request after the other as the test says."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Web:
    """``answers`` are used up in turn, the last one for ever; ``asked`` notes path and Range of each request."""

    answers: "list[Answer]"
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""
    ends: threading.Event = field(default_factory=threading.Event)

    @property
    def ranges(self) -> list[str | None]:
        return [range_ for _, range_ in self.asked]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    web: Web

    def do_GET(self) -> None:
        self.close_connection = True
        self.web.asked.append((self.path, self.headers.get("Range")))
        answers = self.web.answers
        with suppress(BrokenPipeError, ConnectionResetError):  # the client had enough
            (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    def head(self, status: int, **headers: str | int) -> None:
        self.send_response(status)
        for name, value in {"Connection": "close", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


Answer = Callable[[Handler], None]


@contextmanager
def serving(*answers: Answer) -> Iterator[Web]:
    web = Web(list(answers))
    handler = type("Handler", (Handler,), {"web": web})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        web.ends.set()
        server.shutdown()
        thread.join()
        server.server_close()


def file(
    content: bytes, *, ranges: bool = True, cut: int | None = None, stall: int | None = None, length: int | None = 0
) -> Answer:
    """Serve ``content``, or of it what a range asks for; close after ``cut`` bytes or fall silent after ``stall``.

    ``length`` is added to what Content-Length says; None leaves the header out.
    """

    def answer(handler: Handler) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        start = int(asked[1]) if asked and ranges else 0
        if asked and ranges and start >= len(content):
            return handler.head(416, Content_Length=0)
        body = content[start:]
        headers: dict[str, str | int] = {} if length is None else {"Content_Length": len(body) + length}
        if asked and ranges:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.head(206 if asked and ranges else 200, **headers)
        end = cut if cut is not None else stall
        handler.wfile.write(body[:end])
        if stall is not None:
            handler.wfile.flush()
            handler.web.ends.wait(30)

    return answer


def status(code: int, body: bytes = b"", **headers: str | int) -> Answer:
    """Answer with a status and headers (``Retry_After=1``)."""

    def answer(handler: Handler) -> None:
        handler.head(code, Content_Length=len(body), **headers)
        handler.wfile.write(body)

    return answer


def hang_up(_: Handler) -> None:
    """Close the connection without a word."""
