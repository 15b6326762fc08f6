"""Waits for a message in one list, and takes it in the same trip, where messages come one by one.

Rules: two commands are sent at once. The first, ``BLMOVE`` of the list onto itself, changes nothing and returns when
the list has a message, or when its time is over; then the server goes on to the second, a script that takes. So a
message waits neither for a note to reach the worker nor for the worker's question. What else ends the wait has the
server end the first command (``CLIENT UNBLOCK``), after which the script runs all the same. That waits while an
administrator's ``CLIENT PAUSE`` or a failover holds commands that write back: many servers crash when they are to
unblock a client that is held back.

A worker whose machine is cut off while it waits so may be given messages that it never reads: they come back when
their lease ends. So it waits only for a moment, while messages come. A server that refuses one of the commands is
asked no more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from celeriac.clock import set_within
from celeriac.errors import CeleriacError
from celeriac.servers.redis.link import Link, Script

_log = logging.getLogger("celeriac.broker.redis")

LONGEST = 1.0
"""Seconds of one wait, and between two messages that come one by one."""

_LARGE = 16 * 1024
"""Bytes of a message whose list is not waited for: the first command answers with the message, too."""

_SHORTEST = 0.01
"""Seconds of one wait at least: 0 would be without end, and some servers round parts of a millisecond down to it."""

_HELD_BACK = ("EVAL", "return 0", "0")
"""What a server counts as a command that may write: it holds the whole transaction back while it holds writers back."""

_AGAIN = 0.02
"""Seconds until a wait is ended once more: the first command may have come before that which it was to end."""


class Source:
    """Where messages come from.

    :ivar awaited: the list that the next take is to wait for: the last two messages came from it, one by one.
    """

    __slots__ = ("_at", "_last", "awaited")

    def __init__(self) -> None:
        self.awaited: str | None = None
        self._last: str | None = None
        self._at = 0.0

    def note(self, lists: Sequence[str], batches: Sequence[Any], now: float) -> None:
        """Learn from what one take found.

        :param batches: for each list that messages were taken from its number, then the messages.
        :param now: seconds of a clock that only goes forward.
        """
        found = lists[batches[0]] if len(batches) == 2 and len(batches[1][0]) < _LARGE else None
        self.awaited = found if found == self._last and now - self._at < LONGEST else None
        self._last, self._at = found, now


class _Unknown(Exception):
    """The server does not tell the number of a connection, without which no wait can be ended."""


class StandingTake:
    """The takes of one subscription that wait at the server.

    :ivar is_refused: whether the server refused a command that is needed.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._number = 0
        self._over = asyncio.Event()
        self._over.set()
        self._is_to_end = False
        self._ending: asyncio.Task[None] | None = None
        self.is_refused = False

    async def run(
        self, awaited: str, seconds: float, script: Script, keys: Sequence[str], arguments: Sequence[Any]
    ) -> Any:
        """Return what the script returned, once the list had a message, or the time was over.

        :param awaited: the list.
        :param seconds: the longest wait.

        Raises the link's errors, as ``Link.run``.
        """
        self._is_to_end = False
        seconds = max(seconds, _SHORTEST)
        wait = ("BLMOVE", awaited, awaited, "RIGHT", "RIGHT", f"{seconds:.3f}")
        try:
            waited, answer = await self._link.run_after(wait, seconds, script, keys, arguments, self._begin)
        except _Unknown:
            self._refuse(self._link.refused("the server does not tell a connection's number"))
            return await self._link.run(script, keys, arguments)
        finally:
            self._over.set()
        if isinstance(waited, CeleriacError):
            self._refuse(waited)
        return answer

    def _begin(self, number: int) -> None:
        if not number:
            raise _Unknown
        self._number = number
        self._over.clear()
        if self._is_to_end:
            self.end()

    def end(self) -> None:
        """Have the wait end now, if there is one."""
        self._is_to_end = True
        if not self._over.is_set() and (self._ending is None or self._ending.done()):
            self._ending = asyncio.get_running_loop().create_task(self._end())

    async def _end(self) -> None:
        while self._is_to_end and not self._over.is_set():
            unblock = ("CLIENT", "UNBLOCK", self._number)
            try:
                await self._link.answers([("MULTI",), _HELD_BACK, unblock, ("EXEC",)])
            except CeleriacError as error:
                self._refuse(error)
                return
            await set_within(self._over, _AGAIN)

    def _refuse(self, error: CeleriacError) -> None:
        if isinstance(error, self._link.unavailable):
            return
        self.is_refused = True
        _log.debug("messages are not waited for and taken in one step any more: %s", error)
