"""Messages to all listeners at once, and their answers, over exchanges as Celery declares them.

Rules: each listener has exclusive queues, which RabbitMQ deletes with its connection: RabbitMQ 4.3 has no other
transient queues. Messages are not acknowledged. An exchange that is there is taken as it is.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import count

from celeriac.contracts.fanout import Binding, Exchange, ReplyTo
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.retry import Backoff
from celeriac.servers.inbox import Inbox
from celeriac.servers.rabbitmq.envelopes import read, to_properties
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.connection import Connection
from celeriac.servers.rabbitmq.protocol.content import write_properties
from celeriac.servers.rabbitmq.protocol.errors import (
    NOT_FOUND,
    RESOURCE_LOCKED,
    AmqpError,
    Refused,
    Unavailable,
)
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.servers.rabbitmq.protocol.publishing import NO_ROUTE
from celeriac.wire.envelope import Envelope

_log = logging.getLogger("celeriac.rabbitmq")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between tries to listen again after the connection was lost."""


class AmqpFanout:
    """Listeners on one RabbitMQ; see ``celeriac.contracts.fanout.Fanout``."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._exchanges = _Exchanges(link)
        self._listening: set[_Listening] = set()

    async def publish(self, exchange: Exchange, envelope: Envelope, key: str = "") -> int | None:
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._exchanges.have(exchange.name, _kind(exchange), durable=exchange.by_key)
            return await self._put(exchange.name, key, envelope)

    @asynccontextmanager
    async def listen(self, bindings: Sequence[Binding]) -> AsyncIterator[Inbox]:
        queues = [_Queue(binding, _kind(binding.exchange), binding.exchange.by_key) for binding in bindings]
        async with self._listen(queues, lasting=True) as inbox:
            yield inbox

    async def answer(self, reply_to: ReplyTo, envelope: Envelope, keep: float = 10.0) -> bool:
        """Send an answer. The queue of the process that asked says how long it is kept, so ``keep`` is ignored."""
        with self._link.translated(BrokerUnavailable, BrokerError):
            if not await self._exchanges.are_there(reply_to.exchange):
                return False
            return await self._put(reply_to.exchange, reply_to.key, envelope) is None

    @asynccontextmanager
    async def ask(
        self,
        exchange: Exchange,
        envelope: Envelope,
        reply_to: ReplyTo,
        *,
        key: str = "",
        expect: int | None = None,
    ) -> AsyncIterator[Inbox]:
        answers = Binding(exchange=Exchange(reply_to.exchange), key=reply_to.key, queue=reply_to.queue)
        async with self._listen([_Queue(answers, "direct", False)], lasting=False) as inbox:
            asked = await self.publish(exchange, envelope, key)
            inbox.expect(expect, asked)
            yield inbox

    async def close(self) -> None:
        """End all listening. Idempotent."""
        for listening in tuple(self._listening):
            await listening.close()

    @asynccontextmanager
    async def _listen(self, queues: Sequence[_Queue], *, lasting: bool) -> AsyncIterator[Inbox]:
        listening = _Listening(self._link, self._exchanges, queues, lasting=lasting)
        with self._link.translated(BrokerUnavailable, BrokerError):
            await listening.open()
        self._listening.add(listening)
        try:
            yield listening.inbox
        finally:
            self._listening.discard(listening)
            await listening.close()

    async def _put(self, exchange: str, key: str, envelope: Envelope) -> int | None:
        """Publish; return 0 if it reached no listener, ``None`` if it reached some."""
        header = write_properties(to_properties(envelope), len(envelope.body))
        try:
            await self._link.publish(exchange, key, header, envelope.body)
        except Refused as error:
            if error.code != NO_ROUTE:
                raise
            return 0
        return None


class _Queue:
    """A queue to listen with.

    :param kind: of its exchange, as AMQP names it.
    """

    def __init__(self, binding: Binding, kind: str, durable: bool) -> None:
        self.exchange, self.kind, self.durable = binding.exchange.name, kind, durable
        self.key = "" if kind == "fanout" else binding.key
        self.name = binding.queue or f"{binding.exchange.name}.{uuid.uuid4()}"
        self.arguments = {
            "x-expires": round(binding.expires * 1000),
            "x-message-ttl": round(binding.message_ttl * 1000),
        }


class _Exchanges:
    """The exchanges that are known to be there, on the present connection."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._connection: Connection | None = None
        self._known: set[str] = set()

    async def have(self, name: str, kind: str, *, durable: bool) -> None:
        """Declare the exchange, unless there is one of that name."""
        if await self.are_there(name):
            return
        if self._link.target.declare == "never":
            raise Refused(f"there is no exchange {name!r}, and declare=never forbids to make it", NOT_FOUND)
        async with self._link.passing_channel() as channel:
            await channel.call(methods.declare_exchange(name, kind, durable=durable))
        self._known.add(name)

    async def are_there(self, *names: str) -> bool:
        """Whether these exchanges are declared."""
        connection = await self._link.connection()
        if connection is not self._connection:
            self._connection = connection
            self._known.clear()
        for name in names:
            if name not in self._known:
                try:
                    async with self._link.passing_channel() as channel:
                        await channel.call(methods.look_for_exchange(name))
                except Refused as error:
                    if error.code == NOT_FOUND:
                        return False
                    raise
                self._known.add(name)
        return True


