"""How a delivery ends: acknowledged, given back, kept until it is due, or set aside.

Rules: what goes elsewhere is published and confirmed there before it is acknowledged here, so a crash in between leaves
it twice, never nowhere. What RabbitMQ took back with a lost connection is settled by telling the others. Only where the
broker keeps no delayed messages are they held here until they are due.
"""

from __future__ import annotations

import logging
import math
from typing import Protocol

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost, EncodeError
from celeriac.servers.rabbitmq.dead import Graveyard
from celeriac.servers.rabbitmq.envelopes import parked, set_by
from celeriac.servers.rabbitmq.holding import Holding
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.orphans import Orphans
from celeriac.servers.rabbitmq.outbox import Outbox
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.tallies import Tallies

_log = logging.getLogger("celeriac.broker.amqp")


class Taker(Protocol):
    """What a receipt needs of the subscription it came from."""

    async def give_back(self, holding: Holding, message: Inbound) -> None:
        """Put a message back on its queue."""
        ...

    def offer_again(self, holding: Holding, queue: str, message: Inbound) -> None:
        """Hand a message out again."""
        ...


class Keeper:
    """Where messages go that are not for now."""

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        graveyard: Graveyard,
        tallies: Tallies,
        orphans: Orphans,
        clock: Clock,
    ) -> None:
        self._link = link
        self._outbox = outbox
        self._graveyard = graveyard
        self._tallies = tallies
        self.orphans = orphans
        self._clock = clock
        self._complained = False

    def seconds_until(self, due: float) -> float:
        """Return how long it is until then."""
        return due - self._clock.now()

    async def delay(self, message: Inbound, queue: str, due: float, *, aside: bool = False) -> bool:
        """Have the message kept by the broker; return whether it can be.

        :param aside: somebody may still work on it.
        """
        earlier = self._tallies.earlier(message)
        properties = set_by(message, earlier) if aside else parked(message, earlier)
        try:
            await self._outbox.delay(properties, message.body, queue, due)
        except EncodeError:
            return False  # the headers fill their frame, and there is no room for when it is due
        except Refused as error:
            if not self._complained:
                self._complained = True
                _log.warning(
                    "%s keeps no delayed messages (%s): they are held here until they are due",
                    self._link.target,
                    error,
                )
            return False
        except AmqpError as error:
            raise self._link.translate(error, BrokerUnavailable, BrokerError) from error
        return True

    async def note_return(self, message: Inbound) -> None:
        """Have it known that a message comes back on purpose."""
        await self._tallies.give_back(message)

    async def bury(self, message: Inbound, queue: str, reason: str) -> None:
        """Have the message among the dead letters."""
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._graveyard.add(message, queue, reason, self._clock.now())
        await self._tallies.forget(message)


class AmqpReceipt:
    """The right to settle one delivery; see ``celeriac.broker.Receipt``.

    :ivar message: what was delivered.
    :ivar tag: tells the publication, the same for every delivery of it; ``None`` where it cannot be read.
    :ivar generation: of the consumers that it was pushed to.
    """

    __slots__ = ("_holding", "_keeper", "_queue", "_spent", "_taker", "generation", "message", "tag")

    def __init__(
        self,
        keeper: Keeper,
        taker: Taker,
        holding: Holding,
        queue: str,
        message: Inbound,
        tag: str | None,
        generation: int,
    ) -> None:
        self._keeper = keeper
        self._taker = taker
        self._holding = holding
        self._queue = queue
        self._spent = False
        self.message = message
        self.tag = tag
        self.generation = generation

    @property
    def is_void(self) -> bool:
        """Whether RabbitMQ took the delivery back."""
        return self._holding.channel.error is not None

    async def ack(self, *, surely: bool = False) -> None:
        if not surely:
            await self._settle()
            return
        await self._refuse_orphan()
        self._check()
        self._spent = True
        self._holding.ack(self.message.tag, over=False)
        try:
            await self._holding.settle()
        except DeliveryLost:
            self._keeper.orphans.note_idle(self.tag)
            raise

    async def requeue(self) -> None:
        if self._keeper.orphans.has(self):
            await self._keeper.orphans.free(self)
        else:
            self._check()
            await self._keeper.note_return(self.message)
            await self._taker.give_back(self._holding, self.message)
        self._spent = True

    async def park(self, due: float) -> None:
        if math.isnan(due):
            raise ValueError("a message cannot be parked until nan; give seconds since the epoch")
        self._check()
        seconds = self._keeper.seconds_until(due)
        if seconds > 0 and await self._keeper.delay(self.message, self._queue, due):
            await self._settle()
        else:
            await self._hold(seconds)

    async def set_by(self, due: float) -> None:
        """Have the message come back then: somebody may still work on it. Raises as ``park``."""
        self._check()
        if await self._keeper.delay(self.message, self._queue, due, aside=True):
            self._keeper.orphans.forget(self)
            self._holding.ack(self.message.tag, over=False)
            self._spent = True
        else:
            await self._hold(self._keeper.seconds_until(due))

    async def bury(self, reason: str) -> None:
        self._check()
        await self._keeper.bury(self.message, self._queue, reason)
        await self._settle()

    def go_on_as(self, other: AmqpReceipt) -> None:
        """Settle another delivery of the same publication from now on."""
        self._holding, self._taker, self._queue = other._holding, other._taker, other._queue
        self.message = other.message
        other._spent = True
        self._holding.replace(self.message.tag, self)

    async def _hold(self, seconds: float) -> None:
        await self._refuse_orphan()
        if self.message.redelivered:  # then it is counted anew when it is handed out again
            await self._keeper.note_return(self.message)
        taker, holding, queue, message = self._taker, self._holding, self._queue, self.message
        holding.hold(message.tag, max(0.0, seconds), lambda: taker.offer_again(holding, queue, message))
        self._spent = True

    async def _refuse_orphan(self) -> None:
        if self._keeper.orphans.has(self):
            await self._keeper.orphans.free(self)
            raise DeliveryLost(f"delivery {self.message.tag} is not ours any more: the connection was lost")

    async def _settle(self) -> None:
        """Have it dealt with, or have the others know that it is."""
        self._refuse_spent()
        if self._keeper.orphans.has(self):
            await self._keeper.orphans.end(self)
        else:
            self._holding.ack(self.message.tag)
        self._spent = True

    def _refuse_spent(self) -> None:
        if self._spent:
            raise DeliveryLost(f"delivery {self.message.tag} was settled before")

    def _check(self) -> None:
        self._refuse_spent()
        if not self._keeper.orphans.has(self):
            self._holding.check(self.message.tag)
