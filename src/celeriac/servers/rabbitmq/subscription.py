"""Takes messages from queues: RabbitMQ pushes as many as may start now or very soon, and they wait here until ``take``.

Rules: each queue has a consumer, and each consumer a prefetch of its own (no global QoS). Messages that were pushed and
not taken go back to RabbitMQ before ``stop`` returns. After the channel was lost, ``take`` opens another. What becomes
of the deliveries of the lost channel stands in ``delivery.TABLE``. What is pushed and cannot start goes back soon,
unless it may be held for a while, since nobody else takes from its queue: ``backlog``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any

import msgspec

from celeriac.contracts.board import REVOKED
from celeriac.contracts.broker import Delivery
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.rabbitmq.board import AmqpSets
from celeriac.servers.rabbitmq.company import Company
from celeriac.servers.rabbitmq.delivery import AmqpReceipt, Unsettled, note_taken, receipt_of
from celeriac.servers.rabbitmq.envelopes import counted_by_broker, kept_until, read
from celeriac.servers.rabbitmq.known_queues import KnownQueues
from celeriac.servers.rabbitmq.ledger import LEDGER_CONSUMER, Ledger
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.orphans import Orphans
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused, Unavailable
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.pushed import Pushed
from celeriac.servers.rabbitmq.rerouting import Rerouting
from celeriac.servers.rabbitmq.suspects import Suspects
from celeriac.servers.rabbitmq.tallies import Tallies
from celeriac.servers.rabbitmq.topology import Topology
from celeriac.servers.reserve import Pace
from celeriac.wire.envelope import Unreadable

_MOST_AT_ONCE = 10_000
_NO_CONSUMER = "", 0
_UNDER_WAY = 0.05
"""Seconds from the push of a short task to that of the one in its place, on a busy machine.

