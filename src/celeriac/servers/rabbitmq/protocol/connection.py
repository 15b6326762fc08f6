"""One connection: the opening, the frames, the signs of life.

Rules: what is written in one turn of the loop goes out together, in parts that are worth a system call: the server
works on the first while the rest is made. When the connection ends, every channel is told why. It ends after a silence
of two heartbeats. It also ends when the server does not answer a question that is asked after some silence, with
heartbeats or without: a proxy may have dropped the connection and told neither side. It is opened and used in one event
loop.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
from collections.abc import Callable
from typing import Any, cast

from pamqp import commands

from celeriac.servers.causes import as_cause, next_step
from celeriac.servers.progress import Outgoing
from celeriac.servers.rabbitmq.protocol import frames
from celeriac.servers.rabbitmq.protocol.channel import TAKES, Channel
from celeriac.servers.rabbitmq.protocol.errors import (
    ACCESS_REFUSED,
    NOT_ALLOWED,
    AmqpError,
    Refused,
    Unavailable,
    of_reply,
)
from celeriac.servers.rabbitmq.protocol.url import Node
from celeriac.servers.tls import refusal as tls_refusal

_PREFACE = b"AMQP\x00\x00\x09\x01"
_FRAME_MAX = 131072
_CHANNEL_MAX = 2047
_LOCALE = "en_US"
_LOOK = 5.0
"""Seconds between two looks whether anything was heard."""

_ASK_AFTER, _GIVE_UP_AFTER = 2, 5
"""Looks in a row that find nothing, after which the server is asked for a sign of life, and no more waited for.

Looks are counted instead of seconds, so that a loop that stood still meanwhile has read what came before it judges.
"""

_KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and number: for the time in which the server reads nothing since it is short of memory or disk."""

_PART = 24
"""Writes that go out together, and do not wait for the end of the turn."""

_AT_ONCE = 120
"""Frames that are read in one turn of the loop: what they bring is answered before the next are read.

A delivery is three. RabbitMQ sends hundreds together, and would stand still until all of them are read.
"""

_MOST_READ = 256 * 1024
"""Bytes that are read at once."""

_GROWTH = 1_000_000
"""Bytes by which a frame may be longer than was agreed on: RabbitMQ adds headers to a message."""


async def connect(node: Node, heartbeat: float, context: ssl.SSLContext | None, name: str) -> Connection:
    """Open a connection to one node. Raises ``Unavailable`` or ``Refused``.

    :param heartbeat: seconds between signs of life that both sides give without being asked; 0 for none.
    :param name: what RabbitMQ shows for it.
    """
    loop = asyncio.get_running_loop()
    host, port = node.host, node.port
    try:
        _, connection = await loop.create_connection(
            lambda: Connection(node, heartbeat, name),
            host,
            port,
            ssl=context,
            server_hostname=host if context else None,
        )
    except OSError as error:
        if reason := tls_refusal(error):
            raise Refused(f"{host}:{port}: {reason}") from as_cause(error)
        text = f"cannot connect to {host}:{port}: {error}{next_step(error)}"
        raise Unavailable(text) from as_cause(error)
    try:
        await connection.opened
    except BaseException:
        connection.abort()
        raise
    return connection


