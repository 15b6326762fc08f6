"""One connection to a Redis: commands go out, answers come in, in their order.

Rules: a connection belongs to one event loop and has one user at a time. After an exchange that was not finished its
answers would be taken for those of the next one, so the connection is cut. What arrived before a cut can still be read.
While many answers wait to be read, no more are taken from the socket.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias, cast

from hiredis import Reader, pack_command

from celeriac.servers.progress import Patience, moved
from celeriac.servers.redis.protocol.errors import LinkDown, NotRedis, Refused

Command: TypeAlias = Sequence[Any]
"""A command and its arguments: text, bytes, numbers."""

LARGE = 1024 * 1024
"""Bytes from which on commands are sent in pieces."""

_PIECE = 64 * 1024

_MOST_READ = 256 * 1024
"""Bytes that are read at once."""

_BACKLOG = 1000
"""Answers that nobody has read, above which the socket is left alone."""

_MORE = object()
"""What the reader returns while an answer is not complete."""


class Connection(asyncio.BufferedProtocol):
    """See the module. Is made by ``dial``.

    :param where: the place that it leads to, as an owner tells connections apart.
    :ivar is_open: whether it was neither cut nor closed, as far as is known.
    :ivar number: by which the server knows it; 0 where the server did not tell.
    """

    def __init__(self, where: object = None) -> None:
        self.where = where
        self.is_open = False
        self.number = 0
        self._loop = asyncio.get_running_loop()
        # Without a buffer, asyncio's own loop makes one of this size for each read, by three calls of the system.
        self._buffer = bytearray(_MOST_READ)
        self._filled = memoryview(self._buffer)
        self._reader = Reader(protocolError=NotRedis, replyError=Refused, notEnoughData=_MORE)
        self._answers: deque[Any] = deque()
        self._wanted = 0
        self._arrived: asyncio.Future[None] | None = None
        self._hear: Callable[[Any], None] | None = None
        self._tell_end: Callable[[Exception], None] = _ignore
        self._room: asyncio.Future[None] | None = None
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._why: Exception = LinkDown("the connection is closed")
        self._is_paused = False
        self._transport: asyncio.Transport

    # --- for its user

    async def exchange(self, commands: Sequence[Command], patience: float) -> list[Any]:
        """Send commands and return their answers; one that was refused has a ``Refused`` in its place.

        :param patience: seconds for which nothing may move.

        Raises ``LinkDown``, ``NotRedis`` and ``TimeoutError``. The connection is cut unless all was answered.
        """
        packed = [pack_command(tuple(command)) for command in commands]
        watch = Patience(self._loop, self._moved, patience, self._time_out)
        try:
            if sum(map(len, packed)) < LARGE:
                self._write(packed)
            else:
                await self._send_slowly(packed, watch)
            return await self.read(len(packed))
        except BaseException:
            self.cut()
            raise
        finally:
            watch.end()

    async def write(self, commands: Sequence[Command]) -> None:
        """Send commands whose answers are read by ``read``; return when the system has room for more.

        Raises ``LinkDown``.
        """
        self._write([pack_command(tuple(command)) for command in commands])
        if self._room is not None:
            await self.drain()

    async def drain(self) -> None:
        """Return when the system has room for more. Raises ``LinkDown``."""
        if self._room is not None:
            await asyncio.shield(self._room)

    async def read(self, count: int = 1) -> list[Any]:
        """Wait, without end, for the next answers or pushes. Raises ``LinkDown`` and ``NotRedis``."""
        answers = self._answers
        while len(answers) < count:
            if not self.is_open:
                raise self._reason()
            if self._is_paused:
                self._is_paused = False
                self._transport.resume_reading()
            self._wanted, self._arrived = count, self._loop.create_future()
            try:
                await self._arrived
            finally:
                self._wanted, self._arrived = 0, None
        return [answers.popleft() for _ in range(count)]

    def listen(self, hear: Callable[[Any], None], end: Callable[[Exception], None]) -> None:
        """Pass on all that arrives from now on, at once, instead of keeping it for ``read``.

        :param hear: called with each answer or push.
        :param end: called once, with the reason, when nothing arrives any more.
        """
        self._hear, self._tell_end = hear, end
        self._pass_on()
        if not self.is_open:
            self._loop.call_soon(end, self._reason())

    def is_idle(self, *, surely: bool = False) -> bool:
        """Whether it is open, and nothing has come that nobody asked for, which would be taken for an answer.

        :param surely: ask the system too, which may know of an end that the event loop has not come to.
        """
        return self.is_open and not self._answers and not (surely and _is_readable(self._transport))

    def cut(self, why: Exception | None = None) -> None:
        """Close the connection at once. Idempotent."""
        if why is not None and self.is_open:
            self._why = why
        self.is_open = False
        self._transport.abort()

    async def close(self) -> None:
        """Close the connection, and return when that is done. Idempotent."""
        self.cut()
        await asyncio.shield(self._gone)

    # --- for the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, and does not say so
        self.is_open = True

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return what the next read fills.

        It is a view, since asyncio's TLS fills slices of it: a slice of a bytearray would be a copy.
        """
        return self._filled

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has arrived."""
        reader, answers = self._reader, self._answers
        reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # it takes any buffer
        try:
            while (answer := reader.gets()) is not _MORE:
                answers.append(answer)
        except NotRedis as error:
            self.cut(error)
        if self._hear is not None:
            self._pass_on()
        elif len(answers) >= self._wanted:
            self._wake()
            if len(answers) > _BACKLOG:
                self._is_paused = True
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        """Let the connection be closed: the server will say no more."""
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """Tell whoever waits."""
        if self.is_open:
            self._why = error or LinkDown("the server closed the connection")
        self.is_open = False
        self._wake()
        self.resume_writing()
        if not self._gone.done():
            self._gone.set_result(None)
        self._tell_end(self._reason())

    def pause_writing(self) -> None:
        """Have ``drain`` wait."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """Let ``drain`` return."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # --- within

    def _write(self, packed: Sequence[bytes]) -> None:
        # uvloop closes a connection a moment before it says so, and takes no write from then on.
        if not self.is_open or self._transport.is_closing():
            raise self._reason()
        self._transport.write(packed[0] if len(packed) == 1 else b"".join(packed))

    def _pass_on(self) -> None:
        while self._answers and self._hear is not None:
            self._hear(self._answers.popleft())

    def _wake(self) -> None:
        arrived = self._arrived
        if arrived is not None and not arrived.done():
            arrived.set_result(None)

    async def _send_slowly(self, packed: Sequence[bytes], watch: Patience) -> None:
        began = self._loop.time()
        for piece in _pieces(packed):
            self._write(piece)
            await self.drain()
            watch.put_off()
        # What was sent may still be on its way through what lies between, for as long as it took to get there.
        watch.put_off(self._loop.time() - began)

    def _moved(self) -> int:
        return moved(self._transport.get_extra_info("socket"))

    def _time_out(self) -> None:
        self.cut(TimeoutError())
        self._wake()
        self.resume_writing()

    def _reason(self) -> Exception:
        """Return why the connection is no longer open, as an error that has been raised nowhere yet."""
        why = self._why
        if isinstance(why, LinkDown | NotRedis | TimeoutError):
            return type(why)(*why.args)
        reason = LinkDown(str(why) or type(why).__name__)
        reason.__cause__ = why
        return reason


def _ignore(_: Exception) -> None:
    """Let an end be: whoever reads finds out."""


def _is_readable(transport: asyncio.Transport) -> bool:
    line = transport.get_extra_info("socket")
    if line is None or line.fileno() < 0:
        return True
    if sys.platform == "win32":  # it has no poll; elsewhere select takes no descriptor above 1,023
        return bool(select.select([line.fileno()], [], [], 0)[0])
    asked = select.poll()
    asked.register(line.fileno(), select.POLLIN)
    return bool(asked.poll(0))


def _pieces(packed: Sequence[bytes]) -> Iterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    for command in packed:
        for start in range(0, len(command), _PIECE):
            part = command[start : start + _PIECE]
            piece.append(part)
            size += len(part)
            if size >= _PIECE:
                yield piece
                piece, size = [], 0
    if piece:
        yield piece
