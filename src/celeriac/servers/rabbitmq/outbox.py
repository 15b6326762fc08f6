"""The way of messages to RabbitMQ.

Rules: a publish returns when the server confirmed it; one that no queue takes is an error. What is not due yet goes
straight to the queues of delays, where its queue is known.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import msgspec

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.rabbitmq.envelopes import DUE_HEADER, to_properties
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol.content import Properties, write_properties
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused
from celeriac.servers.rabbitmq.protocol.publishing import NO_ROUTE, Publisher
from celeriac.servers.rabbitmq.topology import FIRST_DELAY_EXCHANGE, Topology, delay_key
from celeriac.wire.envelope import Envelope, Route

_IN_FLIGHT = 500
"""How many messages of one ``publish_many`` are on their way at once."""


class Outbox:
    """Publishes to one broker."""

    def __init__(self, link: Link, topology: Topology, clock: Clock) -> None:
        self._link = link
        self._topology = topology
        self._clock = clock

    async def publish(self, envelope: Envelope, route: Route) -> None:
        """Return when the broker has the message."""
        properties = to_properties(envelope)
        try:
            await self.send(properties, envelope.body, route)
        except AmqpError as error:
            raise self._translate(error, route) from error

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        """Publish all, in order."""
        ready = [(to_properties(envelope), envelope.body, route) for envelope, route in messages]
        for start in range(0, len(ready), _IN_FLIGHT):
            part = ready[start : start + _IN_FLIGHT]
            with self._link.translated(BrokerUnavailable, BrokerError):
                publisher = await self._link.publisher()
                sent = [await self._start(publisher, *message) for message in part]
            answers = await asyncio.gather(*sent, return_exceptions=True)
            for (_, _, route), answer in zip(part, answers, strict=True):
                if isinstance(answer, AmqpError):
                    raise self._translate(answer, route) from answer
                if answer is not None:
                    raise answer

    async def send(self, properties: Properties, body: bytes, route: Route) -> None:
        """Publish. Raises ``AmqpError``."""
        publisher = await self._link.publisher()
        try:
            await (await self._start(publisher, properties, body, route))
        except Refused as error:
            queue = _queue_of(route)
            if error.code != NO_ROUTE or queue is None:
                raise
            # The queue was deleted since it was declared.
            self._topology.forget_queue(queue)
            await (await self._start(publisher, properties, body, route))

    async def delay(self, properties: Properties, body: bytes, queue: str, due: float) -> None:
        """Have the message kept until then and queued. Raises ``AmqpError``."""
        await self._topology.have_delays(queue)
        publisher = await self._link.publisher()
        await self._start_delay(publisher, properties, body, queue, due)

    async def _start(
        self, publisher: Publisher, properties: Properties, body: bytes, route: Route
    ) -> asyncio.Future[None]:
        """Return when the message is on its way; the future tells of its arrival."""
        queue = _queue_of(route)
        if queue is not None:
            await self._topology.have_queue(queue)
        elif route.exchange:
            await self._topology.have_exchange(route.exchange)
        if not publisher.channel.wire.is_writable:
            async with self._link.deadline():
                await publisher.channel.wire.writable()
        if (
            route.due is not None
            and queue is not None
            and route.due > self._clock.now()
            and await self._can_delay(queue)
        ):
            return self._start_delay(publisher, properties, body, queue, route.due)
        header = write_properties(properties, len(body))
        return publisher.publish(route.exchange, route.routing_key, header, body)

    def _start_delay(
        self, publisher: Publisher, properties: Properties, body: bytes, queue: str, due: float
    ) -> asyncio.Future[None]:
        seconds = due - self._clock.now()
        delayed = msgspec.structs.replace(
            properties,
            headers=(properties.headers or {}) | {DUE_HEADER: due},
            expiration=str(max(1, math.ceil(seconds * 1000))) if seconds < 1 else None,
        )
        exchange = self._topology.soon if seconds < 1 else FIRST_DELAY_EXCHANGE
        header = write_properties(delayed, len(body))
        return publisher.publish(exchange, delay_key(int(seconds), queue), header, body)

    async def _can_delay(self, queue: str) -> bool:
        """Whether there are queues of delays; without them the worker keeps the message until it is due."""
        try:
            await self._topology.have_delays(queue)
        except Refused:
            return False
        return True

    def _translate(self, error: AmqpError, route: Route) -> BrokerError:
        place = f"exchange {route.exchange!r} with key {route.routing_key!r}"
        if isinstance(error, Refused) and error.code == NO_ROUTE:
            return BrokerError(
                f"{self._link.target}: no queue takes what is sent to {place}: {error}; bind one, or name a queue"
            )
        translated = self._link.translate(error, BrokerUnavailable, BrokerError)
        assert isinstance(translated, BrokerError)
        return translated


def _queue_of(route: Route) -> str | None:
    return route.queue if route.queue is not None or route.exchange else route.routing_key
