"""The context: facts that a running task may ask for, and actions that it may take.

Rules: nothing here waits, so all of it may be called from a coroutine and from a thread alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import datetime
from types import MappingProxyType
from typing import Any, Never, NoReturn

import msgspec

from celeriac.canvas.nodes import Node, checked
from celeriac.errors import ConfigError, Ignore, Reject, ReplaceRequested, RetryRequested
from celeriac.porting import CONTEXT, RETRY, explains
from celeriac.quantities import DELAY, number, or_none, require, whole
from celeriac.wire.result import ResultRecord
from celeriac.wire.task import TaskMessage

TASK_LOGGER = logging.getLogger("celeriac.task")

PROGRESS = "PROGRESS"
"""The custom state that ``Context.progress`` reports; its meta has ``current``, ``total`` and ``message``."""

NO_STATE: Mapping[str, Any] = MappingProxyType({})
NO_FIELDS: Mapping[str, str] = MappingProxyType({})

CURRENT: ContextVar[Context | None] = ContextVar("celeriac_context", default=None)
"""The context of the task that runs here; set by the worker."""


def current_context() -> Context | None:
    """Return the context of the task that this code runs in, ``None`` outside of one."""
    return CURRENT.get()


class TaskLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the task's id and name on every line, as text and as the record's ``task_id`` and ``task_name``."""

    def __init__(self, task_id: str, task_name: str, fields: Mapping[str, str]) -> None:
        super().__init__(TASK_LOGGER, {"task_id": task_id, "task_name": task_name, **fields})

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


