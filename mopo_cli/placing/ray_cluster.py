"""Joins a cluster of Ray, or starts one on this machine, and says in a sentence why it cannot."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from logging import CRITICAL
from pathlib import Path
from typing import Any

from mopo_cli.errors import STOP_SIGNALS, InputError, MopoError, NetworkError, SettingsError
from mopo_cli.placing.engine import Resources

_PACKAGE = Path(__file__).parents[1]
_CLIENT = "ray://"
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 20.0
_LOOK_SECONDS, _LOST_SECONDS, _JOIN_SECONDS = 3.0, 15.0, 120.0
_TOKEN = "RAY_AUTH_MODE=token, with the cluster's token in ~/.ray/auth_token, where it has one"
_START = "ray start --head on that machine; ray:// takes the port of Ray's client server, 10001"


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """Ray, connected to this cluster (None: the running one, else one on this machine) until the block ends.

    NetworkError where it cannot be reached, InputError where it runs other versions.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address not in (None, "auto", "local"):
        _check_reachable(address)
    try:
        with warnings.catch_warnings(), _handlers_kept(), _quiet_threads():
            warnings.simplefilter("ignore")
            _join(ray, address)
    except Exception as error:
        ray.shutdown()
        raise sentence(error, address) from error
    # It prints what befalls the cluster to stdout, which is for the result alone.
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), _quiet_threads():
        try:
            yield ray
        finally:
            ray.shutdown()


def check_resources(ray: Any, wanted: Resources) -> None:
    """SettingsError where no node of the cluster has what a job is to get."""
    if wanted.gpus > 1 and wanted.gpus != int(wanted.gpus):
        raise SettingsError(f"--gpus-per-job must be a share of one GPU or a whole number, not {wanted.gpus:g}.")
    if not fitting_nodes(ray, wanted):
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        most = "; ".join(sorted({f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes}))
        raise SettingsError(
            f"A job needs {wanted.cpus} CPUs and {wanted.gpus:g} GPUs, but the nodes of the cluster have {most}.",
            hint="--cpus-per-job, --gpus-per-job",
        )


class Head:
    """The head of the cluster that Ray is connected to, unless that is by Ray's client, which notices its loss."""

    def __init__(self, ray: Any) -> None:
        self._address = None if ray.util.client.ray.is_connected() else ray.get_runtime_context().gcs_address
        self._answered = time.monotonic()

    def check(self) -> None:
        """NetworkError where it has not answered for a while; after a minute Ray would end this process."""
        if self._address is None or _answers(self._address):
            self._answered = time.monotonic()
        elif time.monotonic() - self._answered > _LOST_SECONDS:
            raise lost(self._address)


def lost(address: str | None) -> NetworkError:
    """What to say where a cluster is no longer there."""
    hint = "when it runs again, repeat the command: it continues from what was saved"
    return NetworkError(f"{_named(address)} was lost.", hint)


def is_loss(ray: Any, error: Exception) -> bool:
    """Whether the driver's end of a cluster, or the connection to it, is no longer there."""
    return isinstance(error, ray.exceptions.RayActorError | ConnectionError)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError):
        socket.create_connection((host.strip("[]"), int(port)), _LOOK_SECONDS).close()
        return True
    return False


def fitting_nodes(ray: Any, wanted: Resources) -> dict[str, dict[str, float]]:
    """The nodes of the cluster that have what a job is to get, by their ids, with all that they have."""
    present = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return {name: has for name, has in present.items() if _fits(has, wanted)}


def sentence(error: Exception, address: str | None) -> MopoError:
    """What Ray's exception means to the user."""
    return _meaning(str(error), address) or NetworkError(
        f"{_named(address)} cannot be used: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    )


def _meaning(text: str, address: str | None) -> MopoError | None:
    """What a text of Ray means to the user; None where that is not clear."""
    text = " ".join(text.split())
    if "ersion mismatch" in text:
        versions = [" ".join(pair) for pair in re.findall(r"(Ray|Python)(?: version| is|:)* ([0-9][0-9.]*[0-9])", text)]
        half = len(versions) // 2
        shown = f": {' and '.join(versions[:half])} there, {' and '.join(versions[half:])} here" if half else ""
        return InputError(
            f"{_named(address)} has other versions of Ray or Python than this machine{shown}.",
            hint="install the cluster's versions here: ray --version and python --version on one of its nodes",
        )
    if module := re.search(r"No module named '([\w.]+)'", text):
        return InputError(
            f"A worker lacks the package {module[1]}, which mopo needs.",
            hint="install mopo with its packages on every node",
        )
    if "low on memory" in text:
        return SettingsError("A node of the cluster has too little memory.", hint="fewer --cells-per-job need less")
    if "uthentication token" in text:
        return NetworkError(f"{_named(address)} wants its token.", _TOKEN)
    if "Failed to reconnect" in text:
        return lost(address)
    if "client connection timeout" in text:
        return NetworkError(f"No cluster of Ray answers at {address}.", f"{_START}; {_TOKEN}")
    return None


def _named(address: str | None) -> str:
    return f"The cluster {address}" if address else "The cluster of Ray"


def _join(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": CRITICAL + 1}
    # Workers get this very version; on a cluster of this process they have it.
    shipped = {"py_modules": [str(_PACKAGE)]}
    if address is not None:
        # Where the cluster is lost meanwhile, Ray's client would go on trying forever.
        with _at_most(_JOIN_SECONDS) if address.startswith(_CLIENT) else nullcontext():
            ray.init(address, runtime_env=shipped, **quiet)
        return
    try:
        ray.init("auto", runtime_env=shipped, **quiet)
    except ConnectionError:
        ray.shutdown()
        # Ray's monitor knows nothing of the processes that train and would end its own, also the keeper; the system
        # ends the largest, a job.
        os.environ["RAY_memory_monitor_refresh_ms"] = "0"  # noqa: SIM112 (Ray tells capitals apart)
        ray.init("local", include_dashboard=False, **quiet)


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Signals save and stop a study: Ray would have them end the process."""
    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for signum, handler in before.items():
                signal.signal(signum, handler)


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """Of Ray's client, whose threads end with a traceback where the connection is lost, which is told otherwise."""
    before = threading.excepthook
    threading.excepthook = lambda _: None
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """ConnectionError where the block takes longer; in the main thread alone, of a system that has alarms."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def end(signum: int, frame: object) -> None:
        raise ConnectionError("client connection timeout")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _check_reachable(address: str) -> None:
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or "/" in host or not port.isdigit():
        raise SettingsError(f"{address!r} is no address of a cluster.", hint="--on ray://HOST:10001")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise NetworkError(f"Nothing answers at {address}: {error.strerror or error}.", _START) from error
    if address.startswith(_CLIENT):
        return
    # Ray itself tries for minutes what is no cluster, and then ends this process.
    with suppress(subprocess.TimeoutExpired):
        status = [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address]
        answer = subprocess.run(status, capture_output=True, timeout=_ANSWER_SECONDS)
        if answer.returncode == 0:
            return
        if meaning := _meaning(answer.stderr.decode(errors="replace"), address):
            raise meaning
    raise NetworkError(f"No cluster of Ray answers at {address}.", _START)


def _fits(node: dict[str, float], wanted: Resources) -> bool:
    return node.get("CPU", 0) >= wanted.cpus and node.get("GPU", 0) >= wanted.gpus
