"""Runs plain functions in child processes.

Rules: a task travels by reference (module and name), never by value; giving up a call kills its process, and a process
that dies takes only its own call with it. Children ignore SIGINT: the worker says when they end.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import signal
from collections.abc import Mapping
from typing import Any

from pebble import ProcessExpired, ProcessPool

from celeriac.context import CURRENT, Context
from celeriac.errors import ConfigError, RemoteError, RetryRequested, WorkerLost
from celeriac.task import Task
from celeriac.wire.failure import describe, format_traceback
from celeriac.wire.task import TaskMessage


class Processes:
    """A pool of ``limit`` processes, started by ``spawn``.

    :param tasks: the app's tasks; every plain function among them must be reachable as ``module.name``.

    Raises ``ConfigError`` naming a task that a child process could not find.
    """

    def __init__(self, limit: int, tasks: Mapping[str, Task[Any, Any]]) -> None:
        for task in tasks.values():
            if not task.is_coroutine:
                _check_reachable(task)
        self._pool = ProcessPool(
            max_workers=limit, initializer=_ignore_interrupts, context=multiprocessing.get_context("spawn")
        )

    async def call(
        self, task: Task[Any, Any], args: list[Any], kwargs: dict[str, Any], context: Context
    ) -> Any:
        """Run the function in a child; on cancellation the child is killed."""
        call = (task, _without(context, args), _without_in(context, kwargs), context.message, context.queue)
        future = self._pool.schedule(_run_in_child, args=(*call, context.worker, context.redelivered))
        try:
            value, children = await asyncio.wrap_future(future)
        except ProcessExpired as error:
            raise WorkerLost(
                f"the process that ran {task.name} ended with exit code {error.exitcode}"
            ) from error
        context.children.extend(children)
        return value

    async def close(self) -> None:
        """Kill what still runs and end the children."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        await asyncio.to_thread(self._pool.join)


class _ContextHere:
    """Stands for the context in the arguments on their way to the child."""


def _without(context: Context, args: list[Any]) -> list[Any]:
    return [_ContextHere() if value is context else value for value in args]


def _without_in(context: Context, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: _ContextHere() if value is context else value for name, value in kwargs.items()}


def _run_in_child(
    task: Task[Any, Any],
    args: list[Any],
    kwargs: dict[str, Any],
    message: TaskMessage,
    queue: str,
    worker: str,
    redelivered: bool,
) -> tuple[Any, list[Any]]:
    context = Context(message, queue=queue, report=task.report, worker=worker, redelivered=redelivered)
    CURRENT.set(context)
    args = [context if isinstance(value, _ContextHere) else value for value in args]
    kwargs = {name: context if isinstance(value, _ContextHere) else value for name, value in kwargs.items()}
    try:
        value = task.function(*args, **kwargs)
        pickle.dumps(value)
    except Exception as error:  # noqa: BLE001 - it goes to the parent, which judges it
        raise _portable(error) from None
    return value, context.children


def _portable(error: Exception) -> Exception:
    """Return the exception in a form that survives the way to the parent, its traceback as a note."""
    if isinstance(error, RetryRequested) and error.cause is None:
        # Neither cause nor context of an exception is pickled.
        error.cause = error.__cause__ or error.__context__
    error.add_note(format_traceback(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - a class of the user's may fail in any way
        failure = describe(error)
        arguments = failure.exc_message if isinstance(failure.exc_message, list) else [failure.exc_message]
        return RemoteError(failure.exc_type, tuple(arguments), failure.exc_module)
    return error


def _check_reachable(task: Task[Any, Any]) -> None:
    try:
        pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"task {task.name} cannot run in the process pool: a child process cannot import it ({error}); "
            "define it at the top level of a module, or use the pool 'threads'"
        ) from error


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
