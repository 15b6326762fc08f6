"""The connection on which a Redis speaks unasked: what is subscribed to is heard here, whoever asked for it.

Rules: a broker has one such connection, however many listen; the first opens it, the last closes it. A subscription
stands when the server has confirmed it. When the connection is cut, everybody who listened is told, and joins again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from celeriac.errors import CeleriacError
from celeriac.servers.redis.link import Line, Link

_SILENCE = 10.0
"""Seconds without a word after which the connection is asked whether it stands."""


class Ear(msgspec.Struct, eq=False):
    """What one listener hears.

    :param hear: called with the name of a channel and what came there.
    :param lost: called once when the connection was cut: nothing is heard from then on.
    :param patterns: channels by glob pattern.
    """

    hear: Callable[[bytes, Any], None]
    lost: Callable[[CeleriacError], None]
    channels: Sequence[str] = ()
    patterns: Sequence[str] = ()

    def wants(self, kind: bytes, name: bytes) -> bool:
        """Whether this listener subscribed to the channel, or the pattern, of that name."""
        return name.decode(errors="replace") in (self.patterns if kind == b"pmessage" else self.channels)


class _Confirmation(msgspec.Struct, eq=False):
    """What the server has yet to confirm of one subscription."""

    missing: int
    future: asyncio.Future[None]


class Pushes:
    """The subscribed connection of one link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ears: set[Ear] = set()
        self._line: Line | None = None
        self._number: int | CeleriacError = 0
        self._reader: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._unconfirmed: deque[_Confirmation] = deque()
        self._heard_at = 0.0
        self._asked_at: float | None = None

    @property
    def number(self) -> int:
        """What the server calls the connection (``CLIENT ID``). Raises what the server refused it with."""
        if isinstance(self._number, CeleriacError):
            raise self._number
        return self._number

    async def join(self, ear: Ear) -> None:
        """Let this listener hear. Raises the link's errors, after which it hears nothing."""
        async with self._turn:
            line = self._line or await self._open()
            self._ears.add(ear)
            try:
                async with self._link.deadline():
                    await self._subscribe(line, ear)
            except self._link.unavailable as error:
                await self._lose(line, error)
                raise
            except BaseException:
                await self._forget(ear)
                raise

    async def leave(self, ear: Ear) -> None:
        """Let this listener hear no more. Idempotent."""
        async with self._turn:
            await self._forget(ear)

    async def check(self) -> None:
        """Ask whether the connection stands, where nothing was heard for a while; to be called now and then.

        Raises the link's error when the answer to the last such question never came.
        """
        line, now = self._line, asyncio.get_running_loop().time()
        if line is None or now - self._heard_at < _SILENCE:
            return
        if self._asked_at is not None and now - self._asked_at > self._link.timeout:
            error = self._link.unavailable(
                f"{self._link.target} is not available: its pushes do not arrive any more"
            )
            await self._lose(line, error)
            raise error
        if self._asked_at is None:
            self._asked_at = now
            async with self._turn:
                await line.send("PING")

    async def close(self) -> None:
        """Close the connection; those who listen are told. Idempotent."""
        if self._line is not None:
            closed = self._link.unavailable(f"{self._link.target} is not available: its broker was closed")
            await self._lose(self._line, closed)

    async def _open(self) -> Line:
        line = await self._link.open_line()
        try:
            self._number = await line.call("CLIENT", "ID")
        except self._link.unavailable:
            await line.close()
            raise
        except self._link.refused as error:
            self._number = error
        self._line = line
        self._heard()
        self._reader = asyncio.create_task(self._read(line), name="celeriac-pushes")
        return line

    async def _subscribe(self, line: Line, ear: Ear) -> None:
        commands = [("SUBSCRIBE", ear.channels), ("PSUBSCRIBE", ear.patterns)]
        futures = []
        for command, names in commands:
            if names:
                future = asyncio.get_running_loop().create_future()
                self._unconfirmed.append(_Confirmation(len(names), future))
                futures.append(future)
                await line.send(command, *names)
        await asyncio.gather(*futures)

    async def _forget(self, ear: Ear) -> None:
        if ear not in self._ears:
            return
        self._ears.discard(ear)
        if not self._ears:
            await self._hang_up()
            return
        for command, mine, others in (
            ("UNSUBSCRIBE", ear.channels, {name for other in self._ears for name in other.channels}),
            ("PUNSUBSCRIBE", ear.patterns, {name for other in self._ears for name in other.patterns}),
        ):
            gone = [name for name in mine if name not in others]
            if gone and self._line is not None:
                try:
                    await self._line.send(command, *gone)
                except CeleriacError as error:
                    await self._lose(self._line, error)

    async def _read(self, line: Line) -> None:
        while True:
            try:
                news = await line.read()
            except self._link.unavailable as error:
                return await self._lose(line, error)
            except self._link.refused as error:
                if not self._unconfirmed:
                    return await self._lose(line, error)
                self._confirm(error)
            else:
                self._heard()
                if isinstance(news, list):
                    self._take(*news)

    def _take(self, kind: bytes, name: bytes, *rest: Any) -> None:
        if kind in (b"subscribe", b"psubscribe"):
            self._confirm(None)
        elif kind in (b"message", b"pmessage"):
            *channel, content = rest
            for ear in tuple(self._ears):
                if ear.wants(kind, name):
                    ear.hear(channel[0] if channel else name, content)

    def _confirm(self, refused: CeleriacError | None) -> None:
        if not self._unconfirmed:
            return
        first = self._unconfirmed[0]
        first.missing -= 1
        if refused is not None or first.missing == 0:
            self._unconfirmed.popleft()
            if not first.future.done():
                first.future.set_exception(refused) if refused else first.future.set_result(None)

    def _heard(self) -> None:
        self._heard_at, self._asked_at = asyncio.get_running_loop().time(), None

    async def _lose(self, line: Line, error: CeleriacError) -> None:
        if line is not self._line:
            return
        self._line = None
        unconfirmed, self._unconfirmed = self._unconfirmed, deque()
        for confirmation in unconfirmed:
            if not confirmation.future.done():
                confirmation.future.set_exception(error)
        ears, self._ears = self._ears, set()
        for ear in ears:
            ear.lost(error)
        reader, self._reader = self._reader, None
        if reader is not None and reader is not asyncio.current_task():
            reader.cancel()
        await line.close()

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        reader, self._reader = self._reader, None
        self._unconfirmed.clear()
        if reader is not None:
            reader.cancel()
            await asyncio.wait([reader])
        if line is not None:
            await line.close()
