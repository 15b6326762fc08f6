"""Looks into a queue: has messages pushed without acknowledging them, and puts them back where they were.

Rules: during a look no other consumer gets those messages. RabbitMQ marks them as redelivered afterwards, and a quorum
queue counts the look as a delivery. AMQP has no other way to look.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import frames, methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.errors import NOT_FOUND, AmqpError, Refused
from celeriac.servers.rabbitmq.protocol.frames import Inbound

_SILENCE = 0.5
"""Seconds without a message after which other consumers are taken to have the rest."""

_TICK = 0.005


class Look:
    """The messages that a look found.

    :ivar messages: in the order they would be taken.
    :ivar left: how many messages the queue has once all but the removed ones are back.
    """

    def __init__(self, channel: Channel, messages: list[Inbound], there: int) -> None:
        self.messages = messages
        self.left = there
        self._channel = channel

    def remove(self, message: Inbound) -> None:
        """Remove this message from the queue."""
        self._channel.send(frames.ack(self._channel.number, message.tag))
        self.left -= 1


@contextlib.asynccontextmanager
async def look_into(link: Link, queue: str, limit: int) -> AsyncIterator[Look]:
    """Have up to ``limit`` messages of a queue for the time of the block. A queue that is not there counts as empty."""
    channel = await link.channel()
    try:
        look = await _collect(link, channel, queue, limit)
        yield look
        if look.messages and channel.is_open:
            channel.send(frames.requeue_all(channel.number))
            await _until_back(channel, queue, look.left)
    finally:
        with contextlib.suppress(AmqpError):
            async with link.deadline():
                await channel.close()


async def _until_back(channel: Channel, queue: str, count: int) -> None:
    """Wait until the queue has its messages back. A quorum queue answers before it has dealt with what it was sent."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_SILENCE):
            while (await channel.call(methods.look_for_queue(queue))).message_count < count:  # noqa: ASYNC110
                await asyncio.sleep(_TICK)


async def _collect(link: Link, channel: Channel, queue: str, limit: int) -> Look:
    found: list[Inbound] = []
    news = asyncio.Event()

    def arrived(message: Inbound) -> None:
        message.queue = queue
        found.append(message)
        news.set()

    channel.on_message = arrived
    async with link.deadline():
        try:
            there = (await channel.call(methods.look_for_queue(queue))).message_count
        except Refused as error:
            if error.code != NOT_FOUND:
                raise
            return Look(channel, found, 0)
        wanted = min(limit, there)
        if wanted <= 0:
            return Look(channel, found, there)
        await channel.call(methods.limit_unsettled(wanted))
        await channel.call(methods.consume(queue, "look"))
    with contextlib.suppress(TimeoutError):
        while len(found) < wanted and channel.is_open:
            news.clear()
            async with asyncio.timeout(_SILENCE):
                await news.wait()
    async with link.deadline():
        await channel.call(methods.cancel("look"))
    return Look(channel, found, there)
