"""Puts a worker's parts together; starts and stops them in a written order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from functools import partial
from signal import Signals as Signal
from types import TracebackType
from typing import Any, Self, TypeVar

from celeriac.client.app import App
from celeriac.contracts.backend import Backend
from celeriac.errors import BackendError, BackendUnavailable, BrokerError, ConfigError
from celeriac.quantities import GRACE, or_none, require, whole
from celeriac.wire.preview import counted
from celeriac.worker.assembly import assemble
from celeriac.worker.attachments import Attachments, begin
from celeriac.worker.autoscaling import Autoscaler
from celeriac.worker.consumer import Consumer, StopTimes, tell
from celeriac.worker.events.events import Events
from celeriac.worker.garbage import Collecting
from celeriac.worker.insist import Insist
from celeriac.worker.listeners import Listeners
from celeriac.worker.logical_clock import LogicalClock
from celeriac.worker.options import checked_concurrency, checked_name, checked_queues
from celeriac.worker.own_thread import OwnThread
from celeriac.worker.panel import make_remote
from celeriac.worker.pool import Pool
from celeriac.worker.pools.choice import PoolChoice
from celeriac.worker.remote import Remote
from celeriac.worker.scaling import Scaling
from celeriac.worker.signals import Signals, Stop
from celeriac.worker.slots import Slots
from celeriac.worker.steering import Ending
from celeriac.worker.tally import Counting, Tally

logger = logging.getLogger("celeriac.worker")

T = TypeVar("T")

WITHOUT_LIMIT = 30 * 86400.0
"""Seconds after which results that cannot be stored are given up when the worker stops without a limit."""

HEARING = 2.0
"""Seconds after which a worker that holds its queues counts as ready, though requests are not heard yet."""


def _nothing() -> None:
    """Stand in for a callback that was not given."""


class Worker:
    """Runs an app's tasks, coroutines on the event loop and plain functions in a pool.

    ``async with app.worker(): ...`` runs it in the present event loop; ``start()`` and ``stop()`` run it in a thread
    of its own for code without a loop; ``await serve()`` runs until SIGTERM or SIGINT. The block is entered, and
    ``start()`` returns, when the worker holds its queues, which then exist; while the broker is away it goes on trying,
    and they return after the setting ``publish_timeout``. They raise ``BrokerError`` or ``BackendError`` when broker or
    result store refuses.

    :param concurrency: how many tasks run at once. With ``processes`` it is also the number of processes.
    :param autoscale: the least tasks at once; their number then follows what there is to do, up to ``concurrency``.
    :param queues: the queues to take from; the app's default queue when not given.
    :param own_queue: returns for a node name the queue of that worker alone, which it takes from too.
    :param name: the node name, ``celeriac@<host>`` when not given; exactly one ``@`` (Celery: node names).
    :param pool: ``threads``, ``processes`` or ``solo``: where plain functions run; or a pool of your own.
    :param grace: seconds that running tasks have to end after ``stop``; the rest is given back to the queue. ``None``
        waits for them however long they take.
    :param last_grace: seconds that they have after the second signal.
    :param quick_signals: signals that count as the first and the second at once.
    :param max_tasks_per_child: calls after which a process of the pool is replaced.
    :param max_memory_per_child: KiB of peak memory after which a process of the pool is replaced.
    :param start_method: how processes of the pool start. ``forkserver``: one process imports the app, and they are
        forked from it; ``spawn``: each is a program of its own, as it is on macOS when nothing is given.
    :param collect: collect cyclic garbage seldom, and whenever memory has grown, while the worker runs; only where the
        program left that to the interpreter.
    :param fill_pool: start all processes of the pool before messages are taken, not each when it is first needed.
    :param send_events: tell monitors of every task from the start (Celery: ``-E``); the app's setting if not given.
    :param heartbeats: tell monitors every 2 seconds that the worker lives (Celery: ``--without-heartbeat``).
    :param attachments: the listeners and lifespans of the app.
    :param stop_times: what it waits for once the grace is over.
    :param child_log: begins a process of the pool (imports, logging), given the node name; it can be pickled.
    """

    def __init__(
        self,
        app: App,
        *,
        concurrency: int | None = None,
        autoscale: int | None = None,
        queues: Sequence[str] | None = None,
        own_queue: Callable[[str], str] | None = None,
        name: str | None = None,
        pool: str | Pool = "threads",
        grace: float | None = 30.0,
        last_grace: float = 0.0,
        quick_signals: Collection[Signal] = (),
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        start_method: str | None = None,
        collect: bool = True,
        fill_pool: bool = False,
        send_events: bool | None = None,
        heartbeats: bool = True,
        attachments: Attachments | None = None,
        stop_times: StopTimes = StopTimes(),  # noqa: B008 - it has no state
        child_log: Callable[[str], None] | None = None,
    ) -> None:
        self._app = app
        self._most = checked_concurrency(concurrency, pool)
        require("autoscale", autoscale, or_none(whole(0)))
        self._concurrency = self._most if autoscale is None else min(max(autoscale, 1), self._most)
        self._scales = autoscale is not None
        self._queues = checked_queues(queues) if queues else [app.settings.default_queue]
        self.name = checked_name(name)
        if own_queue is not None:
            self._queues.append(own_queue(self.name))
        require("grace", grace, or_none(GRACE))
        require("last_grace", last_grace, GRACE)
        self._grace = grace
        self._last_grace = last_grace
        self._stop_times = stop_times
        self._quick_signals = quick_signals
        begin_child = partial(child_log, self.name) if child_log else None
        self._choice = PoolChoice(
            pool, max_tasks_per_child, max_memory_per_child, start_method, begin_child, collect, fill_pool
        )
        self._attachments = attachments or Attachments()
        self._lifespans: AsyncExitStack | None = None
        self._pool: Pool | None = None
        self._consumer: Consumer | None = None
        self._running: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._insist = Insist()
        self.slots: Slots | None = None
        self._thread: OwnThread | None = None
        self._home: asyncio.AbstractEventLoop | None = None
        self._collects = collect
        self._collecting: Collecting | None = None
        self.tally = Tally()
        self.stopped_by: Stop | None = None
        self._listeners = Listeners(())
        self._ending = Ending()
        self._says = (app.settings.send_events if send_events is None else send_events, heartbeats)
        self.events: Events | None = None
        self._remote: Remote | None = None
        self._answering: asyncio.Task[None] | None = None
        self._autoscaler: Autoscaler | None = None

    async def __aenter__(self) -> Self:
        await self._open()
        try:
            with suppress(TimeoutError):  # the broker is away; the worker goes on trying
                async with asyncio.timeout(self._app.settings.publish_timeout):
                    await self.ready()
        except BaseException:
            with suppress(BrokerError, BackendError):  # the same error is being raised already
                await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    @property
    def concurrency(self) -> int:
        """How many tasks run at once; see ``grow`` and ``shrink``."""
        return self._concurrency

    @property
    def pool(self) -> str:
        """The name of the pool that runs plain functions; of a pool of your own, that of its class."""
        return self._choice.title

    @property
    def queues(self) -> Sequence[str]:
        """The queues that it takes from; see ``add_queue`` and ``drop_queue``."""
        return tuple(self._queues)

    def take_from(self, queues: Sequence[str]) -> None:
        """Take from these queues in place of those it was made with; for ``worker_starting`` of a listener.

        Raises ``ConfigError`` for what are no names.
        """
        self._queues[:] = checked_queues(queues)

    @property
    def has_ended(self) -> bool:
        """Whether it takes no more messages: it was stopped, or broker or result store refused it."""
        return self._running is not None and self._running.done()

    @property
    def _patience(self) -> str:
        return "as long as it needs" if self._grace is None else f"up to {self._grace:g} s to end"

    async def ready(self) -> None:
        """Return when the worker holds its queues, however long the broker is away.

        Raises ``BrokerError`` or ``BackendError`` when one refuses it, ``ConfigError`` when the worker was not started.
        """
        if self._consumer is None:
            raise ConfigError(
                f"worker {self.name} does not run; start it with async with, and await ready() inside"
            )
        await self._first_of(self._consumer.ready)
        if self._remote is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARING):
                    await self._remote.ready()

    async def serve(self, on_ready: Callable[[], None] = _nothing) -> None:
        """Work until SIGTERM or SIGINT, then stop gracefully; a second signal gives everything back at once.

        :param on_ready: called once, when the worker holds its queues.
        """
        async with Signals(quick=self._quick_signals) as signals:
            self._ending.asked = signals.first
            await self._open()
            announcing = asyncio.create_task(_announce(self, on_ready))
            await self._first_of(signals.first)
            announcing.cancel()
            self.stopped_by = signals.stop
            at_work = self._consumer.attempts if self._consumer is not None else 0
            logger.info(
                "stopping%s", f": {counted(at_work, 'task')} may take {self._patience}" if at_work else ""
            )
            closing = asyncio.create_task(self._close())
            hurrying = asyncio.create_task(signals.second.wait())
            await asyncio.wait([closing, hurrying], return_when=asyncio.FIRST_COMPLETED)
            if not closing.done():
                self._listeners.worker_hurrying(self.name, self._last_grace)
            if not closing.done() and self._last_grace:
                logger.warning("second signal: what runs may take %g s more", self._last_grace)
                await asyncio.wait([closing], timeout=self._last_grace)
            if not closing.done() and self._consumer is not None:
                at_work = self._consumer.attempts
                logger.warning("second signal: giving %s back", counted(at_work, "task"))
                self._insist.give_up_in(self._stop_times.landing)
                self._consumer.hurry()
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
        thread = OwnThread(self.name, self._work_until_asked)
        thread.start(self._app.settings.publish_timeout)
        self._thread = thread

    def stop(self) -> None:
        """Stop the worker that ``start`` started, gracefully; return when it has stopped."""
        if self._thread is None:
            raise ConfigError(f"worker {self.name} was not started with start()")
        self._thread.stop()
        self._thread = None

    async def add_queue(self, queue: str) -> None:
        """Take from this queue too, from now on (Celery: ``add_consumer``).

        This, and the other methods that change a running worker, may be awaited in any event loop. Raises
        ``BrokerError`` where the broker refuses, ``ConfigError`` for a bad name, or if the worker does not run; then
        nothing has changed.
        """
        checked_queues([queue])
        await self._at_home(lambda consumer: consumer.add_queue(queue))

    async def drop_queue(self, queue: str) -> None:
        """Stop taking from this queue (Celery: ``cancel_consumer``); messages that were taken from it run on.

        A queue that the worker does not take from is ignored. Raises ``BrokerUnavailable`` if messages that the worker
        holds ready could not be given back now: they run here, or return to the queue when their lease ends. Raises
        ``ConfigError`` as ``add_queue``.
        """
        await self._at_home(lambda consumer: consumer.drop_queue(queue))

    async def grow(self, by: int = 1) -> int:
        """Run ``by`` more tasks at once (Celery: ``pool_grow``); return how many that makes.

        Raises ``ConfigError`` for fewer than 1, and where the worker does not run.
        """
        require("by", by, whole(1))
        return await self._at_home(lambda _: self._resize(self._concurrency + by))

    async def shrink(self, by: int = 1) -> int:
        """Run ``by`` fewer tasks at once (Celery: ``pool_shrink``), 1 at least; return how many that makes.

        What runs goes on, and surplus threads or processes end when they are free. Raises as ``grow``.
        """
        require("by", by, whole(1))
        return await self._at_home(lambda _: self._resize(max(1, self._concurrency - by)))

    async def _at_home(self, act: Callable[[Consumer], Coroutine[Any, Any, T]]) -> T:
        """Await ``act`` in the event loop that the worker runs in."""
        consumer, home = self._consumer, self._home
        if consumer is None or home is None:
            raise ConfigError(f"worker {self.name} does not run; start it before you change it")
        if home is asyncio.get_running_loop():
            return await act(consumer)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(act(consumer), home))

    async def _resize(self, concurrency: int) -> int:
        assert self._pool is not None
        assert self._consumer is not None
        self._concurrency = concurrency
        self._consumer.resize(concurrency)
        self._pool.resize(concurrency)
        return concurrency

    def _make_autoscaler(self, consumer: Consumer) -> Autoscaler:
        scaling = Scaling(
            self._concurrency,
            self._most,
            busy=lambda: consumer.attempts,
            size=lambda: self._concurrency,
            grow=self.grow,
            shrink=self.shrink,
        )
        return Autoscaler(scaling, lambda: self._concurrency, self._resize)

    async def _first_of(self, signal: asyncio.Event) -> None:
        """Return when the signal came; if the intake ends first, raise its error."""
        assert self._running is not None
        waiting = asyncio.create_task(signal.wait())
        try:
            await asyncio.wait([waiting, self._running], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if self._running.done():
            await self._running

    async def _open(self) -> None:
        clock = LogicalClock()
        self.events = self._make_events(clock)
        telling = [self.events, self.events.announcer] if self.events is not None else []
        # The log comes last: what traces a run has marked its lines by then.
        attached = self._attachments
        self._listeners = Listeners([Counting(self.tally), *telling, *attached.listeners, attached.log])
        self._listeners.worker_made(self)
        self._listeners.worker_starting(self.name)
        self._lifespans, state = await begin(self._attachments.lifespans)
        connections = self._app.connections()
        self._pool = self._choice.make(
            self._app, self._concurrency, self._attachments, self._listeners, self.name
        )
        self._collecting = Collecting() if self._collects else None
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
            self._stop_times,
            _nothing if self._collecting is None else self._collecting.look,
        )
        if self.events is not None:
            self.events.heart.active = lambda: len(parts.bodies.running())
            self.events.heart.on_beat = partial(self._listeners.heartbeat, self.name)
        consumer, bodies, revocations = parts.consumer, parts.bodies, parts.revocations
        self._consumer, self._home = consumer, asyncio.get_running_loop()
        self.slots = parts.slots
        self._attachments.workers.append(self)
        self._running = asyncio.create_task(consumer.run(partial(_prepare, connections.backend, self._pool)))
        self._watching = asyncio.create_task(
            _all(
                revocations.watch(
                    lambda: consumer.attempts > 0, lambda: bodies.stop_revoked(revocations.revoked)
                ),
                parts.pausing.watch(consumer),
            )
        )
        self._autoscaler = self._make_autoscaler(consumer)
        if self._scales:
            self._autoscaler.start()
        fanout = connections.broker.fanout if self._app.settings.remote_control else None
        if fanout is not None:
            self._remote = make_remote(
                self,
                self._app,
                connections,
                parts,
                self._pool,
                self._choice,
                self._ending,
                self._autoscaler,
                fanout,
                clock,
                self.events,
            )
            self._answering = asyncio.create_task(
                _answer_once_ready(consumer, self._remote), name="celeriac-remote"
            )

    async def _close(self) -> None:
        if self._consumer is None or self._running is None or self._watching is None or self._pool is None:
            return
        self._listeners.worker_stopping(self.name)
        if self._autoscaler is not None:
            self._autoscaler.end()
        grace = WITHOUT_LIMIT if self._grace is None else self._grace
        giving_up = asyncio.get_running_loop().call_later(
            grace, self._insist.give_up_in, self._stop_times.landing
        )
        await self._consumer.stop()
        await asyncio.wait([self._running])
        given_back = await self._consumer.finish(self._grace)
        if given_back:
            logger.warning("%s did not end in time and went back to the queue", counted(given_back, "task"))
        giving_up.cancel()
        self._watching.cancel()
        if self._remote is not None and self._answering is not None:
            self._answering.cancel()
            await self._remote.finish()
            await asyncio.wait([self._answering])
        if self.events is not None:
            await self.events.finish()
        await self._pool.close()
        self._consumer = None
        self._attachments.workers.remove(self)
        if self._collecting is not None:
            self._collecting.end()
        if self._lifespans is not None:
            await self._lifespans.aclose()
        self._listeners.worker_stopped(self.name)
        await self._running  # if the intake has ended by itself, this raises its error

    def _make_events(self, clock: LogicalClock) -> Events | None:
        """Return the sender of this worker's events, ``None`` where none are to be sent, or none can be."""
        sends, beats = self._says
        fanout = self._app.connections().broker.fanout
        if fanout is None or not (sends or beats or self._app.settings.remote_control):
            return None
        return Events(self._app, fanout, self.name, clock, task_events=sends, heartbeats=beats)

    async def _work_until_asked(self, began: Future[None], asked: asyncio.Event) -> None:
        self._ending.asked = asked
        async with self:
            announcing = asyncio.create_task(_announce(self, partial(began.set_result, None)))
            await self._first_of(asked)
            announcing.cancel()
        await self._app.close()


async def _all(*watches: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(*watches)


async def _announce(worker: Worker, on_ready: Callable[[], None]) -> None:
    with suppress(BrokerError, BackendError):  # ``serve`` raises it
        await worker.ready()
        on_ready()


async def _answer_once_ready(consumer: Consumer, remote: Remote) -> None:
    """Answer from when messages are taken: whoever asks by ``ping`` whether a worker is up may send it work then."""
    await consumer.ready.wait()
    await remote.run()


async def _prepare(backend: Backend, pool: Pool) -> None:
    """Check the result store, and start processes where that is wanted.

    A store that is away is no error here, since each result waits for it. A store that refuses would never take any.
    """
    with suppress(BackendUnavailable):
        tell(await backend.examine())
    if pool.children is not None:
        await pool.children.fill()
