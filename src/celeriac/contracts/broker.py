"""The contract of a broker: take messages in, hand them out safely.

Rules: a broker never raises on content (what it cannot read arrives as ``Unreadable``); it translates its driver's
errors into ``BrokerUnavailable`` (worth another try) or ``BrokerError``; a message that was taken is on record with
the broker until its receipt is settled; an optional ability is an optional object; no driver type crosses this line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec

from celeriac.contracts.board import Board, Mark
from celeriac.contracts.fanout import Fanout
from celeriac.contracts.set_aside import DeadLetters, Failed, FailedTasks
from celeriac.contracts.transactions import Transactions
from celeriac.errors import Finding
from celeriac.wire.envelope import Envelope, Route, Unreadable


class Receipt(Protocol):
    """The right to settle one delivery, once.

    Every method raises ``DeliveryLost`` when the receipt is void (the lease ended, the channel closed), and
    ``BrokerUnavailable`` when the broker cannot be asked, in which case the same call may be made again.
    Calls made at the same time share round trips.
    """

    async def ack(self, *, surely: bool = False) -> None:
        """Remove the message: it was dealt with.

        :param surely: return only when it will not come again whatever becomes of this process; otherwise the word may
            still be on its way to the broker.
        """
        ...

    async def requeue(self) -> None:
        """Give the message back; it is the next to be taken and is marked as redelivered."""
        ...

    async def park(self, due: float) -> None:
        """Keep the message with the broker until ``due`` (seconds since the epoch), then queue it as the next."""
        ...

    async def bury(self, reason: str) -> None:
        """Move the message to the dead-letter list."""
        ...

    async def fail(self, failed: Failed) -> None:
        """Move the message to the failed list: its task failed for good."""
        ...


@runtime_checkable
class UnmarkingReceipt(Protocol):
    """A receipt of a broker that keeps the marks of its board beside its messages; an optional ability."""

    async def settle_and_unmark(self, mark: Mark, kept: str | Failed | None = None) -> None:
        """Settle the message for good and remove a mark of the board, if it is there, in one step.

        :param kept: the reason for which the message is buried, or what the failed list keeps; ``None`` acknowledges.

        Raises as ``ack`` does; the mark then stays.
        """
        ...


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One message taken from a queue.

    :param redelivered: an earlier delivery of it was not settled, or it was given back.
    :param deliveries: how often it was handed out, this time included. Giving back on purpose (``requeue``, ``park``)
        does not count: the number is how many workers may have died of it.
    :param kept_until: the moment until which the broker kept it, where it did: then it is due, whatever the worker's
        clock says.
    """

    envelope: Envelope | Unreadable
    queue: str
    receipt: Receipt
    redelivered: bool = False
    deliveries: int = 1
    kept_until: float | None = None


