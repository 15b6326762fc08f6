"""A delivery from RabbitMQ as a state machine, and the deliveries of one channel that are not settled.

Rules: ``TABLE`` has every step of a delivery, and ``AmqpReceipt.go`` takes it. An event that the table does not have
for the state raises ``DeliveryLost``. A method that waits reads the state again afterwards, since the connection may
have been lost meanwhile. A message that moves is published and confirmed at its new place before it is acknowledged
here: a crash in between leaves it twice, never nowhere. Acknowledgements of one turn of the loop go out together, as
one frame where everything before is settled too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

import msgspec

from celeriac.contracts.broker import Delivery
from celeriac.contracts.set_aside import Failed
from celeriac.errors import DeliveryLost
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.errors import AmqpError
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.rerouting import Rerouting

State: TypeAlias = Literal["buffered", "checking", "working", "kept", "orphaned", "settled", "lost"]
Event: TypeAlias = Literal[
    "take",  # ``take`` hands it out
    "suspect",  # it was handed out before: ``take`` asks first whether a worker works on it
    "clear",  # no worker works on it: it is offered to ``take`` again
    "ack",  # it is dealt with; of an orphan, a notice says so to the other workers
    "give back",  # another worker may have it; of an orphan, a notice says so
    "keep",  # it is kept in this process until it is due, since RabbitMQ cannot keep it
    "due",  # another delivery of the same message begins, in the state "buffered"
    "hand over",  # an orphan of the same publication takes this delivery over
    "resume",  # this orphan took a new delivery over
    "lose line",  # the connection was lost
    "lose channel",  # the channel was closed, or no notice of an orphan can be given
]

TABLE: Mapping[State, Mapping[Event, State]] = {
    # RabbitMQ pushed it, and ``take`` has not handed it out.
    "buffered": {
        "take": "working", "suspect": "checking", "give back": "settled",
        "lose line": "lost", "lose channel": "lost",
    },
    # ``Orphans`` finds out whether a worker works on its publication.
    "checking": {
        "clear": "buffered", "hand over": "settled", "ack": "settled", "keep": "kept",
        "lose line": "lost", "lose channel": "lost",
    },
    # The worker has it, and RabbitMQ waits for its end.
    "working": {
        "ack": "settled", "give back": "settled", "keep": "kept",
        "lose line": "orphaned", "lose channel": "lost",
    },
    # It is kept here until it is due.
    "kept": {
        "due": "settled", "give back": "settled",
        "lose line": "lost", "lose channel": "lost",
    },
    # The worker has it, and RabbitMQ hands its message out again.
    "orphaned": {
        "ack": "settled", "give back": "settled", "resume": "working",
        "lose channel": "lost",
    },
    # Its end was sent. RabbitMQ may not have read it yet.
    "settled": {},
    # RabbitMQ took its message back, and no work on it goes on here.
    "lost": {},
}  # fmt: skip

_ACKED = 2000
"""Acknowledgements that may be on their way when a connection is lost, at the most."""


class Subscriber(Protocol):
    """The subscription of a delivery, as far as the delivery needs it."""

    def may_hold(self, receipt: AmqpReceipt) -> bool:
        """Whether a message that is given back may stay here, since nobody else takes from its queue."""
        ...

    async def pause_before_return(self, unsettled: Unsettled) -> None:
        """Stop pushes, unless ``take`` waits: a message that is given back would be pushed here again at once."""
        ...

    def offer_again(self, receipt: AmqpReceipt) -> None:
        """Offer the message of a delivery that was kept, and is due, to ``take``."""
        ...


class Others(Protocol):
    """Tells the other workers what becomes of an orphan."""

    async def tell_ended(self, receipt: AmqpReceipt) -> None:
        """Give notice that the work of an orphan has ended. Raises ``BrokerUnavailable`` or ``DeliveryLost``."""
        ...

    async def tell_free(self, receipt: AmqpReceipt) -> bool:
        """Give notice that other workers may do the work of an orphan; return ``False`` if it was resumed meanwhile.

        Raises as ``tell_ended``.
        """
        ...

    def tell_over(self, publication: str) -> None:
        """Give notice, soon, that the work on a publication has ended that RabbitMQ may have a second time."""
        ...

    def note_idle(self, publication: str) -> None:
        """Note that no worker here works on a publication that RabbitMQ may hand out again."""
        ...


class AmqpReceipt(msgspec.Struct, eq=False):
    """The right to settle one delivery; see ``celeriac.contracts.broker.Receipt``.

    :ivar publication: name of the publication, the same for each of its deliveries; ``None`` where it cannot be read.
    :ivar generation: number of the consumers that it was pushed to.
    :ivar arrived: when RabbitMQ pushed it, by ``time.monotonic``.
    :ivar is_cleared: whether it is known that no other worker works on it, though it was handed out before.
    :ivar may_be_twice: whether RabbitMQ may have it a second time, since a worker may have put it off.
    :ivar was_returned: whether it was given back and stayed here: it is marked as redelivered when it is offered again.
    """

    unsettled: Unsettled
    _others: Others
    _rerouting: Rerouting
    queue: str
    message: Inbound
    publication: str | None
    generation: int
    arrived: float
    was_returned: bool = False
    is_cleared: bool = False
    may_be_twice: bool = False
    state: State = "buffered"

    def go(self, event: Event) -> None:
        """Take a step of ``TABLE``. Raises ``DeliveryLost`` if the table has none for the event."""
        after = TABLE[self.state].get(event)
        if after is None:
            raise self._refusal()
        self.state = after

    def clear(self) -> None:
        """Have it offered again: no other worker works on it."""
        self.go("clear")
        self.is_cleared = True

    async def ack(self, *, surely: bool = False) -> None:
        if not surely:
            await self._end()
            return
        await self._give_up_orphan()
        self.unsettled.ack(self, over=False)
        try:
            await self.unsettled.confirm()
        except DeliveryLost:
            if self.publication is not None:
                self._others.note_idle(self.publication)
            raise
        self._tell_over()

    async def requeue(self) -> None:
        self._check()
        if self.state == "working" and self.unsettled.subscriber.may_hold(self):
            self.was_returned = True
            await self._keep(0.0)
            return
        if self.state != "orphaned":
            await self._rerouting.note_return(self.message)
            await self.unsettled.subscriber.pause_before_return(self.unsettled)
        if self.state == "orphaned" and await self._others.tell_free(self):
            return
        self.unsettled.requeue(self)

    async def park(self, due: float) -> None:
        if math.isnan(due):
            raise ValueError("a message cannot be parked until nan; give seconds since the epoch")
        self._check()
        until = self._rerouting.left_of(self.message, due)
        seconds = self._rerouting.seconds_until(until)
        if seconds > 0 and await self._rerouting.delay(self.message, self.queue, until, due):
            await self._end()
        else:
            await self._keep(seconds)

    async def put_off(self, due: float) -> None:
        """Have the message come back at ``due``, as the same publication: a worker may still work on it.

        Raises as ``park``.
        """
        self._check()
        if await self._rerouting.delay(self.message, self.queue, due, same=True):
            self.unsettled.ack(self, over=False)
        else:
            await self._keep(self._rerouting.seconds_until(due))

    async def bury(self, reason: str) -> None:
        self._check()
        await self._rerouting.bury(self.message, self.queue, reason)
        await self._end()

    async def fail(self, failed: Failed) -> None:
        self._check()
        await self._rerouting.fail(self.message, self.queue, failed)
        await self._end()

    def resume_as(self, other: AmqpReceipt) -> None:
        """Go on as another delivery of the same publication. Its own receipt cannot settle it any more."""
        other.go("hand over")
        self.go("resume")
        self.unsettled, self.queue = other.unsettled, other.queue
        self.message, self.generation, self.arrived = other.message, other.generation, other.arrived
        self.may_be_twice = True
        self.unsettled.replace(self)

    async def _end(self) -> None:
        """Have it dealt with: acknowledged, or notice given of an orphan's end."""
        if self.state == "orphaned":
            await self._others.tell_ended(self)
        else:
            self.unsettled.ack(self)
            self._tell_over()

    def _tell_over(self) -> None:
        if self.may_be_twice and self.publication is not None:
            self._others.tell_over(self.publication)

    async def _keep(self, seconds: float) -> None:
        """Keep the message in this process for some seconds."""
        await self._give_up_orphan()
        if self.message.redelivered:  # then it is counted anew when it is handed out again
            await self._rerouting.note_return(self.message)
            await self._give_up_orphan()
        self.unsettled.keep(self, max(0.0, seconds))

    async def _give_up_orphan(self) -> None:
        """Leave an orphan to other workers, and raise ``DeliveryLost``. Do nothing for any other delivery."""
        if self.state == "orphaned" and await self._others.tell_free(self):
            raise DeliveryLost(f"delivery {self.message.tag} is not ours any more: the connection was lost")

    def _check(self) -> None:
        if "ack" not in TABLE[self.state]:
            raise self._refusal()

    def _refusal(self) -> DeliveryLost:
        lost = f"RabbitMQ took it back ({self.unsettled.channel.error or 'the connection was lost'})"
        why = lost if self.state == "lost" else "it was settled before"
        return DeliveryLost(f"delivery {self.message.tag} is not ours any more: {why}")


