"""Decides what is to be done with a message before anything runs.

Rules: pure; every message gets a verdict, whatever its shape.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TypeAlias

import msgspec

from celeriac.canvas.advance import obstacle
from celeriac.errors import ContentRefused, MalformedMessage, TaskNotFound
from celeriac.wire.envelope import Unreadable
from celeriac.wire.task import Malformed, TaskMessage


class Run(msgspec.Struct, frozen=True):
    """Run it now."""

    message: TaskMessage


class Hold(msgspec.Struct, frozen=True):
    """Its ETA is ahead: keep it until ``until`` (seconds since the epoch)."""

    message: TaskMessage
    until: float


class Discard(msgspec.Struct, frozen=True):
    """It must not run any more; the caller is told why (``expired``, ``revoked``)."""

    message: TaskMessage
    reason: str


class Refuse(msgspec.Struct, frozen=True):
    """It cannot run here; the caller gets the error and the message is set aside."""

    error: Exception
    id: str | None = None
    task: str | None = None
    message: TaskMessage | None = None


Admission: TypeAlias = Run | Hold | Discard | Refuse


def admit(
    content: TaskMessage | Malformed | Unreadable,
    known: Container[str],
    now: float,
) -> Admission:
    """Judge a message.

    :param known: the names of the tasks registered here.
    :param now: seconds since the epoch.
    """
    if not isinstance(content, TaskMessage):
        return _refuse_unread(content)
    if content.expires is not None and content.expires.timestamp() <= now:
        return Discard(content, "expired")
    if content.task not in known:
        return _refuse(content, TaskNotFound(content.task))
    if (reason := obstacle(content)) is not None:
        return _refuse(
            content, MalformedMessage(f"task {content.task}[{content.id}] cannot be taken here: {reason}")
        )
    if content.eta is not None and (until := content.eta.timestamp()) > now:
        return Hold(content, until)
    return Run(content)


def _refuse_unread(content: Malformed | Unreadable) -> Refuse:
    if isinstance(content, Unreadable):
        return Refuse(MalformedMessage(f"unreadable message: {content.reason}"))
    error = ContentRefused(content.reason) if content.refused else MalformedMessage(content.reason)
    return Refuse(error, id=content.id, task=content.task)


def _refuse(message: TaskMessage, error: Exception) -> Refuse:
    return Refuse(error, id=message.id, task=message.task, message=message)