class Subscription(Protocol):
    """A hold on some queues, in the order of a worker's ``-Q``; queues are served fairly.

    Messages of one queue and priority come in the order they were published.

    :ivar prefetch: how many messages it may hold besides those that ``take`` returned, so that the next ones are there
        when a slot gets free; 0 at first. It holds no more than are dealt with in some hundredths of a second. What
        ``take`` does not return within half a second goes back to the head of its queue, unmarked and with no delivery
        counted, as far as the broker lets it. A broker may hold fewer, or none.
    :ivar backlog: how many messages of a queue it may hold for minutes, where nobody else takes from that queue: while
        they are held, the broker does not drop those that expire. 0 at first. A broker may hold none.
    :ivar idle: whether nothing runs of what ``take`` returned, as who takes says before each take; false at first. Only
        then may a broker wait in such a way that the next message is this subscription's, however busy the process is
        when it comes: elsewhere it could run at once.
    """

    prefetch: int
    backlog: int
    idle: bool

    async def take(self, limit: int) -> list[Delivery]:
        """Wait until a message is there, then return at least one and at most ``limit``, in one round trip.

        Waiting costs no CPU and does not poll where the broker can push. Returns ``[]`` only after ``stop``.
        Raises ``BrokerUnavailable`` when the broker is away; calling again reconnects. Not to be cancelled: use
        ``stop``, so that nothing is taken and forgotten.
        """
        ...

    def held(self) -> Sequence[Delivery]:
        """Return what is held and was not returned by ``take``, as under ``prefetch``; it may go back any time."""
        ...

    async def let_go(self) -> None:
        """Give back what is held and was not returned by ``take``, as under ``prefetch``.

        Raises ``BrokerUnavailable`` when the broker cannot be asked; what is concerned is not returned by ``take`` then
        either, and the same call may be made again.
        """
        ...

    @property
    def revision(self) -> int:
        """The revision of the board's sets ``REVOKED`` that held when ``take`` last took messages.

        It is read with the messages, in one round trip: a revocation that was stored before a message was taken is
        never missed. Of messages that were held for a while it is read again: it is at most 0.05 s old.
        """
        ...

    @property
    def ahead(self) -> float:
        """Seconds by which the broker's clock was ahead of this process's when ``take`` last took messages.

        What the broker hands out as due is due by its clock, so that is the clock to judge by. 0 where the broker has
        none of its own, or does not tell.
        """
        ...

    async def stop(self) -> None:
        """Make ``take`` return; nothing is taken afterwards, and what was held goes back.

        What was handed out stays to be settled.
        """
        ...

    async def add_queue(self, queue: str) -> None:
        """Take from this queue too."""
        ...

    async def drop_queue(self, queue: str) -> None:
        """Take from this queue no longer."""
        ...


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is kept until it is due.

    :param id: names the entry; it ends when the message is due.
    :param due: seconds since the epoch.
    """

    id: str
    envelope: Envelope | Unreadable
    queue: str
    due: float


class Schedule(Protocol):
    """Messages that are parked until they are due, the next one first."""

    async def list(self, limit: int = 100, offset: int = 0) -> list[Parked]:
        """Return up to ``limit`` entries."""
        ...

    async def count(self) -> int:
        """Return how many there are."""
        ...

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete these; return how many were still parked."""
        ...

    async def horizon(self) -> float:
        """Return in how many seconds the last of what is parked now is due, or more where that is known roughly."""
        ...


