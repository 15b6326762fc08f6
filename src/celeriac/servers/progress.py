"""Ends waits for a server by which no byte moves: one that moves some is slow, and waited for.

Rules: the system counts the bytes that the other side has acknowledged and those that arrived. Where it does not tell
(no Linux, no TCP), a deadline stands.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

_LOOKS = 4
"""Looks at the progress within the time for which nothing may move."""

_MOVED = 120
"""Where the counts of acknowledged and of received bytes stand in Linux's ``struct tcp_info``."""

_UNSENT = 144
"""Where the count of bytes stands that the system has not sent yet."""


class Patience:
    """The deadline of one exchange.

    :param moved: returns how many bytes have moved so far.
    :param seconds: for which nothing may move.
    :param over: called when they are over.
    """

    __slots__ = ("_deadline", "_loop", "_moved", "_next", "_over", "_seconds", "_seen")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        moved: Callable[[], int],
        seconds: float,
        over: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._moved = moved
        self._seconds = seconds
        self._over = over
        self._seen: int | None = None
        self._deadline = loop.time() + seconds
        self._next = loop.call_later(seconds / _LOOKS, self._look)

    def put_off(self, more: float = 0.0) -> None:
        """Begin anew, with so many seconds more."""
        self._deadline = self._loop.time() + self._seconds + more

    def end(self) -> None:
        """Stop looking."""
        self._next.cancel()

    def _look(self) -> None:
        moved, now = self._moved(), self._loop.time()
        if self._seen is not None and moved > self._seen:
            self._deadline = max(self._deadline, now + self._seconds)
        self._seen = moved
        if now < self._deadline:
            self._next = self._loop.call_at(min(self._deadline, now + self._seconds / _LOOKS), self._look)
        else:
            self._over()


class Outgoing:
    """Tells when bytes last left a connection while others waited to leave."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._acknowledged = 0
        self._last = float("-inf")

    def last(self) -> float:
        """Return the time of the loop at which that was seen last; looks again."""
        acknowledged, _, unsent = _facts(self._transport.get_extra_info("socket"))
        if acknowledged > self._acknowledged and (unsent or self._transport.get_write_buffer_size()):
            self._last = self._loop.time()
        self._acknowledged = acknowledged
        return self._last


def moved(line: Any) -> int:
    """Return how many bytes of a socket were acknowledged or have arrived; 0 where the system does not tell."""
    acknowledged, received, _ = _facts(line)
    return acknowledged + received


def _facts(line: Any) -> tuple[int, int, int]:
    """Return how many bytes were acknowledged, received and not sent yet; zeros where the system does not tell."""
    try:
        facts = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNSENT + 4)
        acknowledged, received = struct.unpack_from("=QQ", facts, _MOVED)
        (unsent,) = struct.unpack_from("=I", facts, _UNSENT)
    except (OSError, ValueError, AttributeError, TypeError, NotImplementedError, struct.error):
        return 0, 0, 0  # ValueError: uvloop's, for a socket that is closed already
    return int(acknowledged), int(received), int(unsent)
