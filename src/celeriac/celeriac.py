"""The app as users make it: everything below put together."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from celeriac.beat.declaring import EntryKeywords
from celeriac.beat.lifespan import with_ticking
from celeriac.beat.schedules import Schedules
from celeriac.client.app import App
from celeriac.client.blocking import BACKGROUND
from celeriac.client.connections import RunBlocking
from celeriac.client.send_listeners import SendListener
from celeriac.client.task import Task
from celeriac.clock import Clock
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.errors import BackendError, BrokerError, ConfigError, ResultTimeout
from celeriac.metrics.app_metrics import AppMetrics
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.process import ProcessMetrics
from celeriac.metrics.vitals import Vitals
from celeriac.schedule.crontab import Crontab
from celeriac.schedule.interval import Interval
from celeriac.schedule.solar import Solar
from celeriac.settings import Settings
from celeriac.worker.attachments import Attachments, ChildLifespan, Lifespan
from celeriac.worker.listeners import Listener
from celeriac.worker.raised import shorten
from celeriac.worker.worker import Worker

if TYPE_CHECKING:
    from celeriac.testing.blocking import BlockingWorker
    from celeriac.testing.faults import Faults

T = TypeVar("T")
F = TypeVar("F", bound=Lifespan)
C = TypeVar("C", bound=ChildLifespan)


class Celeriac(App):
    """An app: see ``App`` for the parameters; blocking calls run on the process's background loop."""

    def __init__(
        self,
        name: str = "celeriac",
        broker: str | Broker | None = None,
        backend: str | Backend | None = None,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        **given: Any,
    ) -> None:
        self._run: RunBlocking = BACKGROUND.run
        super().__init__(
            name,
            broker,
            backend,
            run=self._run_blocking,
            settings=settings,
            clock=clock,
            **given,
        )
        self.attachments = Attachments()
        self.schedules = Schedules(self)

    def schedule(
        self,
        name: str,
        task: Task[..., Any] | str,
        schedule: float | timedelta | str | Crontab | Interval | Solar,
        **given: Unpack[EntryKeywords],
    ) -> None:
        """Declare a periodic task: see ``Schedules.add`` for the parameters.

        Whatever process of the app ticks, each slot of the schedule gets one message. Raises ``ConfigError`` for a
        value that cannot be used, and for a name that is taken.
        """
        self.schedules.declare(name, task, schedule, **given)

    def periodic(
        self,
        schedule: float | timedelta | str | Crontab | Interval | Solar | None = None,
        *,
        every: float | timedelta | None = None,
        name: str | None = None,
        **given: Unpack[EntryKeywords],
    ) -> Callable[[T], T]:
        """Declare that a task runs periodically; a decorator, above ``@app.task``. Otherwise as ``schedule``.

        :param every: seconds between two runs, in place of a schedule.
        :param name: the entry's name; the default is the task's.
        """
        if (schedule is None) == (every is None):
            raise ConfigError("app.periodic: give a schedule such as crontab(hour=7), or every=, the seconds")

        def declare(task: T) -> T:
            if not isinstance(task, Task):
                raise ConfigError(f"{task!r:.100} is no task: write @app.periodic(...) above @app.task")
            self.schedules.declare(name or task.name, task, schedule if every is None else every, **given)
            return task

        return declare

    def _run_blocking(self, coroutine: Coroutine[Any, Any, T], *, for_a_result: bool = False) -> T:
        try:
            return self._run(coroutine, for_a_result=for_a_result)
        except (BrokerError, BackendError, ResultTimeout) as error:
            shorten(error)  # what went on in the background loop says nothing of where the program went wrong
            raise

    def listen(self, listener: Listener | SendListener) -> None:
        """Let a listener hear what this app's workers do, and what it sends, after those given before it.

        A ``Listener`` hears of workers, a ``SendListener`` of sending; one object may be both. Raises ``ConfigError``
        for what is neither. Workers that run already do not tell it.
        """
        if isinstance(listener, SendListener):
            self.send_listeners.add(listener)
        if isinstance(listener, Listener) or not isinstance(listener, SendListener):
            self.attachments.listen(listener)

    def lifespan(self, function: F) -> F:
        """Run a generator function around each worker of this app; a decorator.

        What comes before its ``yield`` runs when a worker starts, in the order of the definitions; what comes after it
        when the worker has settled or given back all it had, in reverse. The mapping that it yields is in the ``state``
        of every task's ``Context``. Async and plain functions alike run on the worker's event loop, and may not block
        it for long. A worker whose lifespan raises does not start. Raises ``ConfigError`` for other functions.
        """
        self.attachments.live(function)
        return function

    def child_lifespan(self, function: C) -> C:
        """Run a plain generator function around each process of the pool of this app's workers; a decorator.

        What comes before its ``yield`` runs before the process takes its first call, what comes after it when the
        process has run its last, in reverse; a process that is killed, as by a hard time limit, runs nothing more. The
        mapping that it yields is in the ``state`` of the ``Context`` of what runs in the process. It must be at the top
        level of a module. A process whose lifespan raises ends, and its call fails with ``WorkerLost``. Raises
        ``ConfigError`` for other functions.
        """
        self.attachments.live_in_children(function)
        return function

    @contextmanager
    def testing(self, *, eager: bool = True, faults: Faults | None = None) -> Iterator[BlockingWorker]:
        """Run the app's tasks within the block, for a test that blocks: ``delay``, ``apply_async`` and ``get``.

        Messages take the real way through Celery's format, to a worker with a broker and a result store in memory;
        nothing of the app's own is touched. The tasks' functions run in the test's own thread, whenever that waits: so
        they see its database transaction, as Django's ``TestCase`` needs it. Coroutines run on the background loop.

        :param eager: what sends returns when the task, and what it sent in turn, has ended or waits until later;
            otherwise nothing runs until the test asks: it waits for a result (``get``), for ``drain()``, or leaves the
            block.
        :param faults: a script of what is to go wrong.

        Raises ``ConfigError`` in a coroutine, ``TimeoutError`` where what was sent does not end.
        """
        from celeriac.testing.blocking import running_here

        before = self._run
        with running_here(self, BACKGROUND, eager=eager, faults=faults) as (worker, run):
            self._run = run
            try:
                yield worker
            finally:
                self._run = before

    def metrics(self, *, prefix: str = "", hostname: str | None = None) -> AppMetrics:
        """Return the metrics of this app in this process, for Prometheus: a collector, and an ASGI app.

        They count from this call on: what this app sends, what its workers in this process do, and what waits at its
        broker; and they tell whether broker and result store answer, and how late the loop is of a worker or of the
        program that serves them. See ``AppMetrics`` for how to serve them. Raises ``ConfigError`` where
        prometheus-client is missing.

        :param prefix: put before every name.
        :param hostname: the label of that name; the machine's name where it is not given.
        """
        exposition = Exposition(prefix)
        process = ProcessMetrics(self.tasks, self.clock, self.attachments.workers, self._broker, hostname)
        process.schedule_lag = lambda: self.schedules.lag
        vitals = Vitals(self._broker, lambda: self.connections().backend)
        process.lag = lambda: vitals.lag
        process.broker_up = lambda: vitals.broker_up
        process.backend_up = lambda: vitals.backend_up
        for listener in process.listeners:
            self.listen(listener)
        self.lifespan(vitals.lifespan)
        return AppMetrics(exposition, process, self._broker, vitals, self._run_blocking)

    def _broker(self) -> Broker:
        return self.connections().broker

    def worker(
        self,
        *,
        concurrency: int | None = None,
        queues: Sequence[str] | None = None,
        name: str | None = None,
        pool: str = "threads",
        grace: float = 30.0,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
        start_method: str | None = None,
        collect: bool = True,
        send_events: bool | None = None,
        heartbeats: bool = True,
        beat: bool | None = None,
    ) -> Worker:
        """Return a worker for this app's tasks, to run inside this program: see ``Worker``.

        :param beat: whether it ticks the app's periodic tasks too; the default is to do so if the code declares any.
        """
        ticks = bool(self.schedules.declared) if beat is None else beat
        return Worker(
            self,
            concurrency=concurrency,
            queues=queues,
            name=name,
            pool=pool,
            grace=grace,
            max_tasks_per_child=max_tasks_per_child,
            max_memory_per_child=max_memory_per_child,
            start_method=start_method,
            collect=collect,
            send_events=send_events,
            heartbeats=heartbeats,
            attachments=with_ticking(self.attachments, self.schedules) if ticks else self.attachments,
        )
