"""Decides whether a message runs. Each reason against running it is one step.

Rules: this module is pure. Every message gets a verdict, whatever its shape. The first step that objects decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec

from celeriac.canvas.advance import obstacle
from celeriac.canvas.budget import Budget
from celeriac.client.revocations import Revoked
from celeriac.contracts.broker import Delivery
from celeriac.errors import ContentRefused, MalformedMessage, TaskNotFound, WorkerLost
from celeriac.wire.envelope import Unreadable
from celeriac.wire.preview import counted
from celeriac.wire.task import Malformed, TaskMessage


class Run(msgspec.Struct, frozen=True):
    """Run it now."""

    message: TaskMessage


class RunApart(msgspec.Struct, frozen=True):
    """Run it for the last time, with no other such message beside it: workers died while they held it."""

    message: TaskMessage


class Hold(msgspec.Struct, frozen=True):
    """Its ETA is ahead: keep it until ``until`` (seconds since the epoch)."""

    message: TaskMessage
    until: float


class Discard(msgspec.Struct, frozen=True):
    """It must not run any more; the caller gets the reason (``expired``, ``revoked``)."""

    message: TaskMessage
    reason: str


class Drop(msgspec.Struct, frozen=True):
    """Another copy of it was taken before, and that one gives the result."""

    message: TaskMessage


class Refuse(msgspec.Struct, frozen=True):
    """It cannot run here; the caller gets the error and the message goes to the dead letters.

    :param message: as much of it as could be read.
    """

    error: Exception
    message: TaskMessage


Decline: TypeAlias = Hold | Discard | Drop | Refuse
Verdict: TypeAlias = Run | RunApart | Decline


class Facts(msgspec.Struct, frozen=True, gc=False):
    """The facts about a worker that its verdicts depend on.

    :param find: returns the task of that name; ``None`` where none is registered here.
    :param allowed: returns how often messages of a task may be delivered, given the task's name.
    :param budget: the limits on what a message may send on.
    :param unkept: returns why the result of a message could not be kept, ``None`` where it can.
    :param calls_back_unknown: whether errbacks of a task that is not registered here are called.
    """

    find: Callable[[str], object | None]
    allowed: Callable[[str], int]
    budget: Budget
    unkept: Callable[[TaskMessage], Exception | None]
    calls_back_unknown: bool = True


def admit(
    content: TaskMessage | Malformed | Unreadable,
    delivery: Delivery,
    facts: Facts,
    revoked: Revoked,
    now: float,
) -> Verdict:
    """Return the verdict of the first step that objects; ``Run`` where none does.

    :param content: what could be read of the delivery's message.
    :param now: seconds since the epoch; it is not looked at where the message names no time.
    """
    if not isinstance(content, TaskMessage):
        return _refuse_unread(content)
    kept_until = delivery.kept_until
    if content.expires is not None and content.expires.timestamp() <= max(now, kept_until or 0.0):
        return Discard(content, "expired")
    if (revoked.ids or revoked.roots or revoked.stamps) and revoked.names(content):
        return Discard(content, "revoked")
    if facts.find(content.task) is None:
        known = content if facts.calls_back_unknown else msgspec.structs.replace(content, errbacks=())
        return Refuse(TaskNotFound(content.task), known)
    leads_on = content.callbacks or content.errbacks or content.chain or content.chord
    if leads_on and (reason := obstacle(content, facts.budget)) is not None:
        text = f"task {content.task}[{content.id}] cannot be taken here: {reason}"
        return Refuse(MalformedMessage(text), content)
    if (error := facts.unkept(content)) is not None:
        return Refuse(error, content)
    if content.eta is not None and kept_until is None and (until := content.eta.timestamp()) > now:
        return Hold(content, until)
    if delivery.deliveries > 1:
        return _judge_again(content, delivery.deliveries, facts.allowed(content.task))
    return Run(content)


def _judge_again(message: TaskMessage, deliveries: int, allowed: int) -> Verdict:
    """Return the verdict on a message that was delivered before."""
    if deliveries > allowed:
        text = (
            f"{message.task}[{message.id}] was delivered {counted(deliveries - 1, 'time')} and no worker "
            f"lived to end it; max_deliveries is {allowed}"
        )
        return Refuse(WorkerLost(text), message)
    return RunApart(message) if deliveries == allowed else Run(message)


def _refuse_unread(content: Malformed | Unreadable) -> Refuse:
    if isinstance(content, Unreadable):
        stub = TaskMessage(id="", task="")
        return Refuse(MalformedMessage(f"unreadable message: {content.reason}"), stub)
    error = ContentRefused(content.reason) if content.refused else MalformedMessage(content.reason)
    return Refuse(error, TaskMessage(id=content.id or "", task=content.task or "", reply_to=content.reply_to))
