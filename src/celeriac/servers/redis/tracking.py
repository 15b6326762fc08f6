"""The connection that looks at keys, where the server's notes of their changes come over another one.

Needed only where a server refuses protocol 3, in which one connection does both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from celeriac.servers.redis.link import Line, Link

_log = logging.getLogger("celeriac.broker.redis")

_LISTENER_GONE = "redirect to does not exist"
"""The server's error if the connection that gets the notes was just cut: it does not mean that tracking is refused."""


class TrackingLine:
    """Reads tracked keys for one link, over a connection that the first look opens."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._line: Line | None = None
        self._listener = 0
        self._turn = asyncio.Lock()

    async def look(self, listener: int, questions: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the answers; the server notes the keys, and pushes one notice when one of them changes.

        :param listener: the number of the connection that the notes go to.
        """
        async with self._turn:
            if self._line is not None and self._listener == listener:
                try:
                    return await self._line.calls(questions)
                except self._link.unavailable as error:
                    _log.debug(
                        "the connection that looks was lost while it was idle; making it anew: %s", error
                    )
            line = await self._open(listener)
            return await line.calls(questions)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        line, self._line = self._line, None
        if line is not None:
            await line.close()

    async def _open(self, listener: int) -> Line:
        await self.close()
        line = await self._link.open_line()
        try:
            await line.call("CLIENT", "TRACKING", "ON", "REDIRECT", listener)
        except self._link.refused as error:
            await line.close()
            if _LISTENER_GONE in str(error):
                text = f"{self._link.target} is not available: a connection was cut: {error}"
                raise self._link.unavailable(text) from error
            raise
        except BaseException:
            await line.close()
            raise
        self._line, self._listener = line, listener
        return line
