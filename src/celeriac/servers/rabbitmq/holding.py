"""The deliveries of one channel that are not settled yet.

Rules: acks of one turn of the loop go out together, as one frame where everything before was settled too; when the
channel is closed everything it held is void. What was acknowledged last is remembered, for an ack has no answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection
from typing import Protocol

from celeriac.errors import DeliveryLost
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.errors import AmqpError

_ACKED = 2000
"""Acks that may be on their way when a connection is lost, at the most."""


class Held(Protocol):
    """A delivery that is not settled.

    :ivar tag: tells the publication, the same for every delivery of it; ``None`` where it cannot be read.
    :ivar generation: of the consumers that it was pushed to.
    """

    tag: str | None
    generation: int


class Holding:
    """What one channel holds; it closes the channel when it was told to and nothing is left.

    :ivar settled: how many deliveries were settled so far.
    """

    def __init__(self, link: Link, channel: Channel) -> None:
        self.channel = channel
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._unsettled: dict[int, Held] = {}
        self._acked: deque[str | None] = deque(maxlen=_ACKED)
        self._generation = 0
        self._crowd = 0
        self.settled = 0
        self._acks: list[int] = []
        self._held: dict[int, asyncio.TimerHandle] = {}
        self._closing: asyncio.Task[None] | None = None
        self._leaving = False

    @property
    def generation(self) -> int:
        """The number of the consumers that were started last."""
        return self._generation

    @property
    def crowd(self) -> int:
        """How many deliveries of this generation are unsettled; they fill the prefetch of its consumers."""
        return self._crowd

    def start_anew(self) -> int:
        """Begin another generation: consumers follow with a prefetch of their own."""
        self._generation += 1
        self._crowd = 0
        return self._generation

    def add(self, tag: int, held: Held) -> None:
        """Note a delivery."""
        self._unsettled[tag] = held
        if held.generation == self._generation:
            self._crowd += 1

    def replace(self, tag: int, held: Held) -> None:
        """Note that a delivery is another's from now on."""
        held.generation = self._unsettled[tag].generation
        self._unsettled[tag] = held

    def handed_out(self, waiting: Collection[int]) -> list[Held]:
        """Return what somebody works on: all but those, and what is kept here for a while."""
        return [held for tag, held in self._unsettled.items() if tag not in waiting and tag not in self._held]

    def acked_lately(self) -> list[str]:
        """Return the publications that were acknowledged last, of which RabbitMQ may not know."""
        return [tag for tag in self._acked if tag is not None]

    def check(self, tag: int) -> None:
        """Raise ``DeliveryLost`` for what is not ours any more."""
        if self.channel.error is not None or tag not in self._unsettled:
            raise DeliveryLost(
                f"delivery {tag} is not ours any more: it was settled before, or its channel was closed "
                f"({self.channel.error or 'it is open'})"
            )

    def ack(self, tag: int, *, over: bool = True) -> None:
        """Acknowledge, with all others of this turn of the loop. Raises ``DeliveryLost``.

        :param over: it is not to be done again, should RabbitMQ not read this.
        """
        self.check(tag)
        if over:
            self._acked.append(self._unsettled[tag].tag)
        self._drop(tag)
        if not self._acks:
            self._loop.call_soon(self._flush)
        self._acks.append(tag)

    async def settle(self) -> None:
        """Return when RabbitMQ has read every ack. Raises ``DeliveryLost`` when that cannot be known."""
        self._flush()
        try:
            async with self._link.deadline():
                # An ack has no answer; what is asked on the same channel after it has one.
                await self.channel.call(methods.look_for_exchange("amq.direct"))
        except AmqpError as error:
            raise DeliveryLost(
                f"the channel was closed before it was known to be acknowledged: {error}"
            ) from error

    def requeue(self, tag: int) -> None:
        """Give back. Raises ``DeliveryLost``."""
        self.check(tag)
        self._drop(tag)
        self.channel.send(frames.requeue(self.channel.number, tag))
        self._close_if_done()

    def hold(self, tag: int, seconds: float, then: Callable[[], None]) -> None:
        """Keep a delivery here for a while; ``then`` is called unless it is given back before."""

        def end() -> None:
            del self._held[tag]
            if self.channel.error is None:
                then()

        self._held[tag] = self._loop.call_later(seconds, end)

    def end_holds(self) -> None:
        """Give back what is kept here for a while."""
        held, self._held = self._held, {}
        for tag, timer in held.items():
            timer.cancel()
            if self.channel.error is None:
                self.requeue(tag)

    def leave(self) -> None:
        """Close the channel as soon as nothing is held any more."""
        self._leaving = True
        self.end_holds()
        self._close_if_done()

    def _drop(self, tag: int) -> None:
        self.settled += 1
        if self._unsettled.pop(tag).generation == self._generation:
            self._crowd -= 1

    def _flush(self) -> None:
        acks, self._acks = self._acks, []
        if self.channel.error is not None or not acks:
            return
        number = self.channel.number
        oldest = next(iter(self._unsettled), None)
        whole = [tag for tag in acks if oldest is None or tag < oldest]
        out = []
        if len(whole) > 1:
            out.append(frames.ack(number, max(whole), multiple=True))
            acks = [tag for tag in acks if oldest is not None and tag > oldest]
        out += [frames.ack(number, tag) for tag in acks]
        self.channel.send(b"".join(out))
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._leaving and not self._unsettled and not self._acks and self._closing is None:
            self._closing = self._loop.create_task(self._close())

    async def _close(self) -> None:
        with contextlib.suppress(AmqpError):
            async with self._link.deadline():
                await self.channel.close()
