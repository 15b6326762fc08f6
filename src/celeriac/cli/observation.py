"""What a worker shows of itself: probes and metrics.

Rules: it begins before the app is imported, so that a probe is answered while the import takes its time, and ends after
the worker.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from celeriac.celeriac import Celeriac
from celeriac.cli.shown import Shown
from celeriac.client.app import App
from celeriac.errors import CeleriacError
from celeriac.metrics.counts import Snapshot
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.family import SNAPSHOT_PATH, FamilyMetrics
from celeriac.metrics.page import MetricsPage
from celeriac.metrics.process import ProcessMetrics
from celeriac.metrics.queues import QueueReader
from celeriac.probes.asking import Asking
from celeriac.probes.family import Family
from celeriac.probes.health import Health, HealthListener, Pulse
from celeriac.probes.heartbeat import HeartbeatFile, HeartbeatThread
from celeriac.probes.pages import Address, Page, Pages, PageServer
from celeriac.servers.disabled import DisabledBackend
from celeriac.worker.attachments import Attachments, begin
from celeriac.worker.listeners import Listener
from celeriac.worker.worker import Worker

T = TypeVar("T")

METRICS_PATH = "/metrics"

ASK_STORE = 5.0
"""Seconds between two questions to the result store, whether it answers."""


class Observation:
    """What one process shows while the block lasts: a worker, or another program of an app.

    :ivar health: whether it lives and is ready.

    Raises ``ConfigError`` for an address that is taken, and where metrics are asked for and cannot be made.
    """

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._until_the_end = ExitStack()
        self._file = HeartbeatFile(shown.heartbeat_file) if shown.heartbeat_file else None
        self.health = Health(Pulse(self._file.beat if self._file else None), shown.live_after)
        self._backend = Asking(ASK_STORE, ASK_STORE)
        self._process: ProcessMetrics | None = None
        self._metrics = _metrics_page(shown, self._snapshot) if shown.wants_metrics else None

    def __enter__(self) -> Self:
        if self._file is not None:
            self._until_the_end.callback(self._file.remove)
        pages = dict(self.health.pages())
        if self._shown.one_of_many:
            pages[SNAPSHOT_PATH] = lambda: Page(
                200, msgspec.json.encode(self._snapshot()), "application/json"
            )
        _serve(self._shown, pages, self._metrics, self._until_the_end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_the_end.close()

    def attachments(self, app: App, own: Attachments | None) -> Attachments | None:
        """Return what the worker of an app is to have: what the app attaches, and what observes the worker."""
        if not self._shown.anything:
            return own
        joined = Attachments()
        if own is not None:
            joined.workers = own.workers
        joined.listen(HealthListener(self.health))

        async def health() -> AsyncIterator[None]:
            async for _ in self.health.lifespan(lambda: app.connections().broker):
                yield

        joined.live(health)
        if self._metrics is not None or self._shown.one_of_many:
            self._count(app, joined)
            self._ask_store(app, joined)
        if own is not None:
            joined.listeners += own.listeners
            joined.lifespans += own.lifespans
            joined.child_lifespans += own.child_lifespans
        return joined

    @asynccontextmanager
    async def beside(self, app: App) -> AsyncIterator[None]:
        """Observe a program of an app that has no worker, while the block lasts."""
        observing = self.attachments(app, None)
        begun, _ = await begin(() if observing is None else observing.lifespans)
        async with begun:
            yield

    def follow(self, worker: Worker) -> None:
        """Look at this worker's queues, and whether it takes from them."""
        self.health.queues = lambda: worker.queues
        self.health.is_dead = lambda: worker.has_ended

    def _count(self, app: App, joined: Attachments) -> None:
        """Let the metrics count what the app's worker does and what the app sends."""
        process = ProcessMetrics(
            app.tasks,
            app.clock,
            joined.workers,
            lambda: app.connections().broker,
            self._shown.metrics_hostname,
        )
        process.lag = lambda: self.health.pulse.lag
        process.broker_up = lambda: self.health.broker_answers
        process.backend_up = lambda: self._backend.answers
        if isinstance(app, Celeriac):
            process.schedule_lag = lambda: app.schedules.lag
        for listener in process.listeners:
            if isinstance(listener, Listener):
                joined.listen(listener)
            else:
                app.send_listeners.add(listener)
        self._process = process
        page = self._metrics
        if page is None:
            return
        reader = page.reader = QueueReader(lambda: app.connections().broker, process.queues)

        async def asking() -> AsyncIterator[None]:
            page.loop = asyncio.get_running_loop()
            yield
            page.loop = None
            with suppress(CeleriacError):  # the lease ends by itself
                await reader.release()

        joined.live(asking)

    def _ask_store(self, app: App, joined: Attachments) -> None:
        """Let the result store, if there is one, be asked whether it answers."""

        async def asking() -> AsyncIterator[None]:
            backend = app.connections().backend
            if isinstance(backend, DisabledBackend):
                yield
                return
            task = asyncio.create_task(self._backend.run(backend.ping), name="celeriac-store-probe")
            try:
                yield
            finally:
                task.cancel()
                await asyncio.wait([task])

        joined.live(asking)

    def _snapshot(self) -> Snapshot:
        return Snapshot("") if self._process is None else self._process.snapshot()


