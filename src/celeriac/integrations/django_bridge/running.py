"""One run of a Django task by a worker: its context, its signals, its value."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from inspect import iscoroutinefunction
from typing import Any

import msgspec
from django.utils import timezone
from django.utils.module_loading import import_string

from celeriac.errors import ConfigError
from celeriac.integrations.django_bridge.facts import HEADER, Facts, read_facts
from celeriac.integrations.django_bridge.framework import Framework


def task_at(frame: Framework, path: str) -> Any:
    """Return the Django task at a dotted path. Raises ``ConfigError`` where there is another thing, or none."""
    try:
        found = import_string(path)
    except ImportError as error:
        raise ConfigError(f"the Django task {path} is not there: {error}") from error
    if not isinstance(found, frame.task):
        raise ConfigError(f"{path} is no Django task but a {type(found).__name__}")
    return found


def result_of(frame: Framework, task_id: str, facts: Facts, task: Any, status: Any) -> Any:
    """Return the ``TaskResult`` of a call, without errors and value."""
    return frame.result(
        task=task.using(
            priority=facts.priority,
            queue_name=facts.queue,
            run_after=facts.run_after,
            backend=facts.alias,
        ),
        id=task_id,
        status=status,
        enqueued_at=facts.enqueued_at,
        started_at=facts.started_at,
        finished_at=None,
        last_attempted_at=facts.last_attempted_at,
        args=facts.args,
        kwargs=facts.kwargs,
        backend=facts.alias,
        errors=[],
        worker_ids=list(facts.workers),
    )


def put(result: Any, **changes: Any) -> Any:
    """Change a ``TaskResult``, which is frozen for its users, as Django's own backends do; return it."""
    for name, value in changes.items():
        object.__setattr__(result, name, value)
    return result


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker knows of a message with a Django task.

    :param is_again: whether an earlier attempt may have been noted.
    """

    id: str
    worker: str
    headers: Mapping[str, Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    is_again: bool

    def facts(self, path: str, alias: str) -> Facts:
        """Return the facts that the message carries; made up for one that was sent without this backend."""
        now = timezone.now()
        found = read_facts(self.headers.get(HEADER))
        if found is None:
            found = Facts(task=path, alias=alias, queue="default", priority=0, enqueued_at=now)
        return msgspec.structs.replace(found, args=list(self.args), kwargs=dict(self.kwargs))


class Run:
    """One run.

    :ivar facts: those of the run, with its start.
    """

    def __init__(self, frame: Framework, sender: type, task: Any, call: Call, facts: Facts) -> None:
        self.facts = facts.begun(timezone.now(), call.worker)
        self._frame = frame
        self._sender = sender
        self._task = task
        self._call = call
        self._result = result_of(frame, call.id, self.facts, task, frame.status.RUNNING)

    @property
    def function(self) -> Any:
        """The function to be called, with ``args`` and ``kwargs``."""
        return self._task.func

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments, the context among them where the task takes it."""
        context = (self._frame.context(task_result=self._result),) if self._task.takes_context else ()
        return (*context, *self._call.args)

    @property
    def kwargs(self) -> dict[str, Any]:
        """The named arguments."""
        return dict(self._call.kwargs)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Send Django's signals around the block, which is to call ``returned``."""
        self._frame.started.send(self._sender, task_result=self._result)
        try:
            yield
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self._frame.finished.send(self._sender, task_result=self._result)

    @asynccontextmanager
    async def atold(self) -> AsyncIterator[None]:
        """Do so in a coroutine; receivers that are plain functions run in a thread."""
        await self._frame.started.asend(self._sender, task_result=self._result)
        try:
            yield
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            await self._frame.finished.asend(self._sender, task_result=self._result)

    def returned(self, value: Any) -> Any:
        """Return a value in the form in which it is kept. Raises ``TypeError`` for one that JSON has not."""
        kept = self._frame.normalize(value)
        status = self._frame.status.SUCCESSFUL
        put(self._result, status=status, finished_at=timezone.now(), _return_value=kept)
        return kept

    def _failed(self, error: BaseException) -> None:
        found = self._frame.error(exception_class_path=path_of(type(error)), traceback=text_of(error))
        self._result.errors.append(found)
        put(self._result, status=self._frame.status.FAILED, finished_at=timezone.now())


def is_coroutine(task: Any) -> bool:
    """Whether a Django task's function is a coroutine function."""
    return iscoroutinefunction(task.func)


def path_of(kind: type) -> str:
    """Return the dotted path of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def text_of(error: BaseException) -> str:
    """Return the traceback of an exception as text."""
    return "".join(traceback.format_exception(error))
