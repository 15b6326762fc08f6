"""A TCP proxy whose line can be cut, frozen and mended."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.servers.redis import HOST


class Proxy:
    """``async with Proxy(port) as proxy`` forwards ``proxy.port`` to ``port`` of the loopback address."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lines: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._pairs: dict[asyncio.StreamWriter, asyncio.StreamWriter] = {}
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._dropped: set[asyncio.StreamWriter] = set()
        self.accepted = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._flowing.set()
        self.cut()
        if self._lines:
            await asyncio.wait(self._lines)

    def url(self, options: str = "") -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}/{options}"

    @property
    def open_lines(self) -> int:
        """How many connections there are now."""
        return len(self._lines) // 2

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def drop(self) -> None:
        """End every line for the server, and say nothing to the other side, which may write on into nowhere."""
        for client, server in self._pairs.items():
            self._dropped |= {client, server}
            server.transport.abort()

    def freeze(self) -> None:
        """Forward nothing any more, in either direction; connections stay open."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward again."""
        self._flowing.set()

    def refuse(self) -> None:
        """Cut everything, and every new connection at once."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        """End a ``refuse``."""
        self._refusing = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(HOST, self._target)
        self._writers |= {writer, back}
        self._pairs[writer] = back
        lines = [
            asyncio.create_task(self._pump(reader, back, bytes)),
            asyncio.create_task(self._pump(there, writer, self.rewriter())),
        ]
        self._lines |= set(lines)
        await asyncio.wait(lines, return_when=asyncio.FIRST_COMPLETED)
        if writer in self._dropped:
            await lines[0]
        del self._pairs[writer]
        for end in (writer, back):
            end.transport.abort()
        await asyncio.wait(lines)
        self._writers -= {writer, back}
        self._lines -= set(lines)

    def rewriter(self) -> Callable[[bytes], bytes]:
        """What the server says on a new line goes through this, piece by piece."""
        return bytes

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        rewrite: Callable[[bytes], bytes],
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if writer in self._dropped:
                    continue
                writer.write(rewrite(data))
                await writer.drain()
        except OSError:
            return