class FamilyObservation:
    """What the supervisor of several worker processes shows while the block lasts.

    :param number: of the processes.
    """

    def __init__(self, shown: Shown, number: int) -> None:
        self._shown = shown
        self._number = number
        self._until_the_end = ExitStack()
        self._file = HeartbeatFile(shown.heartbeat_file) if shown.heartbeat_file else None
        self._metrics: MetricsPage | None = None

    def __enter__(self) -> Self:
        self.options: Sequence[Sequence[str]] = [()] * self._number
        """The options that each process needs."""
        if not self._shown.anything:
            return self
        directory = self._until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-"))
        sockets = [str(Path(directory, f"{number}")) for number in range(1, self._number + 1)]
        family = Family(sockets)
        if self._shown.wants_metrics:
            host = self._shown.metrics_hostname or socket.gethostname()
            self._metrics = _metrics_page(self._shown, FamilyMetrics(sockets, host).snapshot)
        _serve(self._shown, family.pages(), self._metrics, self._until_the_end)
        if self._file is not None:
            thread = HeartbeatThread(self._file, lambda: family.live().good)
            thread.start()
            self._until_the_end.callback(self._file.remove)
            self._until_the_end.callback(thread.close)
        self.options = [self._options(path) for path in sockets]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._until_the_end.close()

    async def around(self, app: App, work: Coroutine[Any, Any, T]) -> T:
        """Await the supervisor's work, while the metrics can ask the app's broker."""
        page = self._metrics
        if page is not None:
            page.loop = asyncio.get_running_loop()
            page.reader = QueueReader(lambda: app.connections().broker)
        try:
            return await work
        finally:
            if page is not None:
                page.loop = None
                await app.close()

    def _options(self, path: str) -> Sequence[str]:
        counts = ("--one-of-many",) if self._metrics is not None else ()
        return ("--probe-socket", path, "--live-after", f"{self._shown.live_after:g}", *counts)


def _metrics_page(shown: Shown, snapshot: Callable[[], Snapshot]) -> MetricsPage | None:
    """Return the page, ``None`` where it is only asked for as a page beside probes, and cannot be made."""
    if shown.metrics_port is None and find_spec("prometheus_client") is None:
        return None
    exposition = Exposition(shown.metrics_prefix)
    return MetricsPage(lambda numbers: exposition.text(snapshot(), numbers))


def _serve(shown: Shown, probes: Pages, metrics: MetricsPage | None, until_the_end: ExitStack) -> None:
    served: list[tuple[Address, dict[str, Any]]] = []
    if shown.metrics_port is not None and metrics is not None and shown.metrics_port != shown.probe_port:
        served.append((shown.metrics_port, {METRICS_PATH: metrics.page}))
        beside: Pages = {}
    else:
        beside = {} if metrics is None else {METRICS_PATH: metrics.page}
    if shown.probe_port is not None:
        served.append((shown.probe_port, {**probes, **beside}))
    if shown.probe_socket is not None:
        served.append((Address(path=shown.probe_socket), {**probes, **beside}))
    for address, pages in served:
        server = PageServer(address.listen(), pages)
        server.start()
        until_the_end.callback(server.close)
