"""Puts a worker's parts together; starts and stops them in a written order."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import Self

from celeriac.backend import Backend
from celeriac.client.app import App
from celeriac.errors import BackendError, BackendUnavailable, BrokerError, ConfigError
from celeriac.quantities import GRACE, or_none, require, whole
from celeriac.wire.preview import counted
from celeriac.worker.assembly import assemble
from celeriac.worker.attachments import Attachments, begin
from celeriac.worker.consumer import LAST_CANCEL, LAST_WORDS, Consumer, tell
from celeriac.worker.insist import Insist
from celeriac.worker.listeners import Listeners
from celeriac.worker.log import Log
from celeriac.worker.pool import Pool
from celeriac.worker.pools.processes import Processes
from celeriac.worker.pools.solo import Solo
from celeriac.worker.pools.threads import Threads
from celeriac.worker.signals import Signals
from celeriac.worker.tally import Counting, Tally

logger = logging.getLogger("celeriac.worker")

DEFAULT_CONCURRENCY = 100
POOLS = ("threads", "processes", "solo")


def _nothing() -> None:
    """Nobody asked to be told."""


class Worker:
    """Runs an app's tasks, coroutines on the event loop and plain functions in a pool.

    ``async with app.worker(): ...`` runs it in the present event loop; ``start()`` and ``stop()`` run it in a thread
    of its own for code without a loop; ``await serve()`` runs until SIGTERM or SIGINT. The block is entered, and
    ``start()`` returns, when the worker holds its queues, which then exist; while the broker is away it goes on trying,
    and they return after the setting ``publish_timeout``. They raise ``BrokerError`` or ``BackendError`` when broker or
    result store refuses.

    :param concurrency: how many tasks run at once. With ``processes`` it is also the number of processes.
    :param queues: the queues to take from; the app's default queue when not given.
    :param name: the node name, ``celeriac@<host>`` when not given; exactly one ``@`` (Celery: node names).
    :param pool: ``threads``, ``processes`` or ``solo``: where plain functions run.
    :param grace: seconds that running tasks have to end after ``stop``; the rest is given back to the queue.
    :param max_tasks_per_child: calls after which a process of the pool is replaced.
    :param max_memory_per_child: KiB of peak memory after which a process of the pool is replaced.
    :param attachments: the listeners and lifespans of the app.
    :param child_log: begins a process of the pool (imports, logging), given the node name; it can be pickled.
    """

    def __init__(
        self,
        app: App,
        *,
        concurrency: int | None = None,
        queues: Sequence[str] | None = None,
        name: str | None = None,
        pool: str = "threads",
        grace: float = 30.0,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        attachments: Attachments | None = None,
        child_log: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._concurrency = _checked_concurrency(concurrency, pool)
        self._queues = _checked_queues(queues) if queues else [app.settings.default_queue]
        self.name = _checked_name(name)
        self._pool_name = pool
        require("grace", grace, GRACE)
        self._grace = grace
        require("max_tasks_per_child", max_tasks_per_child, or_none(whole(1)))
        require("max_memory_per_child", max_memory_per_child, or_none(whole(1)))
        self._max_tasks_per_child = max_tasks_per_child
        self._max_memory_per_child = max_memory_per_child
        self._child_log = child_log
        self._attachments = attachments or Attachments()
        self._lifespans: AsyncExitStack | None = None
        self._pool: Pool | None = None
        self._consumer: Consumer | None = None
        self._running: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._insist = Insist()
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event | None = None
        self.tally = Tally()
        self._listeners = Listeners(())

    async def __aenter__(self) -> Self:
        await self._open()
        try:
            with suppress(TimeoutError):  # the broker is away, and tried again
                async with asyncio.timeout(self._app.settings.publish_timeout):
                    await self.ready()
        except BaseException:
            with suppress(BrokerError, BackendError):  # it is raised already
                await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def concurrency(self) -> int:
        """How many tasks run at once."""
        return self._concurrency

    @property
    def queues(self) -> Sequence[str]:
        """The queues that it takes from."""
        return tuple(self._queues)

    async def ready(self) -> None:
        """Return when the worker holds its queues, however long the broker is away.

        Raises ``BrokerError`` or ``BackendError`` when one refuses it, ``ConfigError`` when the worker was not started.
        """
        if self._consumer is None:
            raise ConfigError(
                f"worker {self.name} does not run; start it with async with, and await ready() inside"
            )
        await self._first_of(self._consumer.ready)

    async def serve(
        self, on_ready: Callable[[], None] = _nothing, on_taken: Callable[[], None] = _nothing
    ) -> None:
        """Work until SIGTERM or SIGINT, then stop gracefully; a second signal gives everything back at once.

        :param on_ready: called once, when the worker holds its queues.
        :param on_taken: called in the event loop each time that messages were taken.
        """
        async with Signals() as signals:
            await self._open(on_taken)
            announcing = asyncio.create_task(self._announce(on_ready))
            await self._first_of(signals.first)
            announcing.cancel()
            at_work = self._at_work()
            grace = f": {counted(at_work, 'task')} may take up to {self._grace:g} s to end" if at_work else ""
            logger.info("stopping%s", grace)
            closing = asyncio.create_task(self._close())
            hurrying = asyncio.create_task(signals.second.wait())
            await asyncio.wait([closing, hurrying], return_when=asyncio.FIRST_COMPLETED)
            if not closing.done():
                self._hurry()
            await closing
            hurrying.cancel()
            await self._app.close()

    def start(self) -> None:
        """Start the worker in a thread of its own and return when it holds its queues.

        While the broker is away it goes on trying, and this returns after the setting ``publish_timeout``. Raises
        ``BrokerError`` when the broker refuses it.
        """
        if self._thread is not None:
            raise ConfigError(f"worker {self.name} is started already")
        began: Future[None] = Future()
        self._over.clear()
        thread = threading.Thread(target=self._work_in_thread, args=(began,), name=self.name, daemon=True)
        thread.start()
        done, _ = wait([began], timeout=self._app.settings.publish_timeout)
        if done:
            began.result()
        self._thread = thread

    def stop(self) -> None:
        """Stop the worker that ``start`` started, gracefully; return when it has stopped."""
        if self._thread is None or self._loop is None or self._stop_asked is None:
            raise ConfigError(f"worker {self.name} was not started with start()")
        with suppress(RuntimeError):  # it has ended by itself, and its loop with it
            self._loop.call_soon_threadsafe(self._stop_asked.set)
        self._over.wait()
        self._thread.join(LAST_CANCEL)  # a coroutine that refuses to be cancelled would hold it up for ever
        self._thread = None

    async def _first_of(self, signal: asyncio.Event) -> None:
        """Return when the signal came; raise what ended the intake, should that end by itself."""
        assert self._running is not None
        waiting = asyncio.create_task(signal.wait())
        try:
            await asyncio.wait([waiting, self._running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._running.done():
            await self._running

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        with suppress(BrokerError, BackendError):  # `serve` raises it
            await self.ready()
            on_ready()

    async def _open(self, on_taken: Callable[[], None] = _nothing) -> None:
        self._listeners = Listeners([Counting(self.tally), Log(), *self._attachments.listeners])
        self._listeners.worker_starting(self.name)
        self._lifespans, state = await begin(self._attachments.lifespans)
        connections = self._app.connections()
        self._pool = self._make_pool()
        parts = assemble(
            self._app,
            connections,
            self._pool,
            self._concurrency,
            self._queues,
            self._insist,
            self._listeners,
            self.name,
            state,
            on_taken,
        )
        consumer, bodies, revocations = parts.consumer, parts.bodies, parts.revocations
        self._consumer = consumer
        self._running = asyncio.create_task(self._take_in(consumer, connections.backend))
        self._watching = asyncio.create_task(
            revocations.watch(bodies.is_busy, lambda: bodies.stop_revoked(revocations.revoked))
        )

    async def _take_in(self, consumer: Consumer, backend: Backend) -> None:
        """Take in messages until the stop, once the result store was looked at.

        A store that is away is waited for by each result; one that refuses would take none, ever.
        """
        with suppress(BackendUnavailable):
            tell(await backend.examine())
        await consumer.run()

    async def _close(self) -> None:
        if self._consumer is None or self._running is None or self._watching is None or self._pool is None:
            return
        self._listeners.worker_stopping(self.name)
        giving_up = asyncio.get_running_loop().call_later(self._grace, self._insist.give_up_in, LAST_WORDS)
        await self._consumer.stop()
        await asyncio.wait([self._running])
        given_back = await self._consumer.finish(self._grace)
        if given_back:
            logger.warning("%s did not end in time and went back to the queue", counted(given_back, "task"))
        giving_up.cancel()
        self._watching.cancel()
        await self._pool.close()
        self._consumer = None
        if self._lifespans is not None:
            await self._lifespans.aclose()
        self._listeners.worker_stopped(self.name)
        await self._running  # raises what ended the intake, should that have ended by itself

    def _hurry(self) -> None:
        if self._consumer is not None:
            logger.warning("second signal: giving %s back", counted(self._at_work(), "task"))
            self._insist.give_up_in(LAST_WORDS)
            self._consumer.hurry()

    def _at_work(self) -> int:
        return self._consumer.attempts if self._consumer is not None else 0

    def _make_pool(self) -> Pool:
        if self._pool_name == "processes":
            return Processes(
                self._app.tasks,
                max_tasks=self._max_tasks_per_child,
                max_memory=self._max_memory_per_child,
                places=(self._app.broker_url, self._app.backend_url),
                begin=partial(self._child_log, self.name) if self._child_log else None,
            )
        if self._pool_name == "solo":
            return Solo()
        return Threads(self._concurrency)

    def _work_in_thread(self, began: Future[None]) -> None:
        try:
            asyncio.run(self._work_until_asked(began))
        except BaseException as error:
            if began.done():
                raise
            began.set_exception(error)
        finally:
            self._over.set()

    async def _work_until_asked(self, began: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked = asyncio.Event()
        async with self:
            announcing = asyncio.create_task(self._announce(partial(began.set_result, None)))
            await self._first_of(self._stop_asked)
            announcing.cancel()
        await self._app.close()
        self._over.set()


def _checked_concurrency(concurrency: int | None, pool: str) -> int:
    if pool not in POOLS:
        raise ConfigError(f"pool {pool!r} is not known; choose one of {', '.join(POOLS)}")
    if concurrency is None:
        return (os.cpu_count() or 1) if pool == "processes" else DEFAULT_CONCURRENCY
    require("concurrency", concurrency, whole(1))
    return concurrency


def _checked_queues(queues: Sequence[str]) -> list[str]:
    if (
        not isinstance(queues, Iterable)
        or isinstance(queues, str)
        or not all(isinstance(name, str) and name for name in queues)
    ):
        raise ConfigError(f"queues={queues!r}: give a list of names, such as ['fast', 'slow']")
    return list(queues)


def _checked_name(name: str | None) -> str:
    host = socket.gethostname()
    if not name:
        return f"celeriac@{host}"
    # Celery's short forms: %h the full name, %n the part before the first dot, %d the rest.
    first, _, domain = host.partition(".")
    full = name.replace("%h", host).replace("%n", first).replace("%d", domain)
    if "@" not in full:
        full = f"{full}@{host}"
    if full.count("@") != 1:
        raise ConfigError(f"node name {full!r} needs exactly one '@', as in worker1@{host}")
    return full