@explains("a context", CONTEXT)
class Context(msgspec.Struct, eq=False):
    """One run of a task. A parameter annotated ``Context`` is filled with it; it is never sent.

    :param message: the task message.
    :param queue: the queue that it came from.
    :param report: takes a record of progress or a custom state; called from the task's thread.
    :param worker: the worker's node name.
    :param deadline: when the run's soft or hard limit ends, in seconds of ``time.monotonic``; ``None`` without limit.
    :param redelivered: an earlier delivery of the message was not settled.
    :param state: what the worker's lifespans yielded.
    """

    message: TaskMessage
    queue: str = ""
    report: Callable[[ResultRecord], None] | None = None
    worker: str = ""
    deadline: float | None = None
    redelivered: bool = False
    state: Mapping[str, Any] = NO_STATE
    """The objects that the worker's lifespans yielded, by name, such as a database pool. Do not change it."""
    children: list[Any] = []
    """Celery result tuples of the tasks that were sent from this one."""
    joiners: list[dict[str, Any]] = []
    """Signatures of the tasks that join the chord which this one is a part of, once it has succeeded."""
    log_fields: Mapping[str, str] = NO_FIELDS
    """What the task's lines in the log carry besides its id and name, such as ``trace_id`` and ``span_id``."""
    carried: Mapping[str, str] = NO_FIELDS
    """What a listener's ``around_body`` gets in a process of the pool, such as the headers of a trace."""
    _logger: TaskLogger | None = None

    def __repr__(self) -> str:
        return f"<Context {self.message.task}[{self.message.id}]>"

    @property
    def id(self) -> str:
        """The call's id; the same for every attempt."""
        return self.message.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self.message.task

    @property
    def args(self) -> list[Any]:
        """The positional arguments as they were sent."""
        return list(self.message.args)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments as they were sent."""
        return self.message.kwargs

    @property
    def retries(self) -> int:
        """How often the task was retried; 0 in the first run."""
        return self.message.retries

    @property
    def attempt(self) -> int:
        """Which run this is; 1 is the first."""
        return self.message.retries + 1

    @property
    def root_id(self) -> str | None:
        """The id of the first task of the tree that this one belongs to."""
        return self.message.root_id

    @property
    def parent_id(self) -> str | None:
        """The id of the task that sent this one."""
        return self.message.parent_id

    @property
    def group_id(self) -> str | None:
        """The id of the group that this task belongs to."""
        return self.message.group

    @property
    def group_index(self) -> int | None:
        """Its place in the group."""
        return self.message.group_index

    @property
    def headers(self) -> dict[str, Any]:
        """The custom headers of the message."""
        return self.message.headers

    @property
    def reply_to(self) -> str | None:
        """The queue that the sender wants results in."""
        return self.message.reply_to

    @property
    def correlation_id(self) -> str | None:
        """The message's correlation id."""
        return self.message.correlation_id

    @property
    def eta(self) -> datetime | None:
        """The time before which the task was not to run."""
        return self.message.eta

    @property
    def expires(self) -> datetime | None:
        """The time after which the task was not to run."""
        return self.message.expires

    @property
    def logger(self) -> TaskLogger:
        """A logger whose records carry the task's id and name."""
        if self._logger is None:
            self._logger = TaskLogger(self.message.id, self.message.task, self.log_fields)
        return self._logger

    def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Report how far the task is: state PROGRESS with ``current``, ``total`` and ``message``.

        Raises ``ConfigError`` for what are no numbers, 0 or more.
        """
        require("progress(done={})", done, number(0))
        require("progress(total={})", total, or_none(number(0)))
        self.update_state(PROGRESS, {"current": done, "total": total, "message": message})

    def update_state(self, state: str, meta: Any = None) -> None:
        """Report a state of your own with any value that the result serializer can write."""
        if self.report is not None:
            self.report(
                ResultRecord(
                    task_id=self.message.id,
                    status=state,
                    result=meta,
                    group_id=self.message.group,
                    parent_id=self.message.parent_id,
                    name=self.message.task,
                    args=self.message.args,
                    kwargs=self.message.kwargs,
                    worker=self.worker,
                    retries=self.message.retries,
                    queue=self.queue,
                    reply_to=self.message.reply_to,
                )
            )

    def retry(
        self,
        *,
        countdown: float | None = None,
        cause: BaseException | None = None,
        max_attempts: int | None = None,
        args: tuple[Any, ...] | list[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        **unknown: Never,
    ) -> NoReturn:
        """End this run and ask for another under the same id; raises ``RetryRequested``.

        :param countdown: seconds until then; ``None`` asks the task's retry policy.
        :param cause: what the caller gets when the attempts run out; in an ``except`` block the exception at hand.
        :param max_attempts: how often the task may run, instead of the policy's number.
        :param args: other positional arguments for the next run.
        :param kwargs: other keyword arguments for the next run.

        Raises ``ConfigError`` for a delay or number out of range, and for a cause that is no exception.
        """
        for name in unknown:
            instead = f"; in its place write {RETRY[name]}" if name in RETRY else ""
            raise TypeError(f"ctx.retry() takes no {name}={instead}")
        require("retry(countdown={})", countdown, or_none(DELAY))
        require("retry(max_attempts={})", max_attempts, or_none(whole(1)))
        if cause is not None and not isinstance(cause, BaseException):
            raise ConfigError(f"retry(cause={cause!r:.200}): give the exception, or None")
        arguments = None
        if args is not None or kwargs is not None:
            arguments = (
                tuple(self.message.args if args is None else args),
                dict(self.message.kwargs if kwargs is None else kwargs),
            )
        raise RetryRequested(countdown, cause, max_attempts, arguments)

    def replace(self, workflow: Node[Any]) -> NoReturn:
        """End this run and run a workflow in the task's place; raises ``ReplaceRequested``.

        The workflow takes over the task's id, so that the caller gets the workflow's value, and the task's place in a
        chain, group or chord. A group's value is the list of its members' values.
        """
        raise ReplaceRequested(checked(workflow).to_dict())

    def add_to_chord(self, *workflows: Node[Any]) -> None:
        """Let further workflows be parts of the chord that this task is a part of.

        They are sent once the task has succeeded, and run anew with it when it is retried. Raises ``ConfigError``
        when the task is part of no chord.
        """
        if self.message.chord is None or self.message.group is None:
            raise ConfigError(f"task {self.task}[{self.id}] is part of no chord that another could join")
        self.joiners.extend([checked(workflow).to_dict() for workflow in workflows])

    def reject(self, reason: str = "rejected by the task", *, requeue: bool = False) -> NoReturn:
        """End the task and refuse the message: dead-letter it, or put it back; raises ``Reject``."""
        raise Reject(reason, requeue=requeue)

    def ignore(self) -> NoReturn:
        """End the task without a result; raises ``Ignore``."""
        raise Ignore