class Unsettled:
    """The deliveries of one channel that are not settled; closes the channel when the last is settled after ``leave``.

    :ivar settled: how many deliveries were settled so far.
    :ivar generation: number of the consumers that were started last.
    :ivar crowd: how many deliveries of that generation are unsettled; they fill the prefetch of its consumers.
    """

    def __init__(self, link: Link, channel: Channel, subscriber: Subscriber) -> None:
        self.channel = channel
        self.subscriber = subscriber
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._receipts: dict[int, AmqpReceipt] = {}
        self._acked: deque[str | None] = deque(maxlen=_ACKED)
        self.generation = 0
        self.crowd = 0
        self.settled = 0
        self._acks: list[int] = []
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._closing: asyncio.Task[None] | None = None
        self._leaving = False

    def start_anew(self) -> None:
        """Begin another generation of consumers, each with a new prefetch."""
        self.generation += 1
        self.crowd = 0

    def add(self, receipt: AmqpReceipt) -> None:
        """Note a delivery that arrived."""
        self._receipts[receipt.message.tag] = receipt
        if receipt.generation == self.generation:
            self.crowd += 1

    def replace(self, receipt: AmqpReceipt) -> None:
        """Have this receipt settle the delivery, in place of the receipt that was noted for it."""
        self._receipts[receipt.message.tag] = receipt

    def ack(self, receipt: AmqpReceipt, *, over: bool = True) -> None:
        """Acknowledge, together with all others of this turn of the loop. Raises ``DeliveryLost``.

        :param over: the message must not run again even if RabbitMQ does not read this.
        """
        receipt.go("ack")
        if over:
            self._acked.append(receipt.publication)
        self._drop(receipt)
        if not self._acks:
            self._loop.call_soon(self._flush)
        self._acks.append(receipt.message.tag)

    async def confirm(self) -> None:
        """Return when RabbitMQ has read every acknowledgement. Raises ``DeliveryLost`` when that cannot be known."""
        self._flush()
        try:
            async with self._link.deadline():
                # An acknowledgement has no answer; what is asked on the same channel after it has one.
                await self.channel.call(methods.look_for_exchange("amq.direct"))
        except AmqpError as error:
            raise DeliveryLost(
                f"the channel was closed before it was known to be acknowledged: {error}"
            ) from error

    def requeue(self, receipt: AmqpReceipt) -> None:
        """Give back. Raises ``DeliveryLost``."""
        receipt.go("give back")
        self._drop(receipt)
        self.channel.send(frames.requeue(self.channel.number, receipt.message.tag))
        self._close_if_done()

    def keep(self, receipt: AmqpReceipt, seconds: float) -> None:
        """Keep a delivery here for some seconds, then offer it again. Raises ``DeliveryLost``."""
        receipt.go("keep")
        self._timers[receipt.message.tag] = self._loop.call_later(seconds, self._due, receipt)

    def give_back_kept(self) -> None:
        """Give back every delivery that is kept here until it is due."""
        timers, self._timers = self._timers, {}
        for tag, timer in timers.items():
            timer.cancel()
            self.requeue(self._receipts[tag])

    def leave(self) -> None:
        """Close the channel as soon as every delivery is settled."""
        self._leaving = True
        self.give_back_kept()
        self._close_if_done()

    def lose_channel(self) -> None:
        """The channel was closed: nothing here can be settled any more."""
        self._lose("lose channel")

    def lose_line(self) -> tuple[list[AmqpReceipt], list[str], list[str]]:
        """The connection was lost.

        Return the orphans, the publications that no worker here works on, and the publications that were acknowledged
        last: RabbitMQ may not have read their acknowledgements.
        """
        idle = [
            receipt.publication
            for receipt in self._receipts.values()
            if receipt.state in {"buffered", "kept"}
        ]
        receipts = self._lose("lose line")
        orphans = [receipt for receipt in receipts if receipt.state == "orphaned"]
        return orphans, _known(idle), _known(self._acked)

    def _lose(self, event: Event) -> list[AmqpReceipt]:
        receipts, self._receipts = list(self._receipts.values()), {}
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for receipt in receipts:
            # Other workers could not recognise a publication without a name.
            receipt.go(event if receipt.publication is not None else "lose channel")
        return receipts

    def _due(self, receipt: AmqpReceipt) -> None:
        del self._timers[receipt.message.tag]
        self.subscriber.offer_again(receipt)

    def _drop(self, receipt: AmqpReceipt) -> None:
        del self._receipts[receipt.message.tag]
        self.settled += 1
        if receipt.generation == self.generation:
            self.crowd -= 1

    def _flush(self) -> None:
        acks, self._acks = self._acks, []
        if self.channel.error is not None or not acks:
            return
        number = self.channel.number
        oldest = next(iter(self._receipts), None)
        whole = [tag for tag in acks if oldest is None or tag < oldest]
        out = []
        if len(whole) > 1:
            out.append(frames.ack(number, max(whole), multiple=True))
            acks = [tag for tag in acks if oldest is not None and tag > oldest]
        out += [frames.ack(number, tag) for tag in acks]
        self.channel.send(b"".join(out))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._leaving and not self._receipts and not self._acks and self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        with contextlib.suppress(AmqpError):
            async with self._link.deadline():
                await self.channel.close()


def _known(publications: Iterable[str | None]) -> list[str]:
    return [publication for publication in publications if publication is not None]


def receipt_of(delivery: Delivery) -> AmqpReceipt:
    """Return the receipt of a delivery from RabbitMQ."""
    receipt = delivery.receipt
    assert isinstance(receipt, AmqpReceipt)
    return receipt


def note_taken(taken: Sequence[Delivery]) -> bool:
    """Note in what state the deliveries are taken; return whether any of them was handed out before."""
    for delivery in taken:
        receipt = receipt_of(delivery)
        was_away = delivery.redelivered and not (receipt.is_cleared or receipt.was_returned)
        receipt.go("suspect" if was_away else "take")
    return any(delivery.redelivered for delivery in taken)
