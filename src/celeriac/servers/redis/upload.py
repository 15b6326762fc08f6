"""Sends large commands: the deadline is put off while bytes move, so that a slow network is not taken for an outage."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import (
    ConnectionError as LinkDown,
)
from redis.exceptions import (
    ResponseError,
)

LARGE = 1024 * 1024
"""Bytes from which on a value is large: every Redis takes smaller ones, and any network carries them in no time."""

_PIECE = 64 * 1024
_LOOKS = 4
"""Looks at the progress of an upload within the time that it may stand still."""

_ACKED = 120
"""Where the count of acknowledged bytes stands in Linux's ``struct tcp_info``."""


async def exchange_slowly(
    connection: Any, packed: Sequence[bytes], deadline: asyncio.Timeout, patience: float
) -> list[Any]:
    """Send the commands and return their answers; put off the deadline for as long as bytes go out.

    :param patience: seconds for which nothing may move.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    watch = _Watch(connection, deadline, patience)
    try:
        for piece in _pieces(packed):
            await connection.send_packed_command(piece)
            deadline.reschedule(loop.time() + patience)
        # What was sent may still be on its way through what lies between, for as long as it took to get there.
        deadline.reschedule(loop.time() + patience + (loop.time() - began))
        return [await read_answer(connection, math.inf) for _ in packed]
    finally:
        watch.end()


class _Watch:
    """Puts off a deadline whenever the other side has acknowledged more."""

    def __init__(self, connection: Any, deadline: asyncio.Timeout, patience: float) -> None:
        self._connection = connection
        self._deadline = deadline
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._acked = _acknowledged(connection)
        self._next = self._loop.call_later(patience / _LOOKS, self._look)

    def end(self) -> None:
        """Stop looking."""
        self._next.cancel()

    def _look(self) -> None:
        self._next = self._loop.call_later(self._patience / _LOOKS, self._look)
        acked = _acknowledged(self._connection)
        when = self._loop.time() + self._patience
        if acked > self._acked and not self._deadline.expired() and when > (self._deadline.when() or 0.0):
            self._deadline.reschedule(when)
        self._acked = acked


def _acknowledged(connection: Any) -> int:
    """Return how many bytes the other side has acknowledged; 0 where the system does not tell."""
    try:
        line = connection._writer.get_extra_info("socket")  # noqa: SLF001 - the driver has no other way to it
        facts = line.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED + 8)
        (count,) = struct.unpack_from("=Q", facts, _ACKED)
    except (OSError, AttributeError, TypeError, NotImplementedError, struct.error):
        return 0
    return int(count)


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


async def read_answer(connection: Any, timeout: float | None = None) -> Any:
    """Return the answer to a command, an error answer as the driver's exception."""
    try:
        return await connection.read_response(timeout=timeout)
    except LinkDown:
        raise
    except ResponseError as error:
        return error
