"""Puts off deadlines for as long as bytes move, so that a slow network is not taken for an outage.

Rules: the system counts the bytes that the other side has acknowledged and those that arrived. Where it does not tell
(no Linux, no TCP), deadlines stand.
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


class Progress:
    """Puts off the deadline of one exchange.

    :param line: returns the socket, ``None`` where there is none.
    :param patience: seconds for which nothing may move.
    """

    def __init__(self, line: Callable[[], Any], deadline: asyncio.Timeout, patience: float) -> None:
        self._line = line
        self._deadline = deadline
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._moved: int | None = None
        self._next = self._loop.call_later(patience / _LOOKS, self._look)

    def end(self) -> None:
        """Stop looking."""
        self._next.cancel()

    def _look(self) -> None:
        self._next = self._loop.call_later(self._patience / _LOOKS, self._look)
        acknowledged, received, _ = _facts(self._line())
        moved = acknowledged + received
        when = self._loop.time() + self._patience
        if (
            self._moved is not None
            and moved > self._moved
            and not self._deadline.expired()
            and when > (self._deadline.when() or 0.0)
        ):
            self._deadline.reschedule(when)
        self._moved = moved


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


def _facts(line: Any) -> tuple[int, int, int]:
    """Return how many bytes were acknowledged, received and not sent yet; zeros where the system does not tell."""
    try:
        facts = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _UNSENT + 4)
        acknowledged, received = struct.unpack_from("=QQ", facts, _MOVED)
        (unsent,) = struct.unpack_from("=I", facts, _UNSENT)
    except (OSError, ValueError, AttributeError, TypeError, NotImplementedError, struct.error):
        return 0, 0, 0  # ValueError: uvloop's, for a socket that is closed already
    return int(acknowledged), int(received), int(unsent)
