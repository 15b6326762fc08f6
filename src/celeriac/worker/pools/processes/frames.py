"""The frames in which a worker and its child talk: a kind, a length and that many bytes.

Rules: a child answers each call with one ``VALUE``, ``ENDED``, ``DONE``, ``CONCLUDED``, ``RECORDED`` or ``NOT_BEGUN``
before it begins the next. Calls go over one pipe and answers over another. On a socket for both, the kernel wakes a
child that waits for a call also when its last answer is read. An answer for which the worker need not be woken goes
over a third pipe; so that all are read in their order, each has a number.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from time import perf_counter
from typing import TypeAlias

HEAD = struct.Struct("<BQ")

TURN = struct.Struct("<Hf")
"""What stands before the body of a child's answer: its number, and the seconds that the call took."""

NUMBERS = 0xFFFF
"""The last number of an answer; the one after it is 0 again."""

SETUP, CALL, VALUE, ENDED, PAUSED, RESUME, DONE, CONCLUDED, RECORDED, READY, NOT_BEGUN, QUIET = range(12)
"""To the child: its setup, a call (``QUIET``: its answer need not wake the worker if the next call is there), that the
ending of a call which waits is on record, or the question whether it is ready, which it answers with ``DONE`` once it
is. From the child: the value of a call, or an ending that is more than a value. Of a call that decides its ending
itself: the ending, after which it waits, and that it is done; or an ending for which it does not wait, and one whose
result it has stored itself. Of a call whose message it could not acknowledge: why."""

CALLS = frozenset((CALL, QUIET))
"""The kinds of calls."""

WORN = 16
"""A flag on the kind of an answer: the child uses too much memory, and should be replaced."""

START, KILL = range(2)
"""To the server: start or kill a child. These are heads of frames with the child's number in place of the length."""

STARTED, FAILED, GONE = range(3)
"""From the server, about one child."""

CHUNK = 64 * 1024
"""The most bytes that one read gets, and that a pipe holds on Linux."""

PACKET = 4096
"""The most bytes that a pipe takes as one packet, which one read gets whole (Linux: ``O_DIRECT`` of pipe(2))."""

JOINED = 64 * 1024
"""Bytes up to which a body is copied behind its head, since that costs less than sending two pieces."""

Frame: TypeAlias = tuple[int, bytes | bytearray | memoryview]


def pieces(kind: int, body: bytes, turn: bytes = b"") -> list[bytes]:
    """Return the pieces of bytes that make up a frame.

    :param turn: what stands before the body.
    """
    head = HEAD.pack(kind, len(turn) + len(body)) + turn
    return [head + body] if len(body) < JOINED else [head, body]


def received(end: int) -> bytes | None:
    """Return the bytes that are there to be read; ``None`` where none are yet, nothing at the end."""
    try:
        return os.read(end, CHUNK)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return b""


class Inbox:
    """Joins the pieces that were read to whole frames."""

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
            # The collected bytes are the frame itself, so a large body is not copied once more.
            whole, self._rest = self._rest, self._rest[end:]
            frames.append((kind, memoryview(whole)[HEAD.size : end]))
        return frames


class Line:
    """The child's ends of what it talks over: it waits for each frame.

    :param source: the file descriptor that it reads, and ``target`` the one that it writes.
    :param unread: a second end of the source, which does not block; -1 where there is none.
    :param quiet: where answers are written for which the worker need not be woken, if there are such.
    """

    def __init__(self, source: int, target: int, unread: int = -1, quiet: int = -1) -> None:
        self._source = source
        self._target = target
        self._quiet = quiet
        self._may_be_quiet = False
        self._number = 0
        self._began = 0.0
        self._inbox = Inbox()
        self._frames: list[Frame] = []
        self._unread = unread

    def upcoming(self) -> Frame | None:
        """Return the frame that ``receive`` returns next, if it is there by now."""
        if not self._frames and self._unread >= 0 and (data := received(self._unread)):
            self._frames = self._inbox.feed(data)
        return self._frames[0] if self._frames else None

    def receive(self) -> Frame | None:
        """Return the next frame, ``None`` when there will be none."""
        frame = self._next()
        if frame is not None:
            self._may_be_quiet = frame[0] == QUIET
            self._began = perf_counter()
        return frame

    def _next(self) -> Frame | None:
        while not self._frames:
            data = os.read(self._source, CHUNK)
            if not data:
                return None
            self._frames = self._inbox.feed(data)
        return self._frames.pop(0)

    def receive_word(self) -> Frame | None:
        """Return the next frame that is no call; a call that comes before it is the next one later."""
        calls = []
        while (frame := self._next()) is not None and frame[0] in CALLS:
            calls.append(frame)
        self._frames = calls + self._frames
        return frame

    def send(self, kind: int, body: bytes) -> None:
        """Send a frame. Raises ``OSError`` when the other side is gone."""
        _write(self._target, pieces(kind, body))

    def answer(self, kind: int, body: bytes) -> None:
        """Answer the call that was received, or tell how far it is. Raises ``OSError`` when the other side is gone."""
        frame = pieces(kind, body, TURN.pack(self._number, perf_counter() - self._began))
        self._number = self._number + 1 & NUMBERS
        # A child that is worn, or that waits for a word, leaves the next call in the pipe, for another.
        may_be_quiet = self._may_be_quiet and kind < WORN and kind != PAUSED and len(frame[0]) <= PACKET
        _write(self._quiet if may_be_quiet and self.upcoming() is not None else self._target, frame)


def _write(end: int, frame: Sequence[bytes]) -> None:
    for piece in frame:
        sent = os.write(end, piece)
        while sent < len(piece):
            sent += os.write(end, memoryview(piece)[sent:])


def unread_end(source: int) -> int:
    """Return a second end for reading of a pipe, which does not block. Raises ``OSError``.

    A duplicate would block as the first one does: whether an end blocks is kept with what it is a duplicate of.
    """
    return os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def read_exactly(end: socket.socket, size: int) -> bytes:
    """Read exactly ``size`` bytes. Raises ``EOFError`` if the socket ends before."""
    data = bytearray()
    while len(data) < size:
        read = end.recv(size - len(data))
        if not read:
            raise EOFError
        data += read
    return bytes(data)
