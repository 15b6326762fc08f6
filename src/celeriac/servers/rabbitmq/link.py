"""A process's connection to one RabbitMQ: made when it is first needed, and again whenever it was lost.

Rules: all callers share one connection, and those that ask at the same time wait for the same attempt. Attempts that
fail are spaced by a growing, random pause. No caller waits longer than the timeout. No call is repeated here: only the
caller knows what may be done twice. A link belongs to the event loop that first used it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from types import TracebackType

from celeriac.errors import CeleriacError, EncodeError, Finding
from celeriac.quantities import SECONDS, require
from celeriac.retry import Backoff
from celeriac.servers.causes import as_cause
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.connection import Connection, connect
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused, Unavailable
from celeriac.servers.rabbitmq.protocol.publishing import Publisher
from celeriac.servers.rabbitmq.protocol.url import AmqpTarget, parse_amqp_url
from celeriac.servers.tls import BadFile, Tls, open_context, read_tls

_log = logging.getLogger("celeriac.rabbitmq")

LARGE = 1_000_000
"""Bytes of a body. A larger one is sent on a channel of its own."""

_SLOWEST = 1_000_000
"""Bytes a second that a connection is expected to carry at least."""

_LOOKS = 4
"""Looks at the progress within the timeout."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0
"""Seconds between two attempts to connect."""


class Deadline:
    """A block that ends with ``Unavailable`` after some seconds without progress.

    No generator: a loop that ends closes the connection while it starts no generators any more.

    :param last_progress: returns the time of the loop at which bytes last left while others waited to, or an answer
        came.
    """

    def __init__(self, seconds: float, last_progress: Callable[[], float]) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)
        self._last_progress = last_progress
        self._loop = asyncio.get_running_loop()
        self._next: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._next = self._loop.call_later(self._seconds / _LOOKS, self._look)

    def _look(self) -> None:
        self._next = self._loop.call_later(self._seconds / _LOOKS, self._look)
        until = self._last_progress() + self._seconds
        if until > (self._timeout.when() or math.inf) and not self._timeout.expired():
            self._timeout.reschedule(until)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._next is not None:
            self._next.cancel()
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise Unavailable(f"no answer within {self._seconds:g} s") from late


def _never() -> float:
    return -math.inf


