"""Publishing with confirms: a message was published when the server said so.

Rules: any number of publishes are on their way at once, on one channel. Each has its own answer, and none waits longer
than the timeout, or than it takes what was sent to go out over a slow line. A message that comes back as unroutable is
taken for the first on its way with that exchange and key, since the server answers in order (RabbitMQ: "Publisher
Confirms", ordering of returns and confirms).
"""

from __future__ import annotations

import asyncio

import msgspec

from celeriac.servers.rabbitmq.protocol import frames
from celeriac.servers.rabbitmq.protocol.channel import Channel
from celeriac.servers.rabbitmq.protocol.errors import (
    NOT_FOUND,
    PRECONDITION_FAILED,
    AmqpError,
    Refused,
    Unavailable,
)
from celeriac.servers.rabbitmq.protocol.frames import Inbound

NO_ROUTE = 312
"""AMQP's reply code for what no queue takes."""

NACKED = 1
"""Our code for what the server refused to take (a full queue with ``x-overflow: reject-publish``)."""

_MOST_METHODS = 1000


class _Pending(msgspec.Struct):
    future: asyncio.Future[None]
    exchange: str
    routing_key: str
    size: int
    since: float
    returned: str | None = None


class Publisher:
    """The publishes of one channel, which is in confirm mode.

    :param timeout: seconds until a publish without an answer raises ``Unavailable``.
    """

    def __init__(self, channel: Channel, timeout: float) -> None:
        self.channel = channel
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, _Pending] = {}
        self._serial = 0
        self._methods: dict[tuple[str, str, bool], bytes] = {}
        self._watch: asyncio.TimerHandle | None = None
        channel.on_confirm = self._confirm
        channel.on_return = self._return
        channel.on_closed = self._fail

    def publish(
        self, exchange: str, routing_key: str, header: bytes, body: bytes, *, mandatory: bool = True
    ) -> asyncio.Future[None]:
        """Send a message; the future ends when the server has it.

        It raises ``Refused`` when the server did not take it (code ``NO_ROUTE``: no queue for it; ``NACKED``) and
        ``Unavailable`` when that is not known.
        """
        channel = self.channel
        future: asyncio.Future[None] = self._loop.create_future()
        announcement = self._announce(exchange, routing_key, mandatory=mandatory)
        if channel.error is not None:
            future.set_exception(channel.error)
            return future
        channel.send(announcement + frames.content(channel.number, header, body, channel.wire.frame_max))
        self._serial += 1
        self._pending[self._serial] = _Pending(future, exchange, routing_key, len(body), self._loop.time())
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout / 4, self._look)
        return future

    def _announce(self, exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
        key = (exchange, routing_key, mandatory)
        announcement = self._methods.get(key)
        if announcement is None:
            if len(self._methods) >= _MOST_METHODS:
                self._methods.clear()
            announcement = self._methods[key] = frames.publish_method(
                self.channel.number, exchange, routing_key, mandatory=mandatory
            )
        return announcement

    def _confirm(self, last: int, multiple: bool, taken: bool) -> None:
        pending = self._pending
        if not multiple:
            self._settle(pending.pop(last, None), taken)
            return
        confirmed = []
        for serial in pending:  # in the order they were sent
            if serial > last:
                break
            confirmed.append(serial)
        for serial in confirmed:
            self._settle(pending.pop(serial), taken)

    def _settle(self, pending: _Pending | None, taken: bool) -> None:
        if pending is None or pending.future.done():
            return
        if pending.returned is not None:
            pending.future.set_exception(Refused(pending.returned, NO_ROUTE))
        elif taken:
            pending.future.set_result(None)
        else:
            pending.future.set_exception(
                Refused("the queue did not take the message: it is full or not in order", NACKED)
            )

    def _return(self, message: Inbound, reason: str) -> None:
        for pending in self._pending.values():
            if (
                pending.returned is None
                and pending.exchange == message.exchange
                and pending.routing_key == message.routing_key
            ):
                pending.returned = reason
                return

    def _fail(self, error: AmqpError) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        pendings, self._pending = list(self._pending.values()), {}
        guilty = {id(pending) for pending in pendings if _is_about(error, pending)}
        others = Unavailable(f"the channel was closed over another message: {error}") if guilty else error
        for pending in pendings:
            if not pending.future.done():
                pending.future.set_exception(error if id(pending) in guilty else others)

    def _look(self) -> None:
        self._watch = None
        now, blocked = self._loop.time(), self.channel.wire.blocked
        progress = self.channel.wire.last_progress()
        late = [
            serial
            for serial, pending in self._pending.items()
            if now - max(pending.since, progress) >= self._timeout
        ]
        for serial in late:
            pending = self._pending.pop(serial)
            if not pending.future.done():
                why = f"it takes no messages now ({blocked})" if blocked else "no answer"
                pending.future.set_exception(Unavailable(f"{why} within {self._timeout:g} s"))
        if self._pending:
            self._watch = self._loop.call_later(self._timeout / 4, self._look)


def _is_about(error: AmqpError, pending: _Pending) -> bool:
    """Whether the server closed the channel because of this message; only its text says so."""
    if not isinstance(error, Refused):
        return False
    if error.code == NOT_FOUND:
        return f"'{pending.exchange}'" in str(error)
    return error.code == PRECONDITION_FAILED and f" {pending.size} " in str(error)
