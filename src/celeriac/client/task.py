"""A task: a function that can be called here, and whose calls can be sent to workers.

Rules: ``send``, ``delay`` and ``call`` take the function's own arguments without the context; ``using`` takes the
options of sending. Arguments are checked before anything is published.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from typing import (
    Any,
    Generic,
    Literal,
    ParamSpec,
    TypedDict,
    TypeVar,
    Unpack,
)
from uuid import uuid4

import msgspec

from celeriac.arguments.convert import Returns
from celeriac.arguments.wrapped import arguments_of
from celeriac.canvas.nodes import Group, Signature
from celeriac.client.conduct import USUAL
from celeriac.client.outbox import Call, Outbox, check_call
from celeriac.client.result import Result
from celeriac.context import Context
from celeriac.errors import ConfigError
from celeriac.porting import TASK, explains
from celeriac.quantities import PRIORITY, SECONDS, Rate, or_none, require, whole
from celeriac.retry import Retry
from celeriac.routing import NO_OPTIONS, OPTION_NAMES, Link, SendOptions, send_options
from celeriac.servers.caller_connection import Caller
from celeriac.settings import ALLOWED
from celeriac.wire.content import JSON
from celeriac.wire.extended_json import decode_json, encode_json
from celeriac.wire.result import ResultRecord
from celeriac.wire.signature import MAP, STARMAP, write
from celeriac.wire.task import TaskMessage

P = ParamSpec("P")
R = TypeVar("R")

AS_JSON = ("json", JSON)


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options that a task is defined with; ``None`` leaves an option to the app's settings.

    :param retry: the policy that says after which errors, and when, the task is run again.
    :param timeout: hard limit of a run, in seconds.
    :param soft_timeout: soft limit of a run, in seconds: the task gets an exception and may clean up.
    :param ignore_result: store no result.
    :param track_started: store the state STARTED.
    :param rate_limit: how many runs each worker starts, such as ``10/m``, or a number a second.
    :param delivery: ``at_least_once`` or ``at_most_once``.
    :param max_deliveries: how often a message is delivered before it is set aside.
    :param queue: the queue that calls go to; with ``exchange`` and ``routing_key`` as in ``SendOptions``.
    :param priority: of its messages.
    :param serializer: of its arguments.
    :param compression: of its messages.
    :param expires: seconds after which a call must not run any more.
    :param send_events: ``False``: workers tell monitors nothing of its runs.
    """

    retry: Retry | None = None
    timeout: float | None = None
    soft_timeout: float | None = None
    ignore_result: bool | None = None
    track_started: bool | None = None
    rate_limit: Rate | None = None
    delivery: Literal["at_least_once", "at_most_once"] | None = None
    max_deliveries: int | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    serializer: str | None = None
    compression: str | None = None
    expires: float | None = None
    send_events: bool | None = None

    def __post_init__(self) -> None:
        for name, setting in AS_SETTINGS.items():
            if (value := getattr(self, name)) is not None:
                require(name, value, ALLOWED[setting])
        for name, check in (("priority", PRIORITY), ("expires", SECONDS)):
            require(name, getattr(self, name), or_none(check))

    def sending(self) -> SendOptions:
        """The options that calls are sent with."""
        names = ("queue", "exchange", "routing_key", "priority", "serializer", "compression", "expires")
        return send_options({name: value for name in names if (value := getattr(self, name)) is not None})


AS_SETTINGS: Mapping[str, str] = {
    "retry": "default_retry",
    "timeout": "time_limit",
    "soft_timeout": "soft_time_limit",
    "ignore_result": "ignore_result",
    "track_started": "track_started",
    "rate_limit": "rate_limit",
    "delivery": "delivery",
    "max_deliveries": "max_deliveries",
    "send_events": "send_events",
}
"""Options that take the same values as a setting, or ``None``."""