class Connection(asyncio.BufferedProtocol):
    """A connection that is open or was; made by ``connect``.

    :ivar server: what the server says of itself, such as ``RabbitMQ 3.10.8``.
    :ivar blocked: why the server takes no messages just now, ``None`` while it does.
    """

    def __init__(self, node: Node, heartbeat: float, name: str) -> None:
        self._node = node
        self._heartbeat = heartbeat
        self._name = name
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self.error: AmqpError | None = None
        self.frame_max = _FRAME_MAX
        self.server = "an AMQP server"
        self.blocked: str | None = None
        self.on_closed: Callable[[AmqpError], None] = lambda error: None
        self._transport: asyncio.Transport | None = None
        self._outgoing: Outgoing | None = None
        self._channels: dict[int, Channel] = {}
        self._free_numbers: list[int] = []
        self._next_number = 1
        self._channel_max = _CHANNEL_MAX
        self._unread = b""
        # Without a buffer, asyncio's own loop makes one of this size for each read, by three calls of the system.
        self._buffer = bytearray(_MOST_READ)
        self._arrived = memoryview(self._buffer)
        self._out: list[bytes] = []
        self._writable = asyncio.Event()
        self._writable.set()
        self._pulse: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._heard = self._told = self._loop.time()
        self._gone = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return self.error is None

    def channel(self) -> Channel:
        """Open a channel, which can be used at once: the server answers in order.

        Raises ``Unavailable`` when the connection is gone, ``Refused`` when it has no more.
        """
        if self.error is not None:
            raise self.error
        if self._free_numbers:
            number = self._free_numbers.pop()
        elif self._next_number <= self._channel_max:
            number = self._next_number
            self._next_number += 1
        else:
            raise Refused(f"all {self._channel_max} channels of the connection are in use")
        channel = self._channels[number] = Channel(self, number)
        channel.start(commands.Channel.Open())
        return channel

    async def close(self) -> None:
        """Close it; the server has dealt with everything sent before when this returns. Idempotent."""
        if self.error is None and self._transport is not None:
            self.write(frames.method(commands.Connection.Close(200, "done", 0, 0), 0))
            await self._gone.wait()

    def abort(self) -> None:
        """Drop it at once."""
        self._end(Unavailable("the connection was dropped"))

    # --- for channels

    def write(self, data: bytes) -> None:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)
        if len(self._out) >= _PART:
            self._flush()

    def forget(self, number: int) -> None:
        if self._channels.pop(number, None) is not None:
            self._free_numbers.append(number)

    @property
    def is_writable(self) -> bool:
        return self._writable.is_set()

    async def writable(self) -> None:
        await self._writable.wait()

    def last_progress(self) -> float:
        return float("-inf") if self._outgoing is None else self._outgoing.last()

    # --- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._outgoing = Outgoing(self._transport)
        connected: socket.socket | None = transport.get_extra_info("socket")
        if connected is not None:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEP_ALIVE.items():
                if hasattr(socket, name):
                    connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._transport.write(_PREFACE)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.error is None:
            self._take(self._unread, sys.maxsize)  # what is confirmed in there was published
        reason = f"the connection was lost: {exc}" if exc else "the server closed the connection"
        if not self.opened.done():
            if refusal := tls_refusal(exc):
                self._end(Refused(refusal))
            reason = f"{reason} before it was open; check user, password and vhost in the URL"
        self._end(Unavailable(reason))
        self._gone.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        # A view, since asyncio's TLS fills slices of it: a slice of a bytearray would be a copy.
        return self._arrived

    def buffer_updated(self, nbytes: int) -> None:
        self._heard = self._loop.time()
        arrived = self._arrived[:nbytes]
        if not self.opened.done() and self._buffer.startswith(b"AMQP"):
            self._end(Refused(f"the server at {self._node} does not speak AMQP 0-9-1"))
            return
        self._take(b"".join((self._unread, arrived)))

    def _take(self, data: bytes, most: int = _AT_ONCE) -> None:
        try:
            self._read(data, most)
        except Exception as error:  # noqa: BLE001 - else asyncio closes the socket, and no channel gets the reason
            self._end(Unavailable(f"what the server sent cannot be read: {error!r}"))

    def _read(self, data: bytes, most: int) -> None:
        """Read so many frames, and leave the rest to the next turn of the loop."""
        channels, unpack, head, mark = self._channels, frames.HEAD.unpack_from, frames.HEAD_SIZE, frames.END
        at, end = 0, len(data)
        for _ in range(most):
            if end - at <= head:
                break
            kind, number, size = unpack(data, at)
            start = at + head
            last = start + size
            if last >= end:
                if size > self.frame_max + _GROWTH:
                    raise ValueError(f"a frame of {size} bytes")
                break
            if data[last] != mark:
                raise ValueError("a frame without an end")
            at = last + 1
            channel = channels.get(number)
            if channel is not None:
                if (take := TAKES.get(kind)) is not None:
                    take(channel, data[start:last])
            elif number == 0 and kind == frames.METHOD:
                self._on_method(data[start:last])
        else:
            self._read_later()
        self._unread = data[at:]

    def _read_later(self) -> None:
        """Read on in the next turn; what is still to come waits in the socket, and so does its end."""
        if self.error is None and self._transport is not None:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self.error is None and self._transport is not None:
            self._transport.resume_reading()
            self._take(self._unread)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and self._transport is not None and self.error is None:
            self._told = self._loop.time()
            self._transport.write(b"".join(out))

    # --- the connection's own methods

    def _on_method(self, payload: bytes) -> None:
        if payload[:4] == frames.CONNECTION_CLOSE:
            self._closed_by_server(*frames.read_close(payload))
            return
        frame: Any = frames.read_method(0, payload)
        match frame:
            case commands.Connection.Start():
                self._log_in(frame)
            case commands.Connection.Tune():
                self._tune(frame)
            case commands.Connection.OpenOk():
                if not self.opened.done():
                    self.opened.set_result(None)
                    self._look(self._heard, 0)
            case commands.Connection.Blocked():
                self.blocked = frame.reason or "no reason given"
            case commands.Connection.Unblocked():
                self.blocked = None
            case commands.Connection.CloseOk():
                self._end(Unavailable("the connection was closed"))
            case _:
                pass

    def _log_in(self, start: Any) -> None:
        properties = start.server_properties or {}
        self.server = f"{properties.get('product', 'AMQP server')} {properties.get('version', '')}".strip()
        capabilities = {
            "consumer_cancel_notify": True,
            "connection.blocked": True,
            "authentication_failure_close": True,
            "publisher_confirms": True,
            "basic.nack": True,
        }
        about: dict[str, Any] = {
            "product": "celeriac",
            "connection_name": self._name,
            "capabilities": capabilities,
        }
        response = f"\0{self._node.username}\0{self._node.password}"
        self.write(
            frames.method(
                commands.Connection.StartOk(
                    client_properties=about, mechanism="PLAIN", response=response, locale=_LOCALE
                ),
                0,
            )
        )

    def _tune(self, tune: Any) -> None:
        self.frame_max = min(tune.frame_max or _FRAME_MAX, _FRAME_MAX)
        self._channel_max = min(tune.channel_max or _CHANNEL_MAX, _CHANNEL_MAX)
        wanted = self._heartbeat
        heartbeat = min(wanted, tune.heartbeat) if tune.heartbeat and wanted else wanted
        seconds = 0 if not heartbeat else max(1, round(heartbeat))
        self.write(frames.method(commands.Connection.TuneOk(self._channel_max, self.frame_max, seconds), 0))
        self.write(frames.method(commands.Connection.Open(self._node.vhost), 0))
        if seconds:
            self._beat(seconds)

    def _beat(self, seconds: int) -> None:
        now = self._loop.time()
        if now - self._heard > 2 * seconds:
            self._end(Unavailable(f"no sign of life from the server for {now - self._heard:.0f} s"))
            return
        if self._transport is not None and now - self._told >= seconds / 2:
            self._told = now
            self._transport.write(frames.HEARTBEAT_FRAME)
        self._pulse = self._loop.call_later(seconds / 2, self._beat, seconds)

    def _look(self, heard: float, silent: int) -> None:
        """Ask for a sign of life where there was none for some looks, and give up where none comes.

        While the server says that it takes no messages it reads nothing, so it would not answer.
        """
        silent = silent + 1 if heard == self._heard and self.blocked is None else 0
        if silent == _ASK_AFTER and (self._free_numbers or self._next_number <= self._channel_max):
            self.channel().start_closing()
        elif silent >= _GIVE_UP_AFTER:
            self._end(Unavailable(f"no sign of life from the server for {self._loop.time() - heard:.0f} s"))
            return
        self._watch = self._loop.call_later(_LOOK, self._look, self._heard, silent)

    def _closed_by_server(self, code: int, text: str) -> None:
        if self._transport is not None:
            self._transport.write(frames.method(commands.Connection.CloseOk(), 0))
        if code == ACCESS_REFUSED and not self.opened.done():
            text = f"the login was refused ({text}); check user and password in the URL"
        elif code == NOT_ALLOWED and not self.opened.done():
            text = f"{text}; check the vhost in the URL"
        self._end(of_reply(code, text))

    def _end(self, error: AmqpError) -> None:
        if self.error is not None:
            return
        self.error = error
        for timer in (self._pulse, self._watch):
            if timer is not None:
                timer.cancel()
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.fail(error)
        self._writable.set()
        if self._transport is not None:
            self._flush_last_words()
        self.on_closed(error)

    def _flush_last_words(self) -> None:
        transport = self._transport
        assert transport is not None
        if isinstance(self.error, Unavailable):
            # A socket that takes nothing any more would keep its buffer, and close() would wait for it.
            transport.close() if not transport.get_write_buffer_size() else transport.abort()
        else:
            transport.close()
