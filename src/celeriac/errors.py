"""Every exception of celeriac, in one tree.

Rules: a message names the object and the next step; driver errors are translated at the adapter's edge and chained
with ``from``; what a task raises to steer its own ending (``EndingRequested``) is not an error and stands apart.
"""

from __future__ import annotations

from typing import Any

import msgspec


class CeleriacError(Exception):
    """Root of everything celeriac raises."""


class ConfigError(CeleriacError):
    """A setting, URL or option cannot be used as given."""


class ScheduleError(ConfigError, ValueError):
    """A schedule cannot be read, or names a day that never comes. Celery raises ``ValueError`` for these."""


class WireError(CeleriacError):
    """Bytes and objects could not be turned into each other."""


class MalformedMessage(WireError):
    """A message does not have the shape that its protocol asks for."""


class ContentRefused(WireError):
    """A content type or compression is not in ``accept_content``, or its library is not installed."""


class EncodeError(WireError):
    """A value cannot be written with the chosen serializer, or is larger than the server takes."""


class BrokerError(CeleriacError):
    """The broker refused or failed an operation."""


class BrokerUnavailable(BrokerError):
    """The broker cannot be reached, or did not answer in time. Worth another try."""


class DeliveryLost(CeleriacError):
    """A receipt is void: its lease ended or its channel closed, and the message is back with the broker.

    The run it belonged to is over; settling it again is pointless, so this is never retried.
    """


class BackendError(CeleriacError):
    """The result store refused or failed an operation."""


class BackendUnavailable(BackendError):
    """The result store cannot be reached, or did not answer in time. Worth another try."""

    logged = False
    """Whether the log has this outage already."""


class ResultTimeout(CeleriacError, TimeoutError):
    """A result was not ready within the time that the caller gave."""


class ResultMissing(CeleriacError):
    """A value was asked for that no store keeps (``ignore_result``, or no backend)."""


class TaskError(CeleriacError):
    """Root of the endings that a caller sees in place of a task's value."""


class TaskNotFound(TaskError):
    """No task of that name is registered with the worker that took the message. Celery: ``NotRegistered``."""

    def __str__(self) -> str:
        name = ", ".join(map(str, self.args))
        return (
            f"{name}: the worker has no task of this name; import its module there, or send to another queue"
        )


class ArgumentError(TaskError, TypeError):
    """An argument does not fit the task's signature or type hints."""


class TaskRevoked(TaskError):
    """The task was revoked or expired before it ran. Celery: ``TaskRevokedError``."""


class SoftTimeLimitExceeded(TaskError):
    """The soft time limit passed while the task ran."""

    def __str__(self) -> str:
        return _passed("soft time limit", self.args)


class TimeLimitExceeded(TaskError):
    """The hard time limit passed while the task ran."""

    def __str__(self) -> str:
        return _passed("time limit", self.args)


class WorkerLost(TaskError):
    """The process that ran the task ended before the task did. Celery: ``WorkerLostError``."""


class ChordError(TaskError):
    """The body of a chord did not run since a part of the header failed. Celery: ``ChordError``."""


class TaskAborted(TaskError):
    """The task raised ``SystemExit`` or ``KeyboardInterrupt``, which may not end the worker.

    :ivar raised: the class of what it raised, where that is known.
    """

    raised: type[BaseException] | None = None


class RemoteError(TaskError):
    """The task failed with an exception that cannot be made again here.

    Its class is not imported here, or makes another exception of the arguments, or may not come out of a record since
    raising it means something else, such as a cancellation.

    :param type_name: qualified name of the original class.
    :param arguments: its ``args`` as far as they could be written.
    :param module: the module that the class was in, or ``None``.
    :param text: what the original says, where the arguments do not tell it.
    """

    def __init__(
        self,
        type_name: str,
        arguments: tuple[Any, ...] = (),
        module: str | None = None,
        text: str | None = None,
    ) -> None:
        super().__init__(type_name, arguments, module, *(() if text is None else (text,)))
        self.type_name = type_name
        self.arguments = arguments
        self.module = module
        self.text = text

    def __str__(self) -> str:
        text = ", ".join(str(argument) for argument in self.arguments) if self.text is None else self.text
        return f"{self.type_name}: {text}" if text else self.type_name


def _passed(limit: str, arguments: tuple[Any, ...]) -> str:
    match arguments:
        case (int() | float() as seconds,):
            return f"the {limit} of {seconds:g} s passed"
        case ():
            return f"the {limit} passed"
    return ", ".join(map(str, arguments))


class EndingRequested(Exception):
    """Root of what a task raises to choose its own ending."""


class Ignore(EndingRequested):
    """End the task without storing a result. The message is acknowledged."""


class Reject(EndingRequested):
    """Refuse the message: put it back (``requeue=True``) or dead-letter it.

    :param reason: text for the caller and the dead-letter list.
    :param requeue: give the message back to the queue instead.
    """

    def __init__(self, reason: str = "rejected by the task", *, requeue: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.requeue = requeue


class RetryRequested(EndingRequested):
    """Run the task again under the same id; raised by ``Context.retry``.

    :param countdown: seconds until the next attempt; ``None`` asks the task's retry policy.
    :param cause: the exception that led here; it is what the caller gets when attempts run out.
    :param max_attempts: overrides the policy's limit for this task.
    """

    def __init__(
        self,
        countdown: float | None = None,
        cause: BaseException | None = None,
        max_attempts: int | None = None,
        arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(countdown, cause)
        self.countdown = countdown
        self.cause = cause
        self.max_attempts = max_attempts
        self.arguments = arguments


class ReplaceRequested(EndingRequested):
    """Run a workflow in the task's place, under its id; raised by ``Context.replace``.

    :param signature: Celery's dictionary form.
    """

    def __init__(self, signature: dict[str, Any]) -> None:
        super().__init__(signature)
        self.signature = signature


class Finding(msgspec.Struct, frozen=True):
    """Something that works, but not as it should.

    :param text: what it is, and what comes of it.
    :param fix: what to do about it.
    """

    text: str
    fix: str = ""
