"""The app: it puts together settings, tasks and connections. Two apps share nothing.

Rules: a connection is opened on its first use, and belongs to the event loop that uses it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar, Unpack, overload

import msgspec

from celeriac.canvas.nodes import Node, Signature
from celeriac.client.connections import Connections, ConnectionTable, RunBlocking
from celeriac.client.control import Control
from celeriac.client.decorators import BoundTaskDecorator, TaskDecorator, Untyped
from celeriac.client.environment import chosen_urls
from celeriac.client.event_reader import EventReader
from celeriac.client.naming import task_name
from celeriac.client.opening import Opener
from celeriac.client.outbox import Call, Outbox, check_call
from celeriac.client.result import Result
from celeriac.client.revoking import KEEP
from celeriac.client.send_listeners import SendListeners
from celeriac.client.sending import Sending
from celeriac.client.sent_events import SentEvents
from celeriac.client.task import (
    CoroutineTask,
    FunctionTask,
    SendKeywords,
    Task,
    TaskKeywords,
    TaskOptions,
    signature_options,
    unknown_option,
)
from celeriac.client.transactional import Transactional
from celeriac.clock import Clock, SystemClock
from celeriac.context import Context
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.contracts.server import Terms
from celeriac.errors import ArgumentError, ConfigError
from celeriac.porting import APP, explains
from celeriac.routing import SendOptions, send_options
from celeriac.settings import Settings, settings_from
from celeriac.wire.content import Codecs

__all__ = ["App", "Connections"]

P = ParamSpec("P")
R = TypeVar("R")


@explains("a celeriac app", APP)
class App:
    """A set of tasks, a broker and a backend.

    :param name: names the app, and its file when no broker is given.
    :param broker: a URL, or a broker of your own, which you close. The default is the URL in ``CELERIAC_BROKER`` or
        ``CELERY_BROKER_URL`` of the environment, else the file ``./<name>.db``.
    :param backend: the same for results. The default is the URL in ``CELERIAC_BACKEND`` or ``CELERY_RESULT_BACKEND``,
        else the broker's file or memory; with any other broker no results are kept.
    :param run: runs coroutines for callers without an event loop.
    :param settings: all settings at once; otherwise each is a keyword of its own: see ``Settings``.
    :param clock: where the app gets the time.

    Raises ``ConfigError`` for a setting or URL that cannot be used.
    """

    def __init__(
        self,
        name: str = "celeriac",
        broker: str | Broker | None = None,
        backend: str | Backend | None = None,
        *,
        run: RunBlocking,
        settings: Settings | None = None,
        clock: Clock | None = None,
        **given: Any,
    ) -> None:
        if settings is not None and given:
            raise ConfigError(f"give settings= or single settings ({', '.join(given)}), not both")
        self.name = name
        self.settings = settings or settings_from(given)
        self.clock: Clock = clock or SystemClock()
        self.codecs = Codecs(
            self.settings.accept_content,
            self.settings.max_decompressed_size,
            self.settings.max_decompressed_ratio,
        )
        self.tasks: dict[str, Task[..., Any]] = {}
        self.send_listeners = SendListeners()
        self._connect_to(broker, backend)
        self._table = ConnectionTable(self._open)
        self.outbox = Outbox(self.settings, self._table, run, self.defaults, self.connect_to)
        self.control = Control(self._table, self.settings.control_exchange, self.codecs, self.clock, run)
        self.events = EventReader(self._table, self.settings, self.codecs, self.control)
        self._sent_events = SentEvents(self._table, self.settings, self.clock.now)
        if self.settings.send_sent_event:
            self.send_listeners.add(self._sent_events)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    # --- tasks

    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Untyped, ...], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[..., R]: ...
    @overload
    def task(self, function: Callable[Concatenate[Untyped, ...], R], /) -> FunctionTask[..., R]: ...
    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /
    ) -> CoroutineTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> CoroutineTask[P, R]: ...  # type: ignore[overload-overlap]
    @overload
    def task(self, function: Callable[Concatenate[Context, P], R], /) -> FunctionTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> FunctionTask[P, R]: ...
    @overload
    def task(
        self, /, *, name: str | None = None, bind: Literal[True], **options: Unpack[TaskKeywords]
    ) -> BoundTaskDecorator: ...
    @overload
    def task(
        self, /, *, name: str | None = None, bind: Literal[False] = False, **options: Unpack[TaskKeywords]
    ) -> TaskDecorator: ...
    def task(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        bind: bool = False,
        **options: Unpack[TaskKeywords],
    ) -> Any:
        """Make a task of a function; with or without parentheses.

        :param name: the name that messages carry; ``module.function`` where not given, as in Celery.
        :param bind: the first parameter gets the ``Context``. A parameter annotated ``Context`` gets it anyway.
        :param options: see ``TaskOptions``.

        Raises ``ConfigError`` when another function has that name.
        """

        def make(decorated: Callable[..., Any]) -> Task[..., Any]:
            return self._add(name or task_name(decorated), decorated, options, bind)

        return make if function is None else make(function)

    def register(
        self, name: str, target: Any, /, *, bind: bool = False, **options: Unpack[TaskKeywords]
    ) -> Task[..., Any]:
        """Make a task of a function, a coroutine function, a bound method, or an object with a ``run`` method.

        An object keeps its attributes, so a task may carry its dependencies. Raises ``ConfigError`` for an object that
        cannot be called, and when the name is taken.
        """
        run = None if inspect.isroutine(target) else getattr(target, "run", None)
        return self._add(name, target if isinstance(target, type) or run is None else run, options, bind)

    def _add(
        self, name: str, function: Callable[..., Any], given: TaskKeywords, bind: bool
    ) -> Task[..., Any]:
        try:
            options = TaskOptions(**given)
        except TypeError:
            raise ConfigError(f"task {name}: {unknown_option(given)}") from None
        if not isinstance(name, str) or not name:
            raise ConfigError(f"task name {name!r}: give a text that is not empty")
        if not callable(function) or isinstance(function, type):
            raise ConfigError(
                f"task {name}: {function!r} is no function; give one, or an object with a run method"
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigError(f"task {name}: a generator has no one value to store: return a list instead")
        known_task = self.tasks.get(name)
        if known_task is not None and known_task.function != function:
            raise ConfigError(
                f"two tasks are named {name!r}: {_where(known_task.function)} and {_where(function)}; "
                "give one of them another name="
            )
        made: Task[..., Any] = FunctionTask(name, function, options, self.outbox, bind=bind)
        if made.is_coroutine:
            made = CoroutineTask(name, function, options, self.outbox, bind=bind)
        self.tasks[name] = made
        return made

    # --- sending

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendKeywords],
    ) -> Coroutine[Any, Any, Result[Any]]:
        """Send a call by name, as ``Task.send``; to be awaited. The arguments are checked if this app has that task."""
        call = self.call(name, args, kwargs, **options)
        text = f"write await app.send_task({name!r}, ...), or app.delay({name!r}, ...) in code without an event loop"
        return Sending(lambda: self.outbox.send(call), text)

    def delay(self, name: str, /, *args: Any, **kwargs: Any) -> Result[Any]:
        """Send a call by name and block until the broker has it. For code without an event loop."""
        return self.outbox.delay(self.call(name, args, kwargs))

    async def send_many(self, calls: Sequence[Call[R]]) -> list[Result[R]]:
        """Send calls made by ``task.call(...)`` or ``app.call(...)`` in a few round trips; results are in their order.

        Raises as ``Task.send``; a broker has no transactions, so part of the calls may then have been sent.
        """
        return await self.outbox.send_many(calls)

    def delay_many(self, calls: Sequence[Call[R]]) -> list[Result[R]]:
        """Send calls as ``send_many`` and block until the broker has them."""
        return self.outbox.delay_many(calls)

    def call(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendKeywords],
    ) -> Call[Any]:
        """Describe a call by name."""
        check_call(name, args, kwargs)
        given = send_options(options)
        task = self.tasks.get(name)
        if task is not None:
            return task.call_with(given.over(task.defaults), args or (), kwargs or {})
        chosen = given.over(self.outbox.routes.match(name))
        ignore_result = chosen.ignore_result
        if ignore_result is None and self.settings.ignore_result:
            ignore_result = True
        return Call(name, args or (), kwargs, chosen, None, ignore_result)

    def defaults(self, name: str) -> SendOptions:
        """Return the options with which calls of this task are sent when none are given."""
        task = self.tasks.get(name)
        return self.outbox.routes.match(name) if task is None else task.defaults

    def signature(self, name: str, *args: Any, **kwargs: Any) -> Signature[Any]:
        """Describe a call by name as a part of a workflow, as ``Task.s``. This app need not have a task of that name.

        With ``args=`` or ``kwargs=`` the call is spelt as in Celery: a list of arguments, a mapping of those by name,
        and beside them ``immutable=`` and options of sending, single or as ``options=``. Raises ``ArgumentError`` or
        ``ConfigError`` for values that these cannot have.
        """
        if "args" in kwargs or "kwargs" in kwargs:
            return self._spelt_as_in_celery(name, args, **kwargs)
        return self._signature(name, args, kwargs)

    def _spelt_as_in_celery(
        self,
        name: str,
        /,
        more: Sequence[Any],
        *,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        immutable: bool = False,
        options: Mapping[str, Any] | None = None,
        **single: Any,
    ) -> Signature[Any]:
        check_call(name, args, kwargs)
        if more:
            raise ArgumentError(f"{name}: give the arguments one by one, or as args= and kwargs=, not both")
        chosen = {**(options or {}), **single}
        return self._signature(name, tuple(args or ()), kwargs or {}).set(immutable=immutable, **chosen)

    def _signature(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Signature[Any]:
        task = self.tasks.get(name)
        if task is not None:
            return task.s(*args, **kwargs)
        options = signature_options(self.outbox.routes.match(name))
        return Signature(name, tuple(args), kwargs, options, outlet=self.outbox)

    async def send(self, workflow: Node[Any]) -> Any:
        """Send a workflow: a ``Result``, or a ``GroupResult`` where its end is a group. As ``Node.send``.

        :param workflow: may have been made from Celery's dictionary form with ``from_dict``.
        """
        return await self.outbox.send_workflow(workflow)

    def using(self, connection: Any) -> Transactional:
        """Return what sends in the transaction of a connection of yours to the broker's database.

        ``await app.using(session).send(task, 1)``: the task is there when the transaction commits, and never if it is
        rolled back. :param connection: see ``Transactional``. Raises ``ConfigError`` for an unknown one.
        """
        return Transactional(self.outbox, connection)

    def result(self, task_id: str) -> Result[Any]:
        """Return a handle on the result of a call of which the id is known."""
        return self.outbox.result(task_id)

    async def cancel(
        self,
        ids: str | Sequence[str] = (),
        *,
        roots: str | Sequence[str] = (),
        terminate: bool = False,
        keep: float = KEEP,
    ) -> None:
        """Cancel several tasks, each as ``Result.cancel`` does.

        :param roots: ids of the first tasks of workflows: every task of those workflows is cancelled.
        :param keep: seconds for which workers remember this, counted from when the last parked task is due.
        """
        await self.outbox.cancel(_names(ids), _names(roots), terminate=terminate, keep=keep)

    def revoke(
        self,
        ids: str | Sequence[str] = (),
        *,
        roots: str | Sequence[str] = (),
        terminate: bool = False,
        keep: float = KEEP,
    ) -> None:
        """Do as ``cancel`` and block until it is stored. For code without an event loop."""
        self.outbox.revoke(_names(ids), _names(roots), terminate=terminate, keep=keep)

    # --- connections

    def connect_to(
        self, broker: str | None = None, backend: str | None = None, *, lease: float | None = None
    ) -> None:
        """Replace the URLs that the app was made with, before it first connects; ``None`` keeps the one it has.

        This is for programs that get a URL at their start, such as ``celeriac worker -b URL``. Raises ``ConfigError``
        for a URL that cannot be used.

        :param lease: replaces the setting of that name.
        """
        if lease is not None:
            self.settings = msgspec.structs.replace(self.settings, lease=lease)
        elif broker is not None and (broker, backend) == self._given:
            return
        self._connect_to(broker or self._given[0], backend or self._given[1])

    @asynccontextmanager
    async def connected_to(self, broker: str | Broker, backend: str | Backend) -> AsyncIterator[Self]:
        """Replace the app's broker and result store within the block, in every event loop; for tests.

        Closes the running loop's connections before and after. Raises as ``connect_to``.
        """
        given = self._given
        await self.close()
        self._connect_to(broker, backend)
        try:
            yield self
        finally:
            await self.close()
            self._connect_to(*given)

    def adjust(self, **changes: Any) -> None:
        """Replace settings before the app first connects; for programs that get them at their start.

        Raises ``ConfigError`` for a bad value.
        """
        self.settings = settings_from({**msgspec.structs.asdict(self.settings), **changes})
        self._connect_to(*self._given)

    @property
    def queues(self) -> Sequence[str]:
        """The queues that its workers take from where none are named."""
        return [self.settings.default_queue]

    @property
    def worker_options(self) -> Mapping[str, Any]:
        """The options of its workers where neither their maker nor the command line says any."""
        return {}

    @property
    def remarks(self) -> Sequence[str]:
        """What a starting worker is to say about the app."""
        return ()

    def control_methods(self, worker: object, *, inspect_only: bool) -> Mapping[str, Callable[..., Any]]:
        """Return the app's own methods of remote control: coroutine functions, by name."""
        return {}

    @property
    def calls_back_unknown(self) -> bool:
        """Whether its workers call the errbacks of a task that none of them knows."""
        return True

    @property
    def code_after_interrupt(self) -> int:
        """The exit code of its workers that SIGINT has stopped."""
        return 0

    def note_options(self, said: Mapping[str, Any]) -> None:
        """Note what a worker was told on the command line, under Celery's names."""

    def set_up_logging(self, level: str, file: str | None, node: str) -> bool:
        """Set up logging for a worker of that node name as the app wants it; return whether it wants it its way."""
        return False

    def require_runnable(self) -> None:
        """Raise ``ConfigError`` where a worker of this app cannot run its tasks."""

    def connections(self) -> Connections:
        """Return the running loop's broker, backend and publisher; they connect when they are first used."""
        return self._table.current()

    def _connect_to(self, broker: str | Broker | None, backend: str | Backend | None) -> None:
        self.broker_url, self.backend_url = chosen_urls(self.name, broker, backend)
        terms = Terms(self.settings, self.codecs, self.clock)
        urls = (self.broker_url, self.backend_url)
        self._opener = Opener(broker, backend, urls, terms, self.send_listeners)
        self._given = (broker, backend)

    def _open(self) -> Connections:
        return self._opener()

    async def close(self) -> None:
        """Close the running loop's connections. They are also closed when the loop ends."""
        await self._sent_events.finish()
        await self._table.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


def _names(given: str | Sequence[str]) -> Sequence[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str):
            raise ConfigError(f"{name!r:.100} is no task's id; give text, such as result.id")
    return names


def _where(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(function)
