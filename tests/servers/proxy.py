"""A TCP proxy that can fall silent: connections stay open and nothing goes through, as when a firewall forgets.

It can be slow too, as a line to another continent is.
"""

import asyncio
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

HOST = "127.0.0.1"
LONGEST_PAUSE = 0.05
"""Seconds between two pieces on a slow line, which so is never silent for long."""


class Proxy:
    """``async with Proxy(port) as proxy`` forwards ``proxy.port`` to another port of this machine.

    :param upstream: the port to forward to.
    :param pace: bytes a second that go there over each connection; ``None`` for as many as come.
    :param pace_back: bytes a second that come back; can be changed while it runs.
    """

    def __init__(self, upstream: int, *, pace: float | None = None, pace_back: float | None = None) -> None:
        self._upstream = upstream
        self._pace = pace
        self.pace_back = pace_back
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        if self._pace is not None:
            for listening in self._server.sockets:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where to connect."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def freeze(self) -> None:
        """Forward nothing any more, and tell nobody."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Forward again; what was sent meanwhile arrives late."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = asyncio.current_task()
        assert link is not None
        self._links.add(link)
        try:
            await self._flowing.wait()
            answers, questions = await asyncio.open_connection(HOST, self._upstream)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, questions, lambda: self._pace))
                pumps.create_task(self._pump(answers, writer, lambda: self.pace_back))
        except (OSError, asyncio.CancelledError):
            writer.close()
        finally:
            self._links.discard(link)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, pace_now: Callable[[], float | None]
    ) -> None:
        try:
            while data := await source.read(_piece(pace_now())):
                await self._flowing.wait()
                if (pace := pace_now()) is not None:
                    await asyncio.sleep(len(data) / pace)
                sink.write(data)
                await sink.drain()
            await self._flowing.wait()  # an end is told no more than the rest
        except OSError:
            return
        finally:
            sink.close()


def _piece(pace: float | None) -> int:
    """Return how many bytes are forwarded at once."""
    return 65536 if pace is None else max(1, min(65536, int(pace * LONGEST_PAUSE)))
