"""`--on ray`: jobs as tasks of a Ray cluster, whose results and checkpoints come back into the run's folder."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mopo_cli.errors import InputError, MopoError
from mopo_cli.placing.board import Board
from mopo_cli.placing.engine import ATTEMPTS, FINAL, Engine, Resources, first_line, job_folder, killed
from mopo_cli.placing.parcels import kept, unpack
from mopo_cli.placing.ray_cluster import (
    Head,
    check_resources,
    fitting_nodes,
    is_loss,
    joined,
    lost,
    sentence,
)
from mopo_cli.placing.ray_keeper import Keeper, News
from mopo_cli.placing.ray_node import Outcome, Task, carry_out
from mopo_cli.store.atomic import read_json
from mopo_cli.store.files import check_file
from mopo_cli.store.packages import require_package

_POLL_SECONDS = 1.0
_STOP_SECONDS = 15.0
_IDLE_SECONDS = 300.0
_NODE = "ray.io/node-id"  # a label that Ray gives each node
_UNFIT = "repair or remove that node, then run the same command again"


@dataclass
class Ray(Engine):
    """Carries jobs out on the cluster at ``address``; None: on the one that runs here, else on this machine."""

    address: str | None
    resources: Resources
    _placed: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        require_package("--on ray", "ray")

    def place(self, files: Sequence[Path], board: Board, should_stop: Callable[[], bool]) -> None:
        """See `Engine.place`. SettingsError where no node has the resources, NetworkError where the cluster is lost."""
        with joined(self.address) as ray:
            check_resources(ray, self.resources)
            if not (self.resources.gpus or self._placed) and ray.cluster_resources().get("GPU"):
                board.note("The cluster has GPUs, which these jobs do not use: --gpus-per-job 1 gives each job one.")
            self._placed = True
            try:
                _Study(ray, self.resources, files, board).carry_out(should_stop)
            except (ray.exceptions.RayError, ConnectionError) as error:
                raise (lost(self.address) if is_loss(ray, error) else sentence(error, self.address)) from error


@dataclass
class _Attempts:
    """Of one job: how many there were, and how many failed since its last checkpoint."""

    begun: int = 0
    failed: int = 0


class _Study:
    """The jobs of one call of `place`."""

    def __init__(self, ray: Any, resources: Resources, files: Sequence[Path], board: Board) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._resources, self._board = ray, resources, board
        self._files = {file.stem: file for file in files}
        self._attempts = {name: _Attempts() for name in self._files}
        self._inputs: dict[str, Any] = {}
        self._tasks: dict[Any, str] = {}
        self._idle_since, self._stopping = time.monotonic(), False
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._keeper = ray.remote(num_cpus=0, scheduling_strategy=here)(Keeper).remote()
        self._remote = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0)(carry_out)
        self._unfit: dict[str, str] = {}
        self._head = Head(ray)

    def carry_out(self, should_stop: Callable[[], bool]) -> None:
        """Carry all out. Once it is to stop, or the cluster turns out to be unfit, what runs saves first."""
        for name in self._files:
            self._begin(name)
        try:
            while self._tasks and not should_stop():
                self._turn()
                self._head.check()
                self._check_nodes()
        except MopoError:
            self._stop()
            raise
        if self._tasks:
            self._stop()

    def _begin(self, name: str) -> None:
        """Hand a job to the cluster, which carries it out when there is room."""
        file, attempts = self._files[name], self._attempts[name]
        attempts.begun += 1
        job = read_json(file)
        inputs = {one["sha256"]: self._content(one) for one in job["inputs"].values()}
        task = Task(name, attempts.begun, job, inputs, kept(job_folder(file)))
        elsewhere = {_NODE: f"!in({','.join(self._unfit)})"} if self._unfit else None
        memory = job.get("memory", 0)
        # What no node has room for is none the less begun, and says so itself.
        nodes = fitting_nodes(self._ray, self._resources)
        rooms = [has.get("memory", 0) for node, has in nodes.items() if node not in self._unfit]
        options = {"label_selector": elsewhere, "memory": memory if memory <= max(rooms, default=0) else 0}
        self._tasks[self._remote.options(**options).remote(task, self._keeper)] = name

    def _content(self, file: dict[str, str]) -> Any:
        """An input in the cluster's store, into which it is put once."""
        digest = file["sha256"]
        if digest not in self._inputs:
            path = Path(file["path"])
            check_file(path)
            self._inputs[digest] = self._ray.put(np.fromfile(path, np.uint8))
        return self._inputs[digest]

    def _turn(self) -> None:
        tasks = list(self._tasks)
        ended, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=_POLL_SECONDS)
        every = self._ray.get(self._keeper.take.remote())
        for name, news in every.items():
            if news.kept and self._is_present(name, news):
                unpack(news.kept, job_folder(self._files[name]))
                self._attempts[name].failed = 0
        for task in ended:
            self._settle(self._tasks.pop(task), task)
        for name, news in every.items():  # after those that made room for them
            if self._is_present(name, news):
                self._board.change(name, "running", news.where, news.epoch, news.value)

    def _is_present(self, name: str, news: News) -> bool:
        return name in self._tasks.values() and news.attempt == self._attempts[name].begun

    def _settle(self, name: str, task: Any) -> None:
        """Take what a task brought: results, or a failure."""
        try:
            outcome: Outcome = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            self._again(name, _loss(self._ray, error))
            return
        if outcome.unfit and not self._stopping:
            self._unfit[outcome.node] = f"The worker {outcome.where} cannot carry out jobs: {outcome.unfit}."
            self._check_fit()
            self._board.change(name, "waiting", outcome.where, why=self._unfit[outcome.node])
            self._begin(name)
        elif outcome.results is not None:
            folder = job_folder(self._files[name])
            unpack(outcome.results, folder)
            shutil.rmtree(folder / ".state", ignore_errors=True)
            self._board.change(name, "done", outcome.where)
        elif outcome.code in FINAL:
            self._board.change(name, "failed", outcome.where, why=first_line(outcome.text))
        else:
            self._again(name, _end(outcome))

    def _check_fit(self) -> None:
        """InputError where all nodes that have the resources turned out to be unfit."""
        if self._unfit and self._unfit.keys() >= fitting_nodes(self._ray, self._resources).keys():
            raise InputError(list(self._unfit.values())[-1], _UNFIT)

    def _again(self, name: str, why: str) -> None:
        if self._stopping:
            self._board.change(name, "waiting")
            return
        attempts = self._attempts[name]
        attempts.failed += 1
        if attempts.failed >= ATTEMPTS:
            self._board.change(name, "failed", why=f"{why} ({ATTEMPTS} times without progress)")
            return
        self._board.change(name, "waiting", why=why)
        self._begin(name)

    def _check_nodes(self) -> None:
        """MopoError where nothing has run for minutes and no node of the cluster could run a job."""
        if self._board.count("running"):
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since > _IDLE_SECONDS:
            check_resources(self._ray, self._resources)
            self._check_fit()
            self._idle_since = time.monotonic()
            # What waits may be waiting for a node, or its memory, that is no longer there.
            for task in list(self._tasks):
                self._ray.cancel(task)
                self._begin(self._tasks.pop(task))

    def _stop(self) -> None:
        """Have what runs save, and take what it keeps."""
        self._stopping, end = True, time.monotonic() + _STOP_SECONDS
        with suppress(self._ray.exceptions.RayError, MopoError):
            self._keeper.stop.remote()
            while time.monotonic() < end and any(map(self._runs, self._tasks.values())):
                self._turn()

    def _runs(self, name: str) -> bool:
        return self._board.lines[name].state == "running"


def _loss(ray: Any, error: Exception) -> str:
    """Why a task ended without an outcome. MopoError where all tasks would."""
    kinds = ray.exceptions
    if isinstance(error, kinds.OutOfMemoryError):
        return "its node had not enough memory: fewer --cells-per-job need less"
    if isinstance(error, kinds.NodeDiedError | kinds.WorkerCrashedError | kinds.ObjectLostError):
        return "its node was lost"
    if isinstance(error, kinds.RuntimeEnvSetupError) or "No module named" in str(error):
        raise sentence(error, None)
    return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"


def _end(outcome: Outcome) -> str:
    if outcome.code < 0:
        return killed(-outcome.code)
    return first_line(outcome.text)