CELERYS: Mapping[str, str] = {
    "acks_late": "it is so always, that is delivery='at_least_once'",
    "autoretry_for": "say retry=Retry(on=...)",
    "default_retry_delay": "say retry=Retry(backoff=...)",
    "dont_autoretry_for": "say retry=Retry(never=...)",
    "max_retries": "say retry=Retry(max_attempts=...), which counts the first run too",
    "retry_backoff": "say retry=Retry(backoff=...)",
    "retry_backoff_max": "say retry=Retry(cap=...)",
    "retry_jitter": "say retry=Retry(jitter=...)",
    "retry_kwargs": "say retry=Retry(...)",
    "soft_time_limit": "say soft_timeout=",
    "time_limit": "say timeout=",
    "typing": "it is so always; the setting strict_arguments switches it off",
}
"""Celery's options, with the words to use here instead."""


def unknown_option(given: Iterable[str]) -> str:
    """Return the end of an error text: which of these names is no option of a task, and which was probably meant."""
    known = TaskOptions.__struct_fields__
    name = next(name for name in given if name not in known)
    if name in CELERYS:
        return f"{name} is an option of Celery's: {CELERYS[name]}"
    near = get_close_matches(name, known, n=1)
    return f"unknown option {name!r}: " + (
        f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    )


class TaskKeywords(TypedDict, total=False):
    """The keywords of ``app.task`` and ``app.register``: see ``TaskOptions``."""

    retry: Retry | None
    timeout: float | None
    soft_timeout: float | None
    ignore_result: bool | None
    track_started: bool | None
    rate_limit: Rate | None
    delivery: Literal["at_least_once", "at_most_once"] | None
    max_deliveries: int | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    serializer: str | None
    compression: str | None
    expires: float | None
    send_events: bool | None


class SendKeywords(TypedDict, total=False):
    """The keywords of ``using`` and ``apply_async``: see ``SendOptions``."""

    queue: str
    exchange: str
    routing_key: str
    priority: int
    countdown: float
    eta: datetime
    expires: float | datetime
    task_id: str
    headers: Mapping[str, Any]
    serializer: str
    compression: str
    retry: Retry
    ignore_result: bool
    time_limit: float
    soft_time_limit: float
    shadow: str
    link: Link | Sequence[Link]
    link_error: Link | Sequence[Link]
    protocol: Literal[1, 2]
    reply_to: str
    root_id: str
    parent_id: str
    group_id: str


