"""Puts off a deadline for as long as bytes move, so that a slow network is not taken for an outage.

Rules: the system counts the bytes that the other side has acknowledged and those that arrived. Where it does not tell
(no Linux, no TCP), the deadline stands.
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
        moved = bytes_moved(self._line())
        when = self._loop.time() + self._patience
        if (
            self._moved is not None
            and moved > self._moved
            and not self._deadline.expired()
            and when > (self._deadline.when() or 0.0)
        ):
            self._deadline.reschedule(when)
        self._moved = moved


def bytes_moved(line: Any) -> int:
    """Return how many bytes went over a connection, both ways together; 0 where the system does not tell."""
    try:
        facts = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MOVED + 16)
        acknowledged, received = struct.unpack_from("=QQ", facts, _MOVED)
    except (OSError, AttributeError, TypeError, NotImplementedError, struct.error):
        return 0
    return int(acknowledged + received)