class Beat(Protocol):
    """Publishes the messages of periodic tasks, once for each slot.

    Both methods raise ``BrokerUnavailable`` when the broker is away; the same call may then be made again.
    """

    async def tick(self, entry: str, slot: float, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        """Publish the messages, if the entry's last slot is before this one, which it then is; in one step.

        Return whether that was so. Without messages the slot is only noted, and nothing is published for it or any
        before it. Of several processes that tick the same slot one publishes. Concurrent calls share round trips; what
        is refused for one harms no other.

        :param slot: seconds since the epoch.

        Raises ``EncodeError`` or ``BrokerError`` for messages that the broker refuses; the slot is then not noted.
        """
        ...

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        """Return the last slots of those entries that have one, as ``Slots.last`` of the board."""
        ...


class QueueState(msgspec.Struct, frozen=True):
    """The messages that wait in one queue, of all priorities.

    :param heads: the next message of each priority, as far as the broker can look without touching them.
    :param consumers: how many take from the queue, of any kind; ``None`` where the broker does not count them.
    """

    queue: str
    waiting: int
    heads: Sequence[Envelope | Unreadable] = ()
    consumers: int | None = None


class Survey(msgspec.Struct, frozen=True):
    """How many messages a broker keeps, and where.

    :param parked: until they are due; ``dead`` as dead letters.
    :param taken: by workers and not settled yet, Celery's included; ``None`` where the broker does not tell.
    :param failed: of tasks that failed for good.
    """

    queues: Sequence[QueueState]
    parked: int
    taken: int | None
    dead: int
    failed: int = 0


@runtime_checkable
class Surveyed(Protocol):
    """A broker that counts all its messages in a few round trips; an optional ability.

    :ivar tells_taken: whether it counts what workers have taken, and ``shows_heads`` whether it shows what is next.
    """

    tells_taken: bool
    shows_heads: bool

    async def survey(self, queues: Sequence[str]) -> Survey:
        """Return the state of these queues, and of what waits in none."""


@runtime_checkable
class Leasing(Protocol):
    """A broker whose messages are held by leases that are renewed, so often by now; an optional ability."""

    @property
    def leases_renewed(self) -> int: ...


class Broker(Protocol):
    """A place that keeps messages in queues. Bound to the event loop that first used it."""

    async def publish(self, envelope: Envelope, route: Route) -> None:
        """Return when the broker has the message; raise when it has not. Concurrent calls share round trips.

        A message whose ``route.due`` is ahead is parked at once where the queue's workers bring parked messages back;
        elsewhere it is queued, and the worker that takes it parks it.
        """
        ...

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        """Publish all in a few round trips, in order.

        Raises when any was refused; a batch may then have been published in part, since a broker has no transactions
        over batches.
        """
        ...

    async def publish_once(self, key: str, messages: Sequence[tuple[Envelope, Route]]) -> bool:
        """Publish as ``publish_many``, unless that was done under this key by anybody within the last ``ONCE`` seconds.

        Return whether anything was published. The key is kept in the same step as the messages, a batch at a time. A
        broker that cannot keep it, and has ``may_repeat``, publishes each time, and gives each message a ``Copy``.
        """
        ...

    @property
    def may_repeat(self) -> bool:
        """Whether a message that is published once may come as several copies; the worker must then drop repeats."""
        ...

    async def forget_once(self, key: str) -> None:
        """Keep the key for no longer than ``ONCE_SETTLED`` seconds: what could publish under it again is settled."""
        ...

    def subscribe(self, queues: Sequence[str]) -> AbstractAsyncContextManager[Subscription]:
        """Hold these queues; declares them. Leaving the block without ``stop`` stops too."""
        ...

    async def queues(self) -> list[str]:
        """Return the names of the queues that are known here, sorted."""
        ...

    async def depth(self, queue: str) -> int:
        """Return how many messages wait in the queue (those taken or parked are not counted)."""
        ...

    async def peek(self, queue: str, limit: int = 10) -> list[Envelope | Unreadable]:
        """Return up to ``limit`` messages in the order they would be taken, and leave them there."""
        ...

    async def purge(self, queue: str) -> int:
        """Delete the waiting messages; return how many there were."""
        ...

    @property
    def dead(self) -> DeadLetters:
        """The dead-letter list."""
        ...

    @property
    def failed(self) -> FailedTasks:
        """The failed list."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The parked messages."""
        ...

    @property
    def board(self) -> Board:
        """The board of the broker's server."""
        ...

    @property
    def fanout(self) -> Fanout | None:
        """Messages to all listeners; ``None`` where the broker cannot send any."""
        ...

    @property
    def transactions(self) -> Transactions | None:
        """Publishing in the caller's transactions; ``None`` where the broker is no SQL database."""
        ...

    @property
    def beat(self) -> Beat | None:
        """Messages of periodic tasks; ``None`` where a slot and a message cannot be written in one step."""
        ...

    async def ping(self) -> str:
        """Connect and return one line that says what answered (for ``celeriac doctor``)."""
        ...

    async def examine(self, queues: Sequence[str]) -> Sequence[Finding]:
        """Try what clients, and workers of these queues, need; return findings that work but may cause harm.

        Leaves nothing behind. Raises ``BrokerError`` naming what is refused, ``BrokerUnavailable`` in an outage.
        """
        ...

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        ...


@runtime_checkable
class CountsTakers(Protocol):
    """A broker that counts how many take from a queue; of others the workers have to be asked."""

    async def takers(self, queue: str) -> int:
        """Return how many take from the queue, 0 where there is no such queue. Raises as a ``Broker`` does."""
        ...