class _Listening:
    """One ``listen`` block: a channel that consumes from its queues.

    :param lasting: make the channel anew whenever it was lost; else the reader of the inbox gets an error.
    """

    def __init__(self, link: Link, exchanges: _Exchanges, queues: Sequence[_Queue], *, lasting: bool) -> None:
        self.inbox = Inbox()
        self._link = link
        self._exchanges = exchanges
        self._queues = queues
        self._lasting = lasting
        self._channel: Channel | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Begin to listen. Raises ``AmqpError``."""
        for queue in self._queues:
            await self._exchanges.have(queue.exchange, queue.kind, durable=queue.durable)
        async with self._link.lasting_channel() as channel, self._link.deadline():
            channel.on_message = self._arrived
            channel.on_cancelled = lambda consumer: channel.give_up("the server ended a listener")
            numbers = count(1)
            asked = []
            for queue in self._queues:
                asked.append(channel.start(methods.declare_listening_queue(queue.name, queue.arguments)))
                asked.append(channel.start(methods.bind_queue(queue.name, queue.exchange, queue.key)))
                consumer = f"celeriac-listener-{next(numbers)}"
                asked.append(channel.start(methods.consume(queue.name, consumer, no_ack=True)))
            await asyncio.gather(*asked)
            channel.on_closed = partial(self._lost, channel)
        self._channel = channel
        if channel.error is not None:
            self._lost(channel, channel.error)

    async def close(self) -> None:
        """End it; the reader of the inbox gets an error. Idempotent."""
        if self._closed:
            return
        self._closed = True
        reopening, self._reopening = self._reopening, None
        if reopening is not None:
            reopening.cancel()
            await asyncio.wait([reopening])
        channel, self._channel = self._channel, None
        if channel is not None and channel.is_open:
            with suppress(AmqpError):
                async with self._link.deadline():
                    await self._delete_queues(channel)
            if channel.is_open:
                channel.start_closing()
        self.inbox.fail(BrokerUnavailable("the listener is closed: its block was left, or the broker closed"))

    async def _delete_queues(self, channel: Channel) -> None:
        """Delete the queues at once: RabbitMQ would delete them a moment after the channel closed."""
        await asyncio.gather(*[channel.start(methods.delete_queue(queue.name)) for queue in self._queues])

    def _arrived(self, message: Inbound) -> None:
        self.inbox.put(read(message)[0])

    def _lost(self, channel: Channel, error: AmqpError) -> None:
        if self._closed or channel is not self._channel:
            return
        self._channel = None
        self.inbox.cuts += 1
        if self._lasting:
            self._reopening = asyncio.create_task(self._reopen(), name="celeriac-fanout")
        else:
            self.inbox.fail(self._link.translate(error, BrokerUnavailable, BrokerError))

    async def _reopen(self) -> None:
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while self._channel is None:
            await asyncio.sleep(backoff.pause())
            try:
                await self.open()
            except Unavailable as error:
                _log.debug("nothing is heard: %s", error)
            except Refused as error:
                if error.code != RESOURCE_LOCKED:
                    self.inbox.fail(self._link.translate(error, BrokerUnavailable, BrokerError))
                    return
                # The server has not noticed yet that our former connection is gone.
                _log.debug("nothing is heard: %s", error)


def _kind(exchange: Exchange) -> str:
    return "topic" if exchange.by_key else "fanout"
