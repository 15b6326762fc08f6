"""Asks the workers of a broker of which no more than the URL is known.

Rules: an app can do all of this. It also sends and stores, and importing what that needs takes longer than a question
and its answers.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from celeriac.client.blocking import BACKGROUND
from celeriac.client.control import Control
from celeriac.client.requests import Requests
from celeriac.clock import SystemClock
from celeriac.errors import ConfigError
from celeriac.servers.urls import OpenFanout
from celeriac.wire.content import Codecs
from celeriac.wire.control import CELERYS

if TYPE_CHECKING:
    from celeriac.client.pausing import Pauses


class Asker:
    """Asks workers within an ``async with`` block.

    :ivar control: as an app of default settings has it, but that it pauses no queue.
    """

    def __init__(self, open_fanout: OpenFanout) -> None:
        codecs = Codecs()
        self._reach = _Reach(open_fanout, codecs)
        self.control = Control(self._reach, CELERYS, codecs, SystemClock(), BACKGROUND.run)

    async def __aenter__(self) -> Self:
        await self._reach.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._reach.close()


class _Reach:
    """The requests of one event loop."""

    def __init__(self, open_fanout: OpenFanout, codecs: Codecs) -> None:
        self._open = open_fanout
        self._codecs = codecs
        self._opened = AsyncExitStack()
        self.requests: Requests | None = None

    def current(self) -> Self:
        """Return this one."""
        return self

    @property
    def pauses(self) -> Pauses:
        """Raises ``ConfigError``: what is paused is kept by another part of the server."""
        raise ConfigError("queues are paused by way of an app")

    async def open(self) -> None:
        """Make ready; the fanout connects on its first use."""
        self.requests = Requests(await self._opened.enter_async_context(self._open()), self._codecs)

    async def close(self) -> None:
        """Close the connections."""
        await self._opened.aclose()
