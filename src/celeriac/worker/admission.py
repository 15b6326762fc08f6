"""Decides what is to be done with a message before anything runs.

Rules: pure; every message gets a verdict, whatever its shape.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TypeAlias

import msgspec

from celeriac.broker import Revoked
from celeriac.canvas.advance import obstacle
from celeriac.errors import ContentRefused, MalformedMessage, TaskNotFound, WorkerLost
from celeriac.wire.envelope import Unreadable
from celeriac.wire.task import Malformed, TaskMessage

NOTHING_REVOKED = Revoked()


class Run(msgspec.Struct, frozen=True):
    """Run it now."""

    message: TaskMessage


class RunApart(msgspec.Struct, frozen=True):
    """Run it for the last time: workers died while they had it, or had another message that they died of."""

    message: TaskMessage


class Hold(msgspec.Struct, frozen=True):
    """Its ETA is ahead: keep it until ``until`` (seconds since the epoch)."""

    message: TaskMessage
    until: float


class Discard(msgspec.Struct, frozen=True):
    """It must not run any more; the caller is told why (``expired``, ``revoked``)."""

    message: TaskMessage
    reason: str


class Drop(msgspec.Struct, frozen=True):
    """Another copy of it was taken before: nobody misses it."""


class Refuse(msgspec.Struct, frozen=True):
    """It cannot run here; the caller gets the error and the message is set aside."""

    error: Exception
    id: str | None = None
    task: str | None = None
    message: TaskMessage | None = None
    reply_to: str | None = None


Admission: TypeAlias = Run | RunApart | Hold | Discard | Drop | Refuse


def admit(
    content: TaskMessage | Malformed | Unreadable,
    known: Container[str],
    now: float,
    revoked: Revoked = NOTHING_REVOKED,
) -> Admission:
    """Judge a message.

    :param known: the names of the tasks registered here.
    :param now: seconds since the epoch.
    :param revoked: what must not run any more.
    """
    if not isinstance(content, TaskMessage):
        return _refuse_unread(content)
    if content.expires is not None and content.expires.timestamp() <= now:
        return Discard(content, "expired")
    if content.id in revoked.ids or content.root_id in revoked.roots:
        return Discard(content, "revoked")
    if content.task not in known:
        return _refuse(content, TaskNotFound(content.task))
    if (reason := obstacle(content)) is not None:
        return _refuse(
            content, MalformedMessage(f"task {content.task}[{content.id}] cannot be taken here: {reason}")
        )
    if content.eta is not None and (until := content.eta.timestamp()) > now:
        return Hold(content, until)
    return Run(content)


def refuse_poison(message: TaskMessage, deliveries: int, allowed: int) -> Refuse:
    """Refuse a message of which workers have died: it was handed out ``deliveries`` times, ``allowed`` at the most."""
    return _refuse(
        message,
        WorkerLost(
            f"{message.task}[{message.id}] was delivered {deliveries - 1} times and no worker lived to end it; "
            f"max_deliveries is {allowed}"
        ),
    )


def _refuse_unread(content: Malformed | Unreadable) -> Refuse:
    if isinstance(content, Unreadable):
        return Refuse(MalformedMessage(f"unreadable message: {content.reason}"))
    error = ContentRefused(content.reason) if content.refused else MalformedMessage(content.reason)
    return Refuse(error, id=content.id, task=content.task, reply_to=content.reply_to)


def _refuse(message: TaskMessage, error: Exception) -> Refuse:
    return Refuse(error, id=message.id, task=message.task, message=message)