class Link:
    """The connection to one RabbitMQ.

    :param url: see ``url.parse_amqp_url``.
    :param timeout: seconds for any one exchange, connecting included; more while what is sent goes out.
    :ivar outages: how often the connection was lost, or could not be made.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        require("timeout", timeout, SECONDS)
        self.target: AmqpTarget = parse_amqp_url(url)
        self.timeout = timeout
        self.tls: Tls | None = read_tls(self.target.tls) if self.target.tls is not None else None
        self._context: ssl.SSLContext | None = None
        self._was_let_in = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._attempt: asyncio.Task[Connection] | None = None
        self._publisher: Publisher | None = None
        self._publishing = asyncio.Lock()
        self._turn = 0
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._not_before = 0.0
        self.outages = 0

    async def connection(self) -> Connection:
        """Return a connection that is open. Raises ``Unavailable`` or ``Refused``."""
        connection = self._connection
        if connection is not None and connection.is_open:
            return connection
        self._check_loop()
        if self._attempt is None:
            self._attempt = asyncio.create_task(self._connect(), name="celeriac amqp connect")
            self._attempt.add_done_callback(self._attempted)
        return await asyncio.shield(self._attempt)

    async def channel(self) -> Channel:
        """Return a new channel, which is the caller's to close."""
        async with self.deadline():
            return (await self.connection()).channel()

    async def publisher(self) -> Publisher:
        """Return the publisher that all callers share."""
        publisher = self._publisher
        if publisher is not None and publisher.channel.is_open:
            return publisher
        async with self._publishing:
            if self._publisher is None or not self._publisher.channel.is_open:
                async with self.lasting_channel() as channel, self.deadline():
                    await channel.call(methods.confirm_publishes())
                self._publisher = Publisher(channel, self.timeout)
            return self._publisher

    def publish(
        self, exchange: str, routing_key: str, header: bytes, body: bytes, *, mandatory: bool = True
    ) -> Awaitable[None]:
        """Publish a message; see ``Publisher.publish``.

        A large one goes by a channel of its own: RabbitMQ closes the channel of a message that it finds too large, and
        does not say beforehand what size it takes.
        """
        publisher = self._publisher
        if len(body) <= LARGE and publisher is not None and publisher.channel.is_open:
            return publisher.publish(exchange, routing_key, header, body, mandatory=mandatory)
        return self._connect_and_publish(exchange, routing_key, header, body, mandatory=mandatory)

    async def _connect_and_publish(
        self, exchange: str, routing_key: str, header: bytes, body: bytes, *, mandatory: bool
    ) -> None:
        if len(body) <= LARGE:
            publisher = await self.publisher()
            await publisher.publish(exchange, routing_key, header, body, mandatory=mandatory)
            return
        channel = await self.channel()
        try:
            async with self.deadline():
                await channel.call(methods.confirm_publishes())
            publisher = Publisher(channel, self.timeout + len(body) / _SLOWEST)
            await publisher.publish(exchange, routing_key, header, body, mandatory=mandatory)
        finally:
            if channel.is_open:
                channel.start_closing()

    @contextlib.asynccontextmanager
    async def lasting_channel(self) -> AsyncIterator[Channel]:
        """Have a channel that is closed only if the block, which makes it ready, raises."""
        channel = await self.channel()
        try:
            yield channel
        except BaseException:
            if channel.is_open:
                channel.start_closing()
            raise

    @contextlib.asynccontextmanager
    async def passing_channel(self) -> AsyncIterator[Channel]:
        """Have a channel for the time of the block, each of whose exchanges may last as long as one.

        Much may be asked at once: the queues of delays are 28, and a busy server makes them one after the other.
        """
        channel = await self.channel()
        try:
            async with self.deadline(lambda: channel.answered_at):
                yield channel
        finally:
            if channel.is_open:
                channel.start_closing()

    async def ping(self) -> str:
        """Return the name of the server and its address."""
        async with self.passing_channel() as channel:
            await channel.call(methods.limit_unsettled(0))
            return f"{(await self.connection()).server} at {self.target}"

    async def examine(self) -> list[Finding]:
        """Connect; return a finding if the URL turns a check of TLS off."""
        await self.ping()
        text = self.tls.lowered() if self.tls is not None else ""
        return [Finding(f"{self.target}: {text}", "take that option out of the URL")] if text else []

    def deadline(self, answered_at: Callable[[], float] = _never) -> Deadline:
        """End the block with ``Unavailable`` after ``timeout`` seconds in which nothing went out or was answered."""
        connection = self._connection
        sent_at = _never if connection is None else connection.last_progress
        return Deadline(self.timeout, lambda: max(sent_at(), answered_at()))

    def translate(
        self, error: AmqpError, unavailable: type[CeleriacError], refused: type[CeleriacError]
    ) -> CeleriacError:
        """Return the caller's kind of error for an error of the protocol."""
        if isinstance(error, Refused):
            return refused(f"{self.target} refused: {error}")
        return unavailable(f"{self.target} is not available: {error}")

    def too_large(self, error: AmqpError, what: str) -> EncodeError:
        """Return the error of a message that the server finds too large; :param what: names the message."""
        return EncodeError(
            f"{what} is too large: {self.target} refused it: {error}; keep such a value elsewhere and send where it is"
        )

    @contextlib.contextmanager
    def translated(self, unavailable: type[CeleriacError], refused: type[CeleriacError]) -> Iterator[None]:
        """Raise the caller's kinds of errors for errors of the protocol."""
        try:
            yield
        except AmqpError as error:
            raise self.translate(error, unavailable, refused) from as_cause(error)

    async def close(self) -> None:
        """Close the connection, once the server has dealt with everything that was sent. Idempotent."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
            await asyncio.wait([attempt])
        connection, self._connection, self._publisher, self._loop = self._connection, None, None, None
        if connection is not None:
            try:
                async with self.deadline():
                    await connection.close()
            except Unavailable:
                connection.abort()

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise Refused(
                f"the connection to {self.target} belongs to another event loop; make an app or broker for each loop"
            )

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._not_before - loop.time()))
        try:
            connection = await self._try_each()
        except BaseException:
            self._not_before = loop.time() + self._backoff.pause()
            self.outages += 1
            raise
        self._backoff.reset()
        self._connection = connection
        connection.on_closed = partial(self._lost, connection)
        if connection.error is not None:
            self._lost(connection, connection.error)
        return connection

    def _lost(self, connection: Connection, error: AmqpError) -> None:
        if connection is self._connection:  # else it was closed here
            self.outages += 1
            _log.warning(
                "the connection to %s was lost (%s); it is made again when it is needed", self.target, error
            )

    async def _try_each(self) -> Connection:
        if self.tls is not None and self._context is None:
            try:
                self._context = open_context(self.tls)
            except BadFile as error:
                raise Refused(f"the TLS files of the URL cannot be used: {error}") from error
        name = self.target.connection_name or f"celeriac {os.getpid()}@{socket.gethostname()}"
        nodes, heartbeat = self.target.nodes, self.target.heartbeat
        last: AmqpError = Unavailable("there is no address to connect to")
        for step in range(len(nodes)):
            node = nodes[(self._turn + step) % len(nodes)]
            try:
                async with self.deadline():
                    connection = await connect(node, heartbeat, self._context, name)
            except AmqpError as error:
                # A login that worked once may work again: a certificate under renewal must not end what runs.
                last = Unavailable(str(error)) if self._was_let_in else error
            else:
                self._was_let_in = True
                self._turn = (self._turn + step) % len(nodes)
                return connection
        raise last

    def _attempted(self, attempt: asyncio.Task[Connection]) -> None:
        if self._attempt is attempt:
            self._attempt = None
        if not attempt.cancelled():
            attempt.exception()  # the callers that waited have it, and there may be none left
