"""Removes tasks that wait: their messages leave the queue or the schedule, and their results say so.

Rules: what is removed ends as REVOKED, so that a caller need not wait for it; no worker hears of it, so a chord that it
is a part of does not end. A message that names no task is chosen by a digest of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from hashlib import blake2b

import msgspec

from celeriac.client.app import App
from celeriac.client.revoking import end_waiting
from celeriac.contracts.broker import Parked
from celeriac.contracts.removal import Removing
from celeriac.errors import BrokerError
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.task import decode

PAGE = 500


class Waiting(msgspec.Struct, frozen=True):
    """A message that waits, as people choose it.

    :param key: the id of its task, or what stands for the message where it names none.
    :param id: of its task; ``""`` where it names none, as ``task``.
    :param task: the name of its task.
    """

    key: str
    id: str = ""
    task: str = ""


class Step(msgspec.Struct, frozen=True):
    """What one step of a removal did.

    :param looked: at how many messages.
    """

    looked: int
    removed: Sequence[Waiting]


def waiting_of(content: Envelope | Unreadable, codecs: Codecs) -> Waiting:
    """Return what people choose a message by. Never raises."""
    if isinstance(content, Unreadable):
        return Waiting(_digest(content.raw))
    message = decode(content, codecs)
    id = message.id or ""
    return Waiting(id or _digest(content.body), id, message.task or "")


async def remove_waiting(app: App, queue: str, chosen: Callable[[Waiting], bool]) -> AsyncIterator[Step]:
    """Remove the messages of a queue that are chosen; yield what each step did.

    Raises ``BrokerError`` where the broker cannot do it, and as ``celeriac.contracts.removal.Removing`` does.
    """
    connections, codecs = app.connections(), app.codecs
    broker = connections.broker
    if not isinstance(broker, Removing):
        raise BrokerError(f"single tasks cannot be removed from queue {queue} of this broker: revoke them")
    async for step in broker.remove(queue, lambda content: chosen(waiting_of(content, codecs))):
        removed = [waiting_of(content, codecs) for content in step.messages]
        await end_waiting(connections.backend, [one.id for one in removed if one.id], app.clock.now())
        yield Step(step.looked, removed)


async def cancel_parked(app: App, entries: Sequence[Parked]) -> None:
    """Revoke tasks that are parked, and take their messages out of the schedule."""
    ids = [waiting_of(entry.envelope, app.codecs).id for entry in entries]
    # Revoked first: one that comes due in this moment does not run either.
    await app.cancel([id for id in ids if id])
    await app.connections().broker.schedule.delete([entry.id for entry in entries])


async def all_parked(app: App) -> AsyncIterator[Parked]:
    """Yield what is parked, the next one first."""
    schedule, offset = app.connections().broker.schedule, 0
    while page := await schedule.list(PAGE, offset):
        offset += len(page)
        for parked in page:
            yield parked


def _digest(raw: bytes) -> str:
    return f"#{blake2b(raw, digest_size=8).hexdigest()}"
