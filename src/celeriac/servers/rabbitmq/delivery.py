"""A delivery from RabbitMQ as a state machine, and the deliveries of one channel that are not settled.

Rules: ``TABLE`` has every step of a delivery, and ``AmqpReceipt.go`` takes it; an event that the table does not have
for the state raises ``DeliveryLost``. A method that waits reads the state again afterwards, since the connection may
have been lost meanwhile. What goes elsewhere is published and confirmed there before it is acknowledged here: a crash
in between leaves the message twice, never nowhere. Acknowledgements of one turn of the loop go out together, as one
frame where everything before is settled too.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal, Protocol, TypeAlias

import msgspec

from celeriac.errors import DeliveryLost
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.errors import AmqpError
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.rerouting import Rerouting

State: TypeAlias = Literal["buffered", "checking", "working", "held", "orphaned", "settled", "lost"]
Event: TypeAlias = Literal[
    "take",  # ``take`` returns it
    "suspect",  # ``take`` asks first whether another worker works on it: it was handed out before
    "clear",  # nobody works on it
    "ack",  # it is dealt with; an orphan: everybody was told so
    "give back",  # it is for somebody else; an orphan: everybody was told so
    "hold",  # it is kept in this process until it is due, since RabbitMQ cannot keep it
    "due",  # another delivery of the same message begins, in the state "buffered"
    "hand over",  # an orphan of the same publication takes this delivery over
    "resume",  # this orphan took a new delivery over
    "lose line",  # the connection was lost
    "lose channel",  # the channel was closed, or nobody can be told what becomes of an orphan
]

TABLE: Mapping[State, Mapping[Event, State]] = {
    # RabbitMQ pushed it, and nobody was given it yet.
    "buffered": {
        "take": "working", "suspect": "checking", "give back": "settled",
        "lose line": "lost", "lose channel": "lost",
    },
    # The ledger and the orphans of this process are asked whether somebody works on it.
    "checking": {
        "clear": "working", "hand over": "settled", "ack": "settled", "hold": "held",
        "lose line": "lost", "lose channel": "lost",
    },
    # The worker has it.
    "working": {
        "ack": "settled", "give back": "settled", "hold": "held",
        "lose line": "orphaned", "lose channel": "lost",
    },
    # It is kept here until it is due.
    "held": {
        "due": "settled", "give back": "settled",
        "lose line": "lost", "lose channel": "lost",
    },
    # The worker has it, and RabbitMQ hands the message to anybody.
    "orphaned": {
        "ack": "settled", "give back": "settled", "resume": "working",
        "lose channel": "lost",
    },
    # Its end was sent. RabbitMQ may not have read it yet.
    "settled": {},
    # RabbitMQ took it back, and nothing is to be done about it here.
    "lost": {},
}  # fmt: skip

_ACKED = 2000
"""Acknowledgements that may be on their way when a connection is lost, at the most."""


class Subscriber(Protocol):
    """What a delivery needs of the subscription it came by."""

    async def pause_before_return(self, unsettled: Unsettled) -> None:
        """Have nothing pushed, unless ``take`` waits: what is given back would be pushed here again at once."""
        ...

    def offer_again(self, receipt: AmqpReceipt) -> None:
        """Offer a delivery that was held, and is due, to ``take``."""
        ...


class Others(Protocol):
    """The other workers, as a delivery needs them: they are told what becomes of an orphan."""

    async def tell_ended(self, receipt: AmqpReceipt) -> None:
        """Have the work of an orphan known to be done. Raises ``BrokerUnavailable`` or ``DeliveryLost``."""
        ...

    async def tell_free(self, receipt: AmqpReceipt) -> bool:
        """Have the work of an orphan known to be free for others; return ``False`` if it was resumed meanwhile.

        Raises as ``tell_ended``.
        """
        ...

    def note_idle(self, publication: str) -> None:
        """Note that nobody works here on a publication that RabbitMQ may hand out again."""
        ...


class AmqpReceipt(msgspec.Struct, eq=False):
    """The right to settle one delivery; see ``celeriac.broker.Receipt``.

    :ivar publication: the same for every delivery of one publication; ``None`` where it cannot be read.
    :ivar generation: number of the consumers that it was pushed to.
    """

    unsettled: Unsettled
    _others: Others
    _rerouting: Rerouting
    queue: str
    message: Inbound
    publication: str | None
    generation: int
    state: State = "buffered"

    def go(self, event: Event) -> None:
        """Take a step of ``TABLE``. Raises ``DeliveryLost`` where it has none."""
        after = TABLE[self.state].get(event)
        if after is None:
            raise self._refusal()
        self.state = after

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

    async def requeue(self) -> None:
        self._check()
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
        seconds = self._rerouting.seconds_until(due)
        if seconds > 0 and await self._rerouting.delay(self.message, self.queue, due):
            await self._end()
        else:
            await self._hold(seconds)

    async def put_off(self, due: float) -> None:
        """Have the message come back at ``due``, as the same publication: somebody may still work on it.

        Raises as ``park``.
        """
        self._check()
        if await self._rerouting.delay(self.message, self.queue, due, same=True):
            self.unsettled.ack(self, over=False)
        else:
            await self._hold(self._rerouting.seconds_until(due))

    async def bury(self, reason: str) -> None:
        self._check()
        await self._rerouting.bury(self.message, self.queue, reason)
        await self._end()

    def resume_as(self, other: AmqpReceipt) -> None:
        """Go on as another delivery of the same publication, which is not the other's to settle any more."""
        other.go("hand over")
        self.go("resume")
        self.unsettled, self.queue = other.unsettled, other.queue
        self.message, self.generation = other.message, other.generation
        self.unsettled.replace(self)

    async def _end(self) -> None:
        """Have it dealt with."""
        if self.state == "orphaned":
            await self._others.tell_ended(self)
        else:
            self.unsettled.ack(self)

    async def _hold(self, seconds: float) -> None:
        """Keep the message in this process for some seconds."""
        await self._give_up_orphan()
        if self.message.redelivered:  # then it is counted anew when it is handed out again
            await self._rerouting.note_return(self.message)
            await self._give_up_orphan()
        self.unsettled.hold(self, max(0.0, seconds))

    async def _give_up_orphan(self) -> None:
        """Leave it to others if it is an orphan. Raises ``DeliveryLost`` then."""
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
    """The deliveries of one channel that are not settled; closes the channel once it was told to and none is left.

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
        """Begin another generation: consumers follow with a prefetch of their own."""
        self.generation += 1
        self.crowd = 0

    def add(self, receipt: AmqpReceipt) -> None:
        """Note a delivery that arrived."""
        self._receipts[receipt.message.tag] = receipt
        if receipt.generation == self.generation:
            self.crowd += 1

    def replace(self, receipt: AmqpReceipt) -> None:
        """Note that a delivery is this receipt's from now on."""
        self._receipts[receipt.message.tag] = receipt

    def ack(self, receipt: AmqpReceipt, *, over: bool = True) -> None:
        """Acknowledge, with all others of this turn of the loop. Raises ``DeliveryLost``.

        :param over: the message is dealt with, whether or not RabbitMQ reads this.
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

    def hold(self, receipt: AmqpReceipt, seconds: float) -> None:
        """Keep a delivery here for a while, then offer it again. Raises ``DeliveryLost``."""
        receipt.go("hold")
        self._timers[receipt.message.tag] = self._loop.call_later(seconds, self._due, receipt)

    def end_holds(self) -> None:
        """Give back what is kept here for a while."""
        timers, self._timers = self._timers, {}
        for tag, timer in timers.items():
            timer.cancel()
            self.requeue(self._receipts[tag])

    def leave(self) -> None:
        """Close the channel as soon as every delivery is settled."""
        self._leaving = True
        self.end_holds()
        self._close_if_done()

    def lose_channel(self) -> None:
        """The channel was closed: nothing here can be settled any more."""
        self._lose("lose channel")

    def lose_line(self) -> tuple[list[AmqpReceipt], list[str], list[str]]:
        """The connection was lost.

        Return the orphans, the publications that nobody works on, and those that were acknowledged last: of these
        RabbitMQ may not have read it.
        """
        idle = [
            receipt.publication
            for receipt in self._receipts.values()
            if receipt.state in {"buffered", "held"}
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
            # Of a publication that has no name nobody can be told.
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
