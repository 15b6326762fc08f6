"""Publishes messages: declares their queues, sends those that are not due to the queues of delays, waits for confirms.

Rules: a publish returns when the server confirmed it. A message that no queue takes is an error. A message that AMQP
cannot carry is refused before anything is sent: RabbitMQ would end the connection over it, and everything else that is
on its way would fail too. A message that is not due goes straight to the queues of delays if its queue is known.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError, EncodeError
from celeriac.servers.rabbitmq.envelopes import DUE_HEADER, has_further_keys, to_properties
from celeriac.servers.rabbitmq.link import LARGE, Link
from celeriac.servers.rabbitmq.protocol.content import (
    LONGEST_NAME,
    Properties,
    short_text,
    write_properties,
    write_table,
)
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused, is_too_large
from celeriac.servers.rabbitmq.protocol.frames import room_in
from celeriac.servers.rabbitmq.protocol.publishing import NO_ROUTE, Publisher
from celeriac.servers.rabbitmq.topology import FIRST_DELAY_EXCHANGE, Topology, delay_key
from celeriac.wire.envelope import Envelope, Route

_IN_FLIGHT = 500
"""How many messages of one ``publish_many`` are on their way at once."""

_ADDED = 200
"""Bytes that are kept free in a header, for those that a delay adds."""


class _Ready(msgspec.Struct):
    """A message that AMQP can carry."""

    properties: Properties
    header: bytes
    body: bytes
    route: Route


class Dispatcher:
    """Publishes the messages of one broker."""

    def __init__(self, link: Link, topology: Topology, clock: Clock, *, lowest_first: bool) -> None:
        self._link = link
        self._topology = topology
        self._clock = clock
        self._to_properties = partial(to_properties, lowest_first=lowest_first)

    async def publish(self, envelope: Envelope, route: Route) -> None:
        """Return when the broker has the message."""
        properties = self._to_properties(envelope)
        try:
            await self.send(properties, envelope.body, route)
        except AmqpError as error:
            raise self._translate(error, envelope.headers, route) from error

    async def publish_many(self, messages: Sequence[tuple[Envelope, Route]]) -> None:
        """Publish all, in order. Raises ``EncodeError`` before any is sent."""
        if not messages:
            return
        with self._link.translated(BrokerUnavailable, BrokerError):
            publisher = await self._link.publisher()
        ready = [
            _ready(publisher, self._to_properties(envelope), envelope.body, route)
            for envelope, route in messages
        ]
        for part in _parts(ready):
            with self._link.translated(BrokerUnavailable, BrokerError):
                publisher = await self._link.publisher()
                sent = [await self._start(publisher, message) for message in part]
            answers = await asyncio.gather(*sent, return_exceptions=True)
            for message, answer in zip(part, answers, strict=True):
                if isinstance(answer, AmqpError):
                    raise self._translate(answer, message.properties.headers or {}, message.route) from answer
                if answer is not None:
                    raise answer

    async def send(self, properties: Properties, body: bytes, route: Route) -> None:
        """Publish. Raises ``AmqpError``, and ``EncodeError`` before anything is sent."""
        publisher = await self._link.publisher()
        message = _ready(publisher, properties, body, route)
        try:
            await (await self._start(publisher, message))
        except Refused as error:
            queue = _queue_of(route)
            if error.code != NO_ROUTE or queue is None:
                raise
            # The queue was deleted since it was declared.
            self._topology.forget_queue(queue)
            await (await self._start(publisher, message))

    async def delay(
        self, properties: Properties, body: bytes, queue: str, until: float, due: float | None = None
    ) -> None:
        """Have RabbitMQ keep the message until it is due, then queue it. Raises as ``send``."""
        publisher = await self._link.publisher()
        message = _ready(publisher, properties, body, Route(queue, queue=queue))
        await self._topology.have_delays(queue)
        await self._start_delay(await self._link.publisher(), message, queue, until, due)

    async def _start(self, publisher: Publisher, message: _Ready) -> asyncio.Future[None]:
        """Return when the message is on its way; the future is done at its arrival."""
        route = message.route
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
            and not has_further_keys(message.properties)
            and await self._can_delay(queue)
        ):
            return self._start_delay(publisher, message, queue, route.due)
        return self._put(publisher, route.exchange, route.routing_key, message.header, message.body)

    def _put(
        self, publisher: Publisher, exchange: str, routing_key: str, header: bytes, body: bytes
    ) -> asyncio.Future[None]:
        if len(body) > LARGE:
            return asyncio.ensure_future(self._link.publish(exchange, routing_key, header, body))
        return publisher.publish(exchange, routing_key, header, body)

    def _start_delay(
        self, publisher: Publisher, message: _Ready, queue: str, until: float, due: float | None = None
    ) -> asyncio.Future[None]:
        properties, body = message.properties, message.body
        seconds = until - self._clock.now()
        delayed = msgspec.structs.replace(
            properties,
            headers={**(properties.headers or {}), DUE_HEADER: until if due is None else due},
            expiration=str(max(1, math.ceil(seconds * 1000))) if seconds < 1 else None,
        )
        exchange = self._topology.soon if seconds < 1 else FIRST_DELAY_EXCHANGE
        header = write_properties(delayed, len(body))
        return self._put(publisher, exchange, delay_key(int(seconds), queue), header, body)

    async def _can_delay(self, queue: str) -> bool:
        """Whether there are queues of delays; without them the worker keeps the message until it is due."""
        try:
            await self._topology.have_delays(queue)
        except Refused:
            return False
        return True

    def _translate(self, error: AmqpError, headers: Mapping[str, Any], route: Route) -> CeleriacError:
        if is_too_large(error):
            return self._link.too_large(error, f"the message of {headers.get('task')}[{headers.get('id')}]")
        place = f"exchange {route.exchange!r} with key {route.routing_key!r}"
        if isinstance(error, Refused) and error.code == NO_ROUTE:
            return BrokerError(
                f"{self._link.target}: no queue takes what is sent to {place}: {error}; bind one, or name a queue"
            )
        return self._link.translate(error, BrokerUnavailable, BrokerError)


def _queue_of(route: Route) -> str | None:
    return route.queue if route.queue is not None or route.exchange else route.routing_key


def _parts(messages: Sequence[_Ready]) -> Iterator[Sequence[_Ready]]:
    """Yield what may be on their way together. A large one goes by another channel and could lose its place."""
    start = 0
    for end, message in enumerate(messages):
        if len(message.body) > LARGE or end - start >= _IN_FLIGHT:
            if end > start:
                yield messages[start:end]
            start = end
        if len(message.body) > LARGE:
            yield messages[end : end + 1]
            start = end + 1
    if start < len(messages):
        yield messages[start:]


def _ready(publisher: Publisher, properties: Properties, body: bytes, route: Route) -> _Ready:
    """Return the message as it is sent. Raises ``EncodeError``, which names the part that AMQP cannot carry."""
    _check_name(route.exchange, "exchange")
    _check_name(route.routing_key, "routing key")
    _check_name(route.queue or "", "queue")
    header = write_properties(properties, len(body))
    room = room_in(publisher.channel.wire.frame_max) - _ADDED
    if len(header) > room:
        raise EncodeError(_too_large(properties, len(header), room))
    return _Ready(properties, header, body, route)


def _check_name(name: str, what: str) -> None:
    if not name.isascii() or len(name) > LONGEST_NAME:
        short_text(name, what)


def _too_large(properties: Properties, size: int, room: int) -> str:
    sizes = {name: len(write_table({name: value}, "")) for name, value in (properties.headers or {}).items()}
    name = max(sizes, key=sizes.__getitem__, default="")
    return (
        f"headers: {size} bytes of properties, of which {name!r:.100} takes {sizes.get(name, 0)}, are more than the "
        f"{room} that RabbitMQ takes (frame_max); what is large belongs in an argument, or in a store of its own"
    )
