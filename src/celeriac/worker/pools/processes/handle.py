"""A child as its worker sees it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

try:
    from fcntl import ioctl
    from termios import FIONREAD
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    ioctl = None  # type: ignore[assignment]

from celeriac.worker.pools.processes.frames import CALL, PACKET, Frame, Inbox, pieces, received


class ChildEnded(Exception):
    """The child ended in the middle of a call, or before it began one."""


class NotStarted(Exception):
    """The system has no room for one more process."""


class Handle:
    """One child: the pipes to it, and the call that it runs.

    :param number: the server's number for the child.
    :param calls: where calls are written.
    :param answers: where answers are read.
    :param unread: where calls can be read that the child has not read; -1 where that cannot be done.
    :ivar generation: how often the pool was restarted before it began.
    :ivar began: when the present call began, in seconds of the loop's clock.
    :ivar keeps_ahead: whether the call ahead may have been read by the child, which runs it later.
    :ivar unrecorded: calls with delegates that it has answered, and whose results have not landed.
    :ivar stores: whether it stores the result of its present call itself, where another call is ahead by then.
    :ivar ended_ahead: what ended it, if it had read the call ahead, and had not answered the one before.
    :param on_lost: called when the child can no longer be reached; it may still live.
    """

    def __init__(
        self, number: int, calls: int, answers: int, unread: int, on_lost: Callable[[Handle], None]
    ) -> None:
        self.number = number
        self.pid = 0
        self.calls = 0
        self.is_lost = False
        self.is_retired = False
        self.generation = 0
        self._calls = calls
        self._answers = answers
        self._unread = unread
        self.began = 0.0
        self.keeps_ahead = False
        self.unrecorded = 0
        self.stores = False
        self.ended_ahead: Exception | None = None
        self._had_read_ahead = False
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._unsent: list[memoryview] = []
        self._answer: asyncio.Future[Frame] | None = None
        self._on_answer: Callable[[int], None] | None = None
        self._next: asyncio.Future[Frame] | None = None
        self._next_size = 0
        for end in (calls, answers):
            os.set_blocking(end, False)
        self._loop.add_reader(answers, self._read)

    @property
    def is_busy(self) -> bool:
        """Whether it runs a call."""
        return self._answer is not None

    def ask(
        self, kind: int, body: bytes, on_answer: Callable[[int], None] | None = None
    ) -> asyncio.Future[Frame]:
        """Send a call, or what it waits for; the future gets the child's answer.

        :param on_answer: called with the kind of the answer when it is read, just before the future is done.

        The future raises ``ChildEnded`` or ``NotStarted``.
        """
        if kind == CALL:
            self.calls += 1
            self.began = self._loop.time()
        self._answer = answer = self._loop.create_future()
        self._on_answer = on_answer
        self.send(kind, body)
        return answer

    def place(self, body: bytes) -> asyncio.Future[Frame] | None:
        """Send a call ahead of the present one's answer; return ``None`` where the pipe does not take it whole."""
        if self._unread < 0 or self._unsent or self.is_lost or self.is_retired or self._answer is None:
            return None
        (frame, *more) = pieces(CALL, body)
        if more or len(frame) > PACKET:
            return None
        try:
            os.write(self._calls, frame)
        except OSError:  # full, or the child is gone
            return None
        self._next = self._loop.create_future()
        self._next_size = len(frame)
        return self._next

    def take_back(self) -> bool:
        """Take the call ahead out of the pipe; return whether that was done.

        It cannot be done once the child has read it, nor while the child has not read the call before it yet.
        """
        if self.keeps_ahead or self._next is None or self._waiting_bytes() != self._next_size:
            return False
        if not received(self._unread):
            return False
        self._next = None
        return True

    def runs_next(self) -> bool:
        """Whether the child has read the call ahead, and so is done with the one before but for its answer."""
        return self._next is not None and not self.keeps_ahead and self._waiting_bytes() == 0

    def go_on(self, on_answer: Callable[[int], None]) -> None:
        """Note that the child runs the call that was ahead."""
        self.calls += 1
        self.began = self._loop.time()
        self.keeps_ahead = False
        self._answer, self._next = self._next, None
        self._on_answer = on_answer

    def send(self, kind: int, body: bytes) -> None:
        """Send a frame, as much as the pipe takes now, and the rest when it takes more."""
        for piece in pieces(kind, body):
            if self._unsent:
                self._unsent.append(memoryview(piece))
            elif (left := self._send_some(memoryview(piece))) is not None:
                self._unsent.append(left)
                self._loop.add_writer(self._calls, self._write)

    def say_goodbye(self) -> None:
        """Tell the child that no call follows; it then ends by itself."""
        if self._calls >= 0:
            self._unsent.clear()
            self._loop.remove_writer(self._calls)
            os.close(self._calls)
            self._calls = -1

    def close(self, error: Exception) -> None:
        """Close the pipes of a child that is gone. An answer that it had sent counts; else its call gets the error."""
        if not self.is_lost:
            self.is_lost = True
            self._read_rest()
            self._let_go()
        if self._had_read_ahead:
            self.ended_ahead = error
        self.say_goodbye()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
        if self._unread >= 0:
            os.close(self._unread)
            self._unread = -1
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self._answer = None

    def _read_rest(self) -> None:
        """Read everything that a dead process had sent."""
        while data := received(self._answers):
            self._take(data)

    def _read(self) -> None:
        data = received(self._answers)
        if data:
            self._take(data)
        elif data is not None:
            self._let_go()
            self._on_lost(self)

    def _waiting_bytes(self) -> int:
        """Return how many bytes of calls the child has not read."""
        return int.from_bytes(ioctl(self._unread, FIONREAD, bytes(4)), sys.byteorder)

    def _take(self, data: bytes) -> None:
        for frame in self._inbox.feed(data):
            answer, self._answer = self._answer, None
            on_answer, self._on_answer = self._on_answer, None
            if on_answer is not None:
                on_answer(frame[0])
            if answer is not None and not answer.done():
                answer.set_result(frame)

    def _send_some(self, piece: memoryview) -> memoryview | None:
        """Send the start of a piece; return what is left of it."""
        try:
            sent = os.write(self._calls, piece)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:  # the reader notices that the child is gone
            return None
        return piece[sent:] if sent < len(piece) else None

    def _write(self) -> None:
        while self._unsent:
            left = self._send_some(self._unsent[0])
            if left is not None:
                self._unsent[0] = left
                return
            self._unsent.pop(0)
        self._loop.remove_writer(self._calls)

    def _let_go(self) -> None:
        self.is_lost = True
        self._had_read_ahead = self.runs_next()
        self._loop.remove_reader(self._answers)
        self.say_goodbye()
