"""Messages as rows of a table: what they are, and how they are settled, whatever the database.

Rules: a message that is taken belongs to an *owner*, which is a process that lives. A database has queues and no
exchanges, so a message goes to the queue of its route, or to the queue that its routing key names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from celeriac.contracts.board import Mark
from celeriac.contracts.set_aside import Failed
from celeriac.errors import DeliveryLost, EncodeError
from celeriac.servers.coalesce import by_size
from celeriac.servers.ids import new_id
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.frame import mark_redelivered, pack, unpack
from celeriac.wire.names import HIGHEST_PRIORITY, is_text

BATCH_BYTES = 32 * 1024 * 1024
"""Bytes of frames that go through one statement, if there is more than one frame."""

AHEAD_BYTES = 1024 * 1024
"""Bytes of frames that are taken although they cannot start yet."""

_LONGEST_ID = 19
"""Digits of the largest number of a row."""

Verb = Literal["ack", "requeue", "return", "park", "bury", "fail"]


class NewMessage(msgspec.Struct, frozen=True):
    """A message to be added.

    :param due: with it, the message is parked until then (seconds since the epoch).
    """

    queue: str
    priority: int
    frame: bytes
    due: float | None = None


class TakenMessage(msgspec.Struct, frozen=True):
    """A message that was taken.

    :param owner: whom it belongs to until it is settled.
    :param deliveries: how often an owner died while it held this message.
    :param take: the number of the take, where one owner may take a message again before it knows that it gave it back.
    """

    id: int
    owner: int
    queue: str
    redelivered: bool
    deliveries: int
    frame: bytes
    take: int = 0

    @property
    def envelope(self) -> Envelope | Unreadable:
        """The envelope in the frame, marked as redelivered if the message was taken before."""
        if self.redelivered:
            return unpack(mark_redelivered(self.frame, self.deliveries or None))
        return unpack(self.frame)


class Settlement(msgspec.Struct, frozen=True):
    """How a taken message is settled.

    :param detail: the time when it is due, why it is dead, or what failed.
    :param mark: a mark of the board that goes with it.
    :param take: the number of the take that it settles.
    """

    verb: Verb
    id: int
    owner: int
    queue: str
    detail: float | str | Failed | None = None
    mark: Mark | None = None
    take: int = 0


class DeadMessage(msgspec.Struct, frozen=True):
    """A message that was set aside."""

    id: int
    queue: str
    reason: str
    died_at: float
    frame: bytes


def new_message(envelope: Envelope, route: Route) -> NewMessage:
    """Return what is to be added. Raises ``EncodeError`` for a name or a header that cannot be written."""
    queue = route.queue or route.routing_key
    if not is_text(queue):
        raise EncodeError(f"queue {queue!r} is no text that can be stored; give the queue another name")
    tag = envelope.delivery_tag or new_id()
    priority = min(max(envelope.priority, 0), HIGHEST_PRIORITY)
    frame = pack(envelope, delivery_tag=tag, route=route)
    return NewMessage(queue, priority, frame, route.due)


def split_by_size(messages: Sequence[NewMessage]) -> Iterator[Sequence[NewMessage]]:
    """Yield the messages in batches of at most ``BATCH_BYTES``, or of one message."""
    return by_size(messages, lambda message: len(message.frame), BATCH_BYTES)


def row_ids(ids: Sequence[str]) -> list[int]:
    """Return the ids that can be a row's."""
    numbers = [int(name) for name in ids if name.isdecimal() and len(name) <= _LONGEST_ID]
    return [number for number in numbers if number < 1 << 63]


def lost_delivery(settlement: Settlement) -> DeliveryLost:
    """Return what says that a receipt is void."""
    return DeliveryLost(
        f"message {settlement.id} of queue {settlement.queue!r} is not held any more: it was settled or is another's"
    )
