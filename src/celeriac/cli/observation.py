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
from celeriac.probes.address import Address
from celeriac.probes.answering import pages_of
from celeriac.probes.asking import Asking
from celeriac.probes.facts import FactsFile
from celeriac.probes.family import Family
from celeriac.probes.health import Health, HealthListener, Pulse
from celeriac.probes.heartbeat import HeartbeatFile, HeartbeatThread
from celeriac.probes.pages import Pages, PageServer
from celeriac.probes.serving import Page
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
        self._facts: FactsFile | None = None
        self.health = Health(Pulse(self._beat), shown.live_after)
        self.health.on_change = self._tell
        self._backend = Asking(ASK_STORE, ASK_STORE)
        self._process: ProcessMetrics | None = None
        self._metrics = _metrics_page(shown, self._snapshot) if shown.wants_metrics else None

    def __enter__(self) -> Self:
        if self._file is not None:
            self._until_the_end.callback(self._file.remove)
        try:
            self._facts = _facts_of(self._shown, self._until_the_end)
            self._tell()
            _serve(self._shown, pages_of(self.health.facts), self._metrics, self._facts, self._until_the_end)
            if self._shown.snapshot_socket is not None:
                self._serve_snapshots(self._shown.snapshot_socket)
        except BaseException:
            self._until_the_end.close()
            raise
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
        if self._metrics is not None or self._shown.snapshot_socket is not None:
            self._count(app, joined)
            self._ask_store(app, joined)
        if own is not None:
            joined.listeners += own.listeners
            joined.lifespans += own.lifespans
            joined.child_lifespans += own.child_lifespans
            joined.log = own.log
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

    def _beat(self) -> None:
        if self._file is not None:
            self._file.beat()
        self._tell()

    def _tell(self) -> None:
        """Note the facts where a process that answers probes, or a supervisor, reads them."""
        if self._facts is not None:
            self._facts.write(self.health.facts())

    def _serve_snapshots(self, path: str) -> None:
        def snapshot() -> Page:
            return Page(200, msgspec.json.encode(self._snapshot()), "application/json")

        server = PageServer(Address(path=path).listen(), {SNAPSHOT_PATH: snapshot})
        server.start()
        self._until_the_end.callback(server.close)

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
        self.options: list[Sequence[str]] = [()] * self._number
        """The options that each process needs."""
        if not self._shown.anything:
            return self
        try:
            self._show()
        except BaseException:
            self._until_the_end.close()
            raise
        return self

    def _show(self) -> None:
        directory = self._until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="celeriac-"))
        paths = [Path(directory, f"{number}") for number in range(1, self._number + 1)]
        family = Family([self._open_facts(path) for path in paths])
        sockets = [f"{path}.socket" for path in paths]
        if self._shown.wants_metrics:
            host = self._shown.metrics_hostname or socket.gethostname()
            self._metrics = _metrics_page(self._shown, FamilyMetrics(sockets, host).snapshot)
        _serve(self._shown, family.pages(), self._metrics, None, self._until_the_end)
        if self._file is not None:
            thread = HeartbeatThread(self._file, lambda: family.live().good)
            thread.start()
            self._until_the_end.callback(self._file.remove)
            self._until_the_end.callback(thread.close)
        for number, path in enumerate(paths):
            counts = () if self._metrics is None else ("--snapshot-socket", sockets[number])
            live_after = f"{self._shown.live_after:g}"
            self.options[number] = ("--facts-file", str(path), "--live-after", live_after, *counts)

    def _open_facts(self, path: Path) -> FactsFile:
        facts = FactsFile.open(str(path))
        self._until_the_end.callback(facts.close)
        return facts

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


def _metrics_page(shown: Shown, snapshot: Callable[[], Snapshot]) -> MetricsPage | None:
    """Return the page, ``None`` where it is only asked for as a page beside probes, and cannot be made."""
    if shown.metrics_port is None and find_spec("prometheus_client") is None:
        return None
    exposition = Exposition(shown.metrics_prefix)
    return MetricsPage(lambda numbers: exposition.text(snapshot(), numbers))


def _facts_of(shown: Shown, until_the_end: ExitStack) -> FactsFile | None:
    """Return where facts are noted; ``None`` where nobody reads them."""
    if shown.facts_file is not None:
        facts = FactsFile.open(shown.facts_file)
    elif shown.probe_port is not None or shown.probe_socket is not None:
        facts = FactsFile.make()
    else:
        return None
    until_the_end.callback(facts.close)
    return facts


def _serve(
    shown: Shown,
    probes: Pages,
    metrics: MetricsPage | None,
    facts: FactsFile | None,
    until_the_end: ExitStack,
) -> None:
    served: list[PageServer] = []
    if shown.metrics_port is not None and metrics is not None and shown.metrics_port != shown.probe_port:
        served.append(PageServer(shown.metrics_port.listen(), {METRICS_PATH: metrics.page}))
        beside: Pages = {}
    else:
        beside = {} if metrics is None else {METRICS_PATH: metrics.page}
    if shown.probe_port is not None:
        served.append(PageServer(shown.probe_port.listen(), {**probes, **beside}, facts))
    if shown.probe_socket is not None:
        address = Address(path=shown.probe_socket)
        served.append(PageServer(address.listen(), {**probes, **beside}, facts))
    for server in served:
        server.start()
        until_the_end.callback(server.close)
