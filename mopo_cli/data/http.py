"""One GET over HTTP or HTTPS: the environment's proxies, redirects that stay safe, failures in words."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote, urljoin
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Retry, Timeout, make_headers
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InvalidHeader,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.util import parse_url

from mopo_cli import __version__

_MOST_REDIRECTS = 5
_MAY_PASS = (408, 429)


class Trouble(Exception):
    """A request that failed: why, whether it may pass by itself, and the seconds that the server asks to wait."""

    def __init__(self, reason: str, passes: bool, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.passes = passes
        self.wait = wait


@contextmanager
def get(url: str, offset: int, connect: float, silence: float) -> Iterator[BaseHTTPResponse]:
    """Yield the answer, of status 200, 206 or 416, to a GET of ``url`` from byte ``offset`` on; close it after.

    ``connect`` and ``silence`` are the seconds to wait for a connection and for the next byte. Redirects are
    followed five times at most, never from https to http or out of both. Raises Trouble for every other
    status and for whatever the network does, also inside the block.
    """
    # Bytes are counted and hashed as they lie on the server: no compression on the way.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"mopo/{__version__}"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    try:
        response = _follow(url, headers, Timeout(connect=connect, read=silence))
        try:
            yield response
        finally:
            response.close()
    except HTTPError as error:
        raise _in_words(error) from error


def _follow(url: str, headers: dict[str, str], timeout: Timeout) -> BaseHTTPResponse:
    for _ in range(_MOST_REDIRECTS + 1):
        response = _manager(url).request(
            "GET", url, headers=headers, timeout=timeout, redirect=False, retries=False, preload_content=False
        )
        location = response.get_redirect_location()
        if not location:
            _check_status(response)
            return response
        response.close()
        url = _redirected(url, location)
    raise Trouble(f"more than {_MOST_REDIRECTS} redirects, the last to {url}", passes=False)


def _redirected(url: str, location: str) -> str:
    allowed = ("https",) if parse_url(url).scheme == "https" else ("http", "https")
    try:
        following = urljoin(url, location)
        safe = parse_url(following).scheme in allowed
    except ValueError:  # that is no address at all
        following, safe = location, False
    if not safe:
        raise Trouble(f"the server redirects to {following}, which is not a safe address", passes=False)
    return following


def _check_status(response: BaseHTTPResponse) -> None:
    status = response.status
    if status in (200, 206, 416):
        return
    response.close()
    wait = None
    with suppress(InvalidHeader):
        wait = Retry().get_retry_after(response)
    reason = f"the server answers {status} {response.reason or ''}".rstrip()
    raise Trouble(reason, passes=status in _MAY_PASS or status >= 500, wait=wait)


def _manager(url: str) -> PoolManager:
    parts, proxies = parse_url(url), getproxies()
    proxy = proxies.get(parts.scheme or "") or proxies.get("all")
    if not proxy or proxy_bypass(parts.host or ""):
        return PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    login = parse_url(proxy).auth
    return ProxyManager(proxy, proxy_headers=make_headers(proxy_basic_auth=unquote(login)) if login else None)


def _in_words(error: HTTPError) -> Trouble:
    if isinstance(error, LocationValueError):
        return Trouble(f"the address is not valid ({error})", passes=False)
    if isinstance(error, SSLError):
        untrusted = isinstance(error.args[0], ssl.SSLCertVerificationError)
        return Trouble(f"the secure connection failed ({error})", passes=not untrusted)
    if isinstance(error, ProxyError):
        return Trouble(f"the proxy cannot be used ({error.original_error})", passes=True)
    if isinstance(error, NameResolutionError):
        return Trouble("its host name is not known (is there a network?)", passes=True)
    if isinstance(error, NewConnectionError):
        cause = getattr(error.__cause__, "strerror", None) or "the network is unreachable"
        return Trouble(f"no connection ({cause})", passes=True)
    if isinstance(error, ConnectTimeoutError):
        return Trouble("no connection: timed out", passes=True)
    if isinstance(error, ReadTimeoutError):
        return Trouble("the server stopped sending data", passes=True)
    return Trouble("the connection was lost", passes=True)
