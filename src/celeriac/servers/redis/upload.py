"""Sends large commands in pieces, and reads answers of any size.

Rules: no driver's timeout ends an exchange. Its deadline is put off while bytes move, so that a slow network is not
taken for an outage.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Sequence
from typing import Any

from redis.exceptions import (
    ConnectionError as LinkDown,
)
from redis.exceptions import (
    ResponseError,
)

from celeriac.servers.progress import Progress

LARGE = 1024 * 1024
"""Bytes from which on a value is large: every Redis takes smaller ones."""

_PIECE = 64 * 1024


async def exchange(
    connection: Any, packed: Sequence[bytes], deadline: asyncio.Timeout, patience: float
) -> list[Any]:
    """Send the commands and return their answers; put off the deadline for as long as bytes move.

    :param patience: seconds for which nothing may move.
    """
    progress = Progress(lambda: _socket_of(connection), deadline, patience)
    try:
        if sum(map(len, packed)) < LARGE:
            await connection.send_packed_command(packed)
        else:
            await _send_slowly(connection, packed, deadline, patience)
        return [await read_answer(connection) for _ in packed]
    finally:
        progress.end()


async def _send_slowly(
    connection: Any, packed: Sequence[bytes], deadline: asyncio.Timeout, patience: float
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    for piece in _pieces(packed):
        await connection.send_packed_command(piece)
        deadline.reschedule(loop.time() + patience)
    # What was sent may still be on its way through what lies between, for as long as it took to get there.
    deadline.reschedule(loop.time() + patience + (loop.time() - began))


def _socket_of(connection: Any) -> Any:
    writer = connection._writer  # noqa: SLF001 - the driver has no other way to it
    return None if writer is None else writer.get_extra_info("socket")


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


async def read_answer(connection: Any) -> Any:
    """Return the answer to a command, an error answer as the driver's exception."""
    try:
        return await connection.read_response(timeout=math.inf)
    except LinkDown:
        raise
    except ResponseError as error:
        return error
