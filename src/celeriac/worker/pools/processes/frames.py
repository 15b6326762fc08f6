"""What a worker and its child say to each other: frames of a kind, a length and that many bytes.

Rules: a child answers each call with one ``VALUE`` or ``ENDED`` before it gets the next, so no frame carries a number.
Between a call and its answer there is room for more: a child that must keep its call open until its record has landed
sends one kind more and waits for the one that tells it to go on.
"""

from __future__ import annotations

import socket
import struct
from typing import TypeAlias

HEAD = struct.Struct("<BQ")

SETUP, CALL, VALUE, ENDED = range(4)
"""To the child: what it begins with, a call. From the child: what a call returned, or all that became of it."""

WORN = 16
"""Added to the kind of an answer: the child has grown too large and is to be replaced."""

START, KILL = range(2)
"""To the server, in place of a frame: start, or kill, the child whose number stands where the length does."""

STARTED, FAILED, GONE = range(3)
"""From the server, about one child."""

CHUNK = 256 * 1024
"""Bytes that are read at once."""

JOINED = 64 * 1024
"""A shorter body is copied behind its head, which costs less than to send two pieces."""

Frame: TypeAlias = tuple[int, bytes | bytearray | memoryview]


def pieces(kind: int, body: bytes) -> list[bytes]:
    """Return what is to be sent for a frame."""
    head = HEAD.pack(kind, len(body))
    return [head + body] if len(body) < JOINED else [head, body]


class Inbox:
    """Makes frames of what was read, however it was cut."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that are complete with these bytes."""
        if not self._rest and len(data) >= HEAD.size:
            kind, length = HEAD.unpack_from(data)
            if len(data) == HEAD.size + length:  # nearly always
                return [(kind, memoryview(data)[HEAD.size :])]
        self._rest += data
        return self._complete()

    def _complete(self) -> list[Frame]:
        frames: list[Frame] = []
        while len(self._rest) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._rest)
            end = HEAD.size + length
            if len(self._rest) < end:
                break
            # What is large is not copied once more.
            whole, self._rest = self._rest, self._rest[end:]
            frames.append((kind, memoryview(whole)[HEAD.size : end]))
        return frames


class Line:
    """The child's end of a socket: it waits for each frame."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._inbox = Inbox()
        self._frames: list[Frame] = []

    def receive(self) -> Frame | None:
        """Return the next frame, ``None`` when there will be none."""
        while not self._frames:
            data = self._end.recv(CHUNK)
            if not data:
                return None
            self._frames = self._inbox.feed(data)
        return self._frames.pop(0)

    def send(self, kind: int, body: bytes) -> None:
        """Send a frame. Raises ``OSError`` where nobody is left to read it."""
        for piece in pieces(kind, body):
            self._end.sendall(piece)


def read_exactly(end: socket.socket, size: int) -> bytes:
    """Read so many bytes and none more. Raises ``EOFError``."""
    data = bytearray()
    while len(data) < size:
        read = end.recv(size - len(data))
        if not read:
            raise EOFError
        data += read
    return bytes(data)