Its result and its acknowledgement each wait on both sides for the work on those before them.
"""

_CROWDED_AFTER = 0.05
"""Seconds to wait for acknowledgements on their way, before the prefetch is made larger."""

_SURPLUS_AFTER = 0.5
"""Seconds within which a pushed message should be taken; after that it is given back, or held."""

_LOOK_AFTER = 1.0
"""Seconds from look to look whether another consumer could have what is held."""


class AmqpSubscription:
    """Takes from some queues; see ``celeriac.contracts.broker.Subscription``."""

    def __init__(
        self,
        link: Link,
        topology: Topology,
        rerouting: Rerouting,
        ledger: Ledger,
        known_queues: KnownQueues,
        sets: AmqpSets,
        tallies: Tallies,
        orphans: Orphans,
        *,
        lowest_first: bool,
    ) -> None:
        self._lowest_first = lowest_first
        self._link = link
        self._topology = topology
        self._rerouting = rerouting
        self._ledger = ledger
        self._known_queues = known_queues
        self._sets = sets
        self._tallies = tallies
        self._orphans = orphans
        self._suspects = Suspects(orphans, self._offer)
        self.revision = 0
        self.ahead = 0.0
        self.prefetch = self.backlog = 0
        self.idle = False
        self._pushed = Pushed(lowest_first=lowest_first)
        self._consumers: dict[str, tuple[str, int]] = {}  # by name: queue and generation
        self._current: dict[str, str] = {}  # by queue: the name of the consumer that is not cancelled
        self._numbers = itertools.count(1)
        self._unsettled: Unsettled | None = None
        self._consumer_prefetch = 0
        self._company = Company(topology, monotonic)
        self._backlog_then = 0  # that the consumers were started with
        self._news = asyncio.Event()
        self._tuning = asyncio.Lock()
        self._waiting = False
        self._stopped = False
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(self._loop, _UNDER_WAY)
        self._taken_lately = 0
        self._surplus: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None

    async def take(self, limit: int) -> list[Delivery]:
        limit = min(limit, _MOST_AT_ONCE)
        while not self._stopped:
            if not self._is_consuming():
                await self._tune(limit)
            self._news.clear()
            if not self._stopped and (taken := self._pushed.pick(limit)):
                self._taken_lately += len(taken)
                self.revision = self._sets.latest(REVOKED)
                if not note_taken(taken):
                    return taken
                if ready := self._suspects.set_apart(taken):
                    return await self._count(ready)
                continue
            if not self._stopped and (self._is_narrow(limit) or not await self._wait()):
                await self._tune(limit, anew=True)
        return []

    def held(self) -> Sequence[Delivery]:
        return [*self._pushed.all(), *self._suspects.all()]

    async def let_go(self) -> None:
        self._consumer_prefetch = 0
        # A consumer that was started with a backlog would have more pushed.
        for queue in tuple(self._pushed.lines) if self._backlog_then else self._pushed.filled():
            await self._return_surplus(queue)

    async def stop(self) -> None:
        self._stopped = True
        self._news.set()
        await self._suspects.settle()
        async with self._tuning:
            if self._unsettled is not None:
                self._unsettled.give_back_kept()
            await self._pause()

    async def close(self) -> None:
        """Stop, and close the channel once everything it handed out is settled."""
        await self.stop()
        if self._unsettled is not None:
            self._unsettled.leave()

    async def add_queue(self, queue: str) -> None:
        if queue in self._pushed.lines:
            return
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._topology.have_queue(queue)
        self._pushed.add_queue(queue)
        self._news.set()

    async def drop_queue(self, queue: str) -> None:
        if queue not in self._pushed.lines:
            return
        self._pushed.queues.remove(queue)
        async with self._tuning:
            await self._pause([queue])
            self._pushed.lines.pop(queue, None)
            self._company.forget(queue)

    def buffered(self, queue: str) -> int:
        """Return how many messages of a queue were pushed here and not taken."""
        return sum(delivery.queue == queue for delivery in self.held())

    async def catch_up(self) -> None:
        """Return when every message that was pushed before this call has arrived."""
        unsettled = self._unsettled
        if unsettled is not None and unsettled.channel.is_open:
            async with self._link.deadline():
                await unsettled.channel.call(methods.limit_unsettled(max(1, self._consumer_prefetch)))

    async def _count(self, taken: list[Delivery]) -> list[Delivery]:
        """Count these deliveries; return them with the number of times that each was handed out, if it is known."""
        messages = [receipt_of(delivery).message for delivery in taken]
        for message in messages:
            if message.redelivered and (count := counted_by_broker(message)) is not None:
                with contextlib.suppress(AmqpError):
                    counts = await self._topology.counts_deliveries(message.queue)
                    message.counted, message.is_counted = 0 if counts is False else count, counts is True
        await self._tallies.begin([message for message in messages if message.redelivered])
        earlier = [self._tallies.earlier(message) for message in messages]
        return [
            msgspec.structs.replace(delivery, deliveries=delivery.deliveries + more) if more else delivery
            for delivery, more in zip(taken, earlier, strict=True)
        ]

    async def _wait(self) -> bool:
        """Wait for news; return False if none came because the unsettled deliveries fill the prefetch."""
        self._waiting = True
        try:
            if self._crowd() < self._consumer_prefetch:
                await self._news.wait()
                return True
            async with asyncio.timeout(_CROWDED_AFTER):
                await self._news.wait()
            return True
        except TimeoutError:
            return False
        finally:
            self._waiting = False

    # --- for receipts

    def may_hold(self, receipt: AmqpReceipt) -> bool:
        if self._stopped or receipt.unsettled is not self._unsettled:
            return False
        may = self._company.most(receipt.queue, self.backlog) > 0
        return may and not self._company.is_held_long(receipt)

    async def pause_before_return(self, unsettled: Unsettled) -> None:
        if not self._waiting and unsettled is self._unsettled:
            # Else it would be pushed here again at once, and wait while other workers are free.
            async with self._tuning:
                await self._pause()

    def offer_again(self, receipt: AmqpReceipt) -> None:
        unsettled, queue = receipt.unsettled, receipt.queue
        if self._stopped or unsettled is not self._unsettled or queue not in self._pushed.lines:
            unsettled.requeue(receipt)
            return
        delivery, following = self._delivery(
            unsettled, queue, receipt.message, receipt.generation, receipt.arrived, receipt.was_returned
        )
        receipt.go("due")
        unsettled.replace(following)
        self._offer(delivery)

    def _offer(self, delivery: Delivery) -> None:
        """Offer a delivery to ``take`` that was pushed before."""
        if delivery.queue not in self._pushed.lines:
            receipt = receipt_of(delivery)
            receipt.unsettled.requeue(receipt)
            return
        self._pushed.put_back(delivery)
        self._news.set()
        if self._surplus is None:
            self._look_later(_SURPLUS_AFTER)

    # --- tuning

    def _is_consuming(self) -> bool:
        unsettled = self._unsettled
        return (
            unsettled is not None
            and unsettled.channel.is_open
            and len(self._current) == len(self._pushed.queues)
        )

    def _is_narrow(self, limit: int) -> bool:
        """Whether more messages could start, now or soon, or may be held, than the prefetch lets RabbitMQ push."""
        if limit > self._consumer_prefetch or self._room(limit) >= 1.5 * self._consumer_prefetch:
            return True
        return self.backlog > self._backlog_then or (self.backlog > 0 and self._company.may_have_left())

    def _room(self, limit: int) -> int:
        """Return how many may be unsettled: those that can start now, and those that end while more arrive."""
        settled = 0 if self._unsettled is None else self._unsettled.settled
        # More than `prefetch` may be on its way: RabbitMQ pushes, and what is not taken goes back.
        return min(limit + (self._pace.at(settled) if self.prefetch else 0), _MOST_AT_ONCE)

    def _crowd(self) -> int:
        return 0 if self._unsettled is None else self._unsettled.crowd

    async def _tune(self, limit: int, *, anew: bool = False) -> None:
        """Have a channel, and a consumer for each queue.

        :param anew: in place of the consumers there are, with room for ``limit`` messages besides what is unsettled.
        """
        with self._link.translated(BrokerUnavailable, BrokerError):
            async with self._tuning:
                if self._stopped:
                    return
                channel = await self._have_channel()
                if self.backlog:
                    await asyncio.gather(*map(self._look_for_company, self._pushed.queues))
                async with self._link.deadline():
                    if anew or not self._consumer_prefetch:
                        await asyncio.gather(*self._start_anew(channel, self._room(limit)))
                    else:
                        await asyncio.gather(*self._start_missing(channel))

    def _start_anew(self, channel: Channel, room: int) -> list[asyncio.Future[Any]]:
        assert self._unsettled is not None
        self._consumer_prefetch = room
        self._backlog_then = self.backlog
        answers: list[asyncio.Future[Any]] = [
            self._start_cancelling(channel, queue) for queue in tuple(self._current)
        ]
        self._unsettled.start_anew()
        return answers + self._start_missing(channel)

    def _start_missing(self, channel: Channel) -> list[asyncio.Future[Any]]:
        missing = [queue for queue in self._pushed.queues if queue not in self._current]
        return [answer for queue in missing for answer in self._start_consuming(channel, queue)]

    async def _have_channel(self) -> Channel:
        if self._unsettled is not None and self._unsettled.channel.is_open:
            return self._unsettled.channel
        self._forget()
        for queue in tuple(self._pushed.queues):
            await self._topology.have_queue(queue)
        known = await self._ledger.can_follow()
        for queue in tuple(self._pushed.queues):
            await self._known_queues.note(queue)
            with contextlib.suppress(Refused):
                await self._topology.use_delays(queue)
        async with self._link.lasting_channel() as channel:
            unsettled = Unsettled(self._link, channel, self)
            channel.on_message = lambda message: self._arrived(unsettled, message)
            channel.on_cancelled = self._cancelled
            channel.on_closed = lambda error: self._lost(unsettled, error)
            if known:
                await self._ledger.attach(channel)
        self._unsettled = unsettled
        return channel

    def _start_consuming(self, channel: Channel, queue: str) -> Sequence[asyncio.Future[Any]]:
        assert self._unsettled is not None
        name = self._current[queue] = f"celeriac-{next(self._numbers)}"
        self._consumers[name] = queue, self._unsettled.generation
        limit = max(self._consumer_prefetch, self._company.most(queue, self.backlog))
        return channel.start(methods.limit_unsettled(limit)), channel.start(methods.consume(queue, name))

    def _start_cancelling(self, channel: Channel, queue: str) -> asyncio.Task[None]:
        """Stop pushes from a queue; the task ends when every message that was pushed before has arrived."""
        name = self._current.pop(queue)
        answer = channel.start(methods.cancel(name))
        return self._loop.create_task(self._end_consumer(channel, name, answer))

    async def _end_consumer(self, channel: Channel, name: str, answer: asyncio.Future[Any]) -> None:
        """Forget a consumer once nothing of its can come.

        RabbitMQ may answer before messages that it had pushed, and sends those before the next answer. They are ours
        like all others: given back, they would be marked as redelivered, and overtaken by those of the next consumer.
        """
        await answer
        await channel.call(methods.limit_unsettled(max(1, self._consumer_prefetch)))
        self._consumers.pop(name, None)

    async def _pause(self, queues: Iterable[str] | None = None, hold: int = 0) -> None:
        """Stop pushes from these queues, and give back messages that were pushed and not taken.

        :param hold: how many of each queue stay, the first.
        """
        unsettled = self._unsettled
        if unsettled is None or not unsettled.channel.is_open:
            return
        wanted = set(self._pushed.lines if queues is None else queues)
        try:
            async with self._link.deadline():
                cancelled = [queue for queue in self._current if queue in wanted]
                await asyncio.gather(
                    *(self._start_cancelling(unsettled.channel, queue) for queue in cancelled)
                )
                for queue in wanted:
                    await self._return_line(unsettled, queue, hold)
        except AmqpError:
            return  # the channel is closed: RabbitMQ took everything back

    async def _return_line(self, unsettled: Unsettled, queue: str, hold: int) -> None:
        left = [receipt_of(delivery) for delivery in self._pushed.cut(queue, hold)]
        if not left:
            return
        await self._tallies.excuse([receipt.message for receipt in left])
        if not unsettled.channel.is_open:
            return
        for receipt in left:
            unsettled.requeue(receipt)
        # The queue answers after it has them back.
        await unsettled.channel.call(methods.look_for_queue(queue))

    def _forget(self) -> None:
        """Forget a closed channel."""
        self._unsettled = None
        self._consumer_prefetch = 0
        self._pace = Pace(self._loop, _UNDER_WAY)
        self._consumers.clear()
        self._current.clear()

    # --- what arrives

    def _arrived(self, unsettled: Unsettled, message: Inbound) -> None:
        if message.consumer == LEDGER_CONSUMER:
            self._ledger.take(message)
            return
        queue, generation = self._consumers.get(message.consumer, _NO_CONSUMER)
        message.queue = queue
        delivery, receipt = self._delivery(unsettled, queue, message, generation, monotonic())
        unsettled.add(receipt)
        line = self._pushed.lines.get(queue)
        if line is None:
            if unsettled.channel.is_open:  # else it goes back with the channel
                unsettled.requeue(receipt)
            return
        line.append(delivery)
        self._news.set()
        if self._surplus is None:
            self._look_later(_SURPLUS_AFTER)

    def _lost(self, unsettled: Unsettled, error: AmqpError) -> None:
        """The channel is over; with its connection, unless RabbitMQ refused something or it is not needed any more."""
        for line in self._pushed.lines.values() if unsettled is self._unsettled else ():
            line.clear()
        self._news.set()
        with_line = isinstance(error, Unavailable) and not unsettled.channel.is_closing
        if with_line and not self._orphans.is_closed:
            self._orphans.adopt(*unsettled.lose_line())
        else:
            unsettled.lose_channel()

    def _delivery(
        self,
        unsettled: Unsettled,
        queue: str,
        message: Inbound,
        generation: int,
        arrived: float,
        was_returned: bool = False,
    ) -> tuple[Delivery, AmqpReceipt]:
        envelope, deliveries = read(message, lowest_first=self._lowest_first)
        if isinstance(envelope, Unreadable):
            publication, redelivered = None, message.redelivered
        else:
            publication, redelivered = f"{envelope.delivery_tag}@{queue}", envelope.redelivered
        receipt = AmqpReceipt(
            unsettled,
            self._orphans,
            self._rerouting,
            queue,
            message,
            publication,
            generation,
            arrived,
            was_returned,
        )
        is_again = redelivered or was_returned
        return Delivery(envelope, queue, receipt, is_again, deliveries, kept_until(message)), receipt

    def _cancelled(self, name: str) -> None:
        """RabbitMQ ended a consumer: its queue was deleted, or moved to another node."""
        queue, _ = self._consumers.pop(name, _NO_CONSUMER)
        if self._current.get(queue) == name:
            del self._current[queue]
            self._topology.forget_queue(queue)
        self._news.set()

    # --- what cannot start

    def _look_later(self, seconds: float) -> None:
        self._taken_lately = 0
        self._surplus = self._loop.call_later(seconds, self._look_for_surplus)

    def _look_for_surplus(self) -> None:
        """Look for messages that were pushed and not taken, since all slots are busy: other workers may be free."""
        self._surplus = None
        left = len(self._pushed)
        if self._stopped or not left:
            return
        if left <= self._taken_lately:
            self._look_later(_SURPLUS_AFTER)
        elif self._returning is None or self._returning.done():
            self._returning = self._loop.create_task(self._deal_with_surplus())

    async def _deal_with_surplus(self) -> None:
        """Hold what nobody else could run, for a while, and give back the rest."""
        for queue in self._pushed.filled():
            with contextlib.suppress(AmqpError):
                hold = await self._may_hold(queue) if self.backlog else 0
                if self.buffered(queue) > hold:
                    self._consumer_prefetch = 0
                    await self._return_surplus(queue, hold)
        if self.backlog and self._surplus is None and self._pushed.filled():
            self._look_later(_LOOK_AFTER)

    async def _may_hold(self, queue: str) -> int:
        async with self._tuning:
            await self._look_for_company(queue)
        if (line := self._pushed.lines.get(queue)) and self._company.is_held_long(receipt_of(line[0])):
            return 0
        return self._company.most(queue, self.backlog)

    async def _look_for_company(self, queue: str) -> None:
        if queue in self._pushed.queues:
            await self._company.look(queue, int(queue in self._current))

    async def _return_surplus(self, queue: str, hold: int = 0) -> None:
        """Give back what was pushed from a queue and not taken, but for the first ``hold`` messages."""
        # A quorum queue counts a message that is given back as a failed delivery.
        with contextlib.suppress(AmqpError):
            if await self._topology.counts_deliveries(queue) is False:
                async with self._tuning:
                    await self._pause([queue], hold)