@explains("a task", TASK)
class Task(Generic[P, R]):
    """A task of one app. Made by ``app.task`` and ``app.register``.

    :param name: the name that messages carry.
    :param function: the user's function.
    :param options: the options that the task was defined with.
    :param outbox: sends its calls.
    :param bind: the function gets its ``Context`` first, as Celery's bound tasks get themselves.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        options: TaskOptions,
        outbox: Outbox,
        *,
        bind: bool = False,
    ) -> None:
        self.name = name
        self.function = function
        self.options = options
        self.bind = bind
        self.is_coroutine = _is_coroutine(function)
        self.conduct = USUAL
        strict = outbox.settings.strict_arguments
        self.arguments = arguments_of(function, bound=bind, name=name, injected=Context, strict=strict)
        self.__doc__ = function.__doc__
        self.__module__ = function.__module__
        self.__qualname__ = getattr(function, "__qualname__", name)
        self.returns = Returns(function)
        self._convert = self.returns.convert
        self._outbox = outbox
        self._own = options.sending()

    def __repr__(self) -> str:
        return f"<Task {self.name}>"

    def __reduce__(self) -> str:
        # By reference, as functions are pickled: a child process imports the module and finds the task there.
        return self.__qualname__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R | Coroutine[Any, Any, R]:
        """Run the function here and now; a context parameter gets one of its own."""
        outcome: R | Coroutine[Any, Any, R] = self.run(args, kwargs)
        return outcome

    def run(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the function with these arguments, unchecked, and with a context of its own if it wants one."""
        positional, named = list(args), dict(kwargs)
        if self.arguments.context_parameter is not None:
            message = TaskMessage(id=str(uuid4()), task=self.name, args=list(args), kwargs=dict(kwargs))
            self.arguments.inject(Context(message), positional, named)
        return self.function(*positional, **named)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Describe a call, for ``app.send_many``. Raises ``ArgumentError`` when it does not fit the function."""
        return self.call_with(self.defaults, args, kwargs)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result[R]]:
        """Send a call; to be awaited. Returns when the broker has it.

        Raises ``ArgumentError`` and ``EncodeError`` before anything is sent, ``BrokerUnavailable`` within the
        setting ``publish_timeout`` when the broker does not take it.
        """
        return self._outbox.send(self.call_with(self.defaults, args, kwargs))

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Result[R]:
        """Send a call and block until the broker has it; otherwise as ``send``. For code without an event loop."""
        return self._outbox.delay(self.call_with(self.defaults, args, kwargs))

    def using(self, *, connection: Any = None, **options: Unpack[SendKeywords]) -> Sender[P, R]:
        """Return the task with options for sending; they are those of ``SendOptions``.

        :param connection: send in the transaction of this connection of yours to the broker's database.
        """
        return Sender(self, self._outbox, send_options(options), Caller.of(connection))

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[SendKeywords],
    ) -> Result[R]:
        """Send a call and block until the broker has it, spelt as in Celery."""
        check_call(self.name, args, kwargs)
        chosen = send_options(options).over(self.defaults)
        return self._outbox.delay(self.call_with(chosen, args, kwargs or {}))

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Describe a call as a part of a workflow.

        In a chain the value of the task before it becomes a further, first argument. So the arguments here may be
        incomplete, and are checked by the worker.
        """
        return self.signature_with(self.defaults, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Describe a call as a part of a workflow that takes no value from the task before it."""
        return self.signature_with(self.defaults, args, kwargs, immutable=True)

    def map(self, items: Iterable[Any]) -> Signature[list[R]]:
        """Describe one call that runs the task with each item, one after the other; gives the list of values."""
        listed = self._listed("map", items)
        return self._iterating(MAP, listed, ([item] for item in listed))

    def starmap(self, items: Iterable[Iterable[Any]]) -> Signature[list[R]]:
        """Describe one call that runs the task with each list of arguments, one after the other."""
        rows = self._rows("starmap", items)
        return self._iterating(STARMAP, rows, rows)

    def chunks(self, items: Iterable[Iterable[Any]], size: int) -> Group[list[R]]:
        """Describe a group of calls that each run the task with up to ``size`` lists of arguments."""
        require(f"{self.name}: chunks of size {{}}", size, whole(1))
        rows = self._rows("chunks", items)
        pieces = (rows[start : start + size] for start in range(0, len(rows), size))
        return Group(tuple(self._iterating(STARMAP, piece, piece) for piece in pieces))

    def report(self, record: ResultRecord) -> None:
        """Store a state of a running call and block until it is kept; for child processes."""
        self._outbox.report(record)

    def connect_to(self, broker: str, backend: str) -> None:
        """Make the app use these URLs; for child processes. An empty one keeps the app's own."""
        self._outbox.connect_to(broker or None, backend or None)

    @cached_property
    def defaults(self) -> SendOptions:
        """The options of its calls where none are given: the task's own over those of its route."""
        return self._own.over(self._outbox.routes.match(self.name))

    def call_with(self, options: SendOptions, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call[R]:
        """Describe a call with exactly these options; the task's own are not added."""
        self.arguments.check(args, kwargs, through=as_json if self._writes_json(options) else None)
        ignore_result = options.ignore_result
        if ignore_result is None:
            ignore_result = self.options.ignore_result
        if ignore_result is None and self._outbox.settings.ignore_result:
            ignore_result = True
        return Call(self.name, args, kwargs, options, self._convert, ignore_result)

    def signature_with(
        self,
        options: SendOptions,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        *,
        immutable: bool = False,
    ) -> Signature[R]:
        """Describe a call with these options as a part of a workflow."""
        if self._writes_json(options):
            self.arguments.check_part(args, kwargs, as_json, complete=immutable)
        return Signature(
            self.name,
            tuple(args),
            kwargs,
            self._for_signature(options),
            immutable,
            outlet=self._outbox,
            convert=self._convert,
        )

    def require_same(self, value: Any) -> None:
        """Raise ``EncodeError`` for a returned value that holds a record which JSON would change on its way."""
        self.returns.require_same(value, as_json)

    def _writes_json(self, options: SendOptions) -> bool:
        return (options.serializer or self._outbox.settings.serializer) in AS_JSON

    def _listed(self, what: str, items: Any) -> list[Any]:
        if not isinstance(items, Iterable):
            raise ConfigError(f"{self.name}.{what}: {items!r:.100} cannot be iterated over; give a list")
        return list(items)

    def _rows(self, what: str, items: Any) -> list[list[Any]]:
        rows = self._listed(what, items)
        for row in rows:
            if not isinstance(row, Iterable) or isinstance(row, str | bytes):
                raise ConfigError(
                    f"{self.name}.{what}: {row!r:.100} is no list of arguments; give such as (1, 2)"
                )
        return [list(row) for row in rows]

    def _iterating(self, name: str, items: list[Any], calls: Iterable[Sequence[Any]]) -> Signature[list[R]]:
        for args in calls if self._writes_json(self.defaults) else ():
            self.arguments.check_part(args, {}, as_json, complete=True)
        given = self.s()
        bare = write(self.name)
        return Signature(name, kwargs={"task": bare, "it": items}, options=given.options, outlet=self._outbox)

    def _for_signature(self, options: SendOptions) -> dict[str, Any]:
        found = signature_options(options)
        if "ignore_result" not in found and self.options.ignore_result is not None:
            found["ignore_result"] = self.options.ignore_result
        return found


def as_json(value: Any) -> Any:
    """Return a value as it arrives in JSON. Raises ``EncodeError``."""
    return decode_json(encode_json(value))


def signature_options(options: SendOptions) -> dict[str, Any]:
    """Return send options under the names that signatures use."""
    return {name: value for name in OPTION_NAMES if (value := getattr(options, name)) is not None}


class FunctionTask(Task[P, R]):
    """A task whose function is a plain one."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        value: R = self.run(args, kwargs)
        return value


class CoroutineTask(Task[P, R]):
    """A task whose function is a coroutine function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Return the function's coroutine, to be awaited here."""
        coroutine: Coroutine[Any, Any, R] = self.run(args, kwargs)
        return coroutine


class Sender(Generic[P, R]):
    """A task with options for sending; made by ``Task.using``."""

    def __init__(
        self,
        task: Task[P, R],
        outbox: Outbox,
        options: SendOptions = NO_OPTIONS,
        caller: Caller | None = None,
    ) -> None:
        self._task = task
        self._outbox = outbox
        self._caller = caller
        self._given = options
        self._options = options.over(task.defaults)

    def using(self, *, connection: Any = None, **options: Unpack[SendKeywords]) -> Sender[P, R]:
        """Return the task with these options too."""
        caller = Caller.of(connection) or self._caller
        return Sender(self._task, self._outbox, send_options(options).over(self._given), caller)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Describe a call, for ``app.send_many``."""
        return self._task.call_with(self._options, args, kwargs)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, Result[R]]:
        """Send a call; to be awaited. As ``Task.send``."""
        return self._outbox.send(self.call(*args, **kwargs), self._caller)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Result[R]:
        """Send a call and block until the broker has it. As ``Task.delay``."""
        return self._outbox.delay(self.call(*args, **kwargs), self._caller)

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Describe a call as a part of a workflow. As ``Task.s``."""
        return self._task.signature_with(self._options, args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Describe a call as a part of a workflow that takes no value. As ``Task.si``."""
        return self._task.signature_with(self._options, args, kwargs, immutable=True)


def _is_coroutine(function: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(function):
        return True
    return not inspect.isroutine(function) and inspect.iscoroutinefunction(type(function).__call__)
