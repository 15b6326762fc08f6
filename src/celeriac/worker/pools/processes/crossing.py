"""The form in which a call goes to a child, and in which its ending comes back."""

from __future__ import annotations

import pickle
from contextlib import suppress
from io import BytesIO
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

import msgspec

from celeriac.errors import EncodeError, ReplaceRequested, RetryRequested
from celeriac.wire.task import TaskMessage
from celeriac.worker.pool import Call
from celeriac.worker.pools.processes.portable import Likeness, portable, restored
from celeriac.worker.raised import as_exception, place_of
from celeriac.worker.runnable import Runnable

Body: TypeAlias = "bytes | bytearray | memoryview"


class ContextHere:
    """Stands for the context in the arguments on their way to the child."""


class Told(NamedTuple):
    """A call as the child gets it.

    :param reference: the task, pickled by itself.
    :param message: the fields of the message.
    :param left: seconds from its beginning to its deadline.
    :param carried: the fields of its lines in the log, and what its context carries; ``None`` where there are none.
    :param concludes: the tag of the message and whether it is acknowledged, where the child decides the ending itself.
    """

    reference: bytes
    args: list[Any]
    kwargs: dict[str, Any]
    message: tuple[Any, ...]
    queue: str
    worker: str
    left: float | None
    redelivered: bool
    soft: float | None
    concludes: tuple[str | None, bool] | None
    carried: tuple[dict[str, str], dict[str, str]] | None


class Ended(msgspec.Struct):
    """The ending of a call that did more than return a value.

    :param value: the value that it returned, pickled.
    :param request: the request for a retry or a replacement that it raised, pickled.
    :param error: any other exception that it raised.
    :param cause: the exception for which a retry was requested.
    :param place: the place where the exception was raised.
    :param children: Celery result tuples of the tasks that it sent.
    """

    value: bytes = b""
    request: bytes = b""
    error: Likeness | None = None
    cause: Likeness | None = None
    place: str = ""
    children: list[Any] = []
    joiners: list[dict[str, Any]] = []


def written(call: Call, reference: bytes) -> bytes:
    """Return a call as bytes. Raises ``EncodeError`` for arguments that cannot go to another process.

    First, and readable without the rest, comes what acknowledges the message before the run, pickled, and by which tag;
    ``None`` where it is done.
    """
    context = call.context
    args, kwargs = call.args, call.kwargs
    for value in (*args, *kwargs.values()):
        if value is context:
            args = [ContextHere() if value is context else value for value in args]
            kwargs = {name: ContextHere() if value is context else value for name, value in kwargs.items()}
            break
    # A tuple of its fields takes a quarter of the time of a struct.
    message = msgspec.structs.astuple(context.message)
    told: tuple[Any, ...] = (
        reference,
        args,
        kwargs,
        message,
        context.queue,
        context.worker,
        None if context.deadline is None else context.deadline - monotonic(),
    )
    try:
        conclusion = call.conclusion
        concludes = None if conclusion is None else (conclusion.tag, conclusion.gone)
        carried = None
        if context.log_fields or context.carried:
            carried = (dict(context.log_fields), dict(context.carried))
        told = (*told, context.redelivered, call.soft, concludes, carried)
        delegate = pickle.dumps(call.delegate, pickle.HIGHEST_PROTOCOL)
        return delegate + pickle.dumps(told, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:
        raise EncodeError(
            f"task {call.task.name}: its arguments cannot go to a child process: {error}"
        ) from error


def read_delegate(body: Body) -> tuple[bytes, str] | None:
    """Return what acknowledges the message of a call; nothing of the user's is read for that."""
    delegate: tuple[bytes, str] | None = pickle.loads(body)  # noqa: S301 - our own bytes; what follows is not looked at
    return delegate


def read(body: Body) -> tuple[tuple[bytes, str] | None, Told]:
    """Return what acknowledges the message, and the call. Raises whatever the classes of its arguments raise."""
    source = BytesIO(body)
    return pickle.load(source), Told(*pickle.load(source))  # noqa: S301 - our own bytes


def message_of(told: Told) -> TaskMessage:
    """Return the message of a call. Making it takes longer than all else, so it is made only on demand."""
    return TaskMessage(*told.message)


def pickled_value(name: str, value: Any) -> bytes:
    """Return the pickle of a task's value. Raises ``EncodeError``."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except BaseException as error:  # noqa: BLE001 - the value may refuse in any way
        raise EncodeError(f"task {name}: its value cannot leave the child process: {error}") from None


def unpickled_value(task: Runnable, value: bytes | bytearray | memoryview) -> Any:
    """Return the value. Raises ``EncodeError`` where only the child could unpickle it."""
    try:
        return pickle.loads(value)  # noqa: S301 - our own bytes
    except BaseException as error:
        raise EncodeError(
            f"task {task.name}: its value cannot come back from the child process: {error}"
        ) from error


def note(ended: Ended, error: Exception) -> None:
    """Put the exception of a call into its ending, in a form that survives the way to the worker."""
    raised: BaseException = error
    if isinstance(error, RetryRequested):
        # Neither cause nor context of an exception is pickled.
        cause = error.cause or error.__cause__ or error.__context__
        if cause is not None:
            ended.cause, raised = portable(as_exception(cause)), cause
        _request(ended, RetryRequested(error.countdown, None, error.max_attempts, error.arguments))
    elif isinstance(error, ReplaceRequested):
        _request(ended, error)
    else:
        ended.error = portable(error)
    ended.place = place_of(raised)


def _request(ended: Ended, request: RetryRequested | ReplaceRequested) -> None:
    try:
        ended.request = pickle.dumps(request)
        pickle.loads(ended.request)  # noqa: S301 - our own bytes
    except BaseException:  # noqa: BLE001 - what it carries may refuse in any way
        ended.request = b""
        what = "the arguments of the next run" if isinstance(request, RetryRequested) else "a workflow"
        ended.error = portable(_cannot_come_back(what))


def _cannot_come_back(what: str) -> EncodeError:
    return EncodeError(f"{what} cannot come back from the child process: it cannot be pickled")


def raised_there(ended: Ended) -> Exception:
    """Return the exception, with a note that says where it was raised."""
    error = noted = _raised(ended)
    if isinstance(error, RetryRequested) and ended.cause is not None:
        noted = error.cause = restored(ended.cause)
    with suppress(Exception):  # a class of the user's may refuse to be set attributes
        noted.add_note(ended.place)
    return error


def _raised(ended: Ended) -> Exception:
    if ended.error is not None:
        return restored(ended.error)
    try:
        request: Exception = pickle.loads(ended.request)  # noqa: S301 - our own bytes
    except BaseException:  # noqa: BLE001 - what it carries may be known in the child alone
        return _cannot_come_back("what it asked for")
    return request
