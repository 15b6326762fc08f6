"""Moves a delivered message to another place: the queues of delays, or the dead letters.

Rules: a message is confirmed at its new place before a method returns, so the caller may acknowledge the old one.
"""

from __future__ import annotations

import logging

from celeriac.clock import Clock
from celeriac.contracts.set_aside import Failed
from celeriac.errors import BrokerError, BrokerUnavailable, EncodeError
from celeriac.servers.rabbitmq.dead import Graveyard
from celeriac.servers.rabbitmq.dispatcher import Dispatcher
from celeriac.servers.rabbitmq.envelopes import left_of_delay, parked, put_off
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.tallies import Tallies

_log = logging.getLogger("celeriac.broker.amqp")


class Rerouting:
    """Moves the delivered messages of one broker."""

    def __init__(
        self,
        link: Link,
        dispatcher: Dispatcher,
        graveyard: Graveyard,
        failed: Graveyard,
        tallies: Tallies,
        clock: Clock,
    ) -> None:
        self._link = link
        self._dispatcher = dispatcher
        self._graveyard = graveyard
        self._failed = failed
        self._tallies = tallies
        self._clock = clock
        self._complained = False
        self._missed = False

    def seconds_until(self, due: float) -> float:
        """Return how long it is until a moment, in seconds since the epoch."""
        return due - self._clock.now()

    def left_of(self, message: Inbound, due: float) -> float:
        """Return until when to keep a message that is due then, but was perhaps kept before."""
        return left_of_delay(message, due, self._clock.now())

    async def delay(
        self, message: Inbound, queue: str, until: float, due: float | None = None, *, same: bool = False
    ) -> bool:
        """Have RabbitMQ keep the message until it is due; return ``False`` where it cannot.

        Raises ``BrokerUnavailable`` or ``BrokerError``.

        :param due: when it is due, where our clock is not to be trusted to tell that.
        :param same: it stays the same publication, since a worker may still work on it.
        """
        earlier = self._tallies.earlier(message)
        properties = put_off(message, earlier) if same else parked(message, earlier)
        try:
            await self._dispatcher.delay(properties, message.body, queue, until, due)
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
        """Have it known that a message comes back on purpose, so that this delivery does not count. Never raises."""
        await self._tallies.give_back(message)

    async def bury(self, message: Inbound, queue: str, reason: str) -> None:
        """Have the message among the dead letters. Raises ``BrokerUnavailable`` or ``BrokerError``."""
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._graveyard.add(message, queue, reason, self._clock.now())
        await self._tallies.forget(message)

    async def fail(self, message: Inbound, queue: str, failed: Failed) -> None:
        """Have the message in the failed list, as far as this user may use one. Raises ``BrokerUnavailable``."""
        try:
            await self._failed.add(message, queue, failed.reason, self._clock.now(), failed.id)
        except Refused as error:
            # A task that failed is dealt with; without the list, only running it again is harder.
            if not self._missed:
                self._missed = True
                _log.warning("%s keeps no messages of failed tasks: %s", self._link.target, error)
        except AmqpError as error:
            raise self._link.translate(error, BrokerUnavailable, BrokerError) from error
