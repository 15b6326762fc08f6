"""A child as its worker sees it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from celeriac.worker.pools.processes.frames import CALL, Frame, Inbox, pieces, received


class ChildEnded(Exception):
    """The child ended in the middle of a call, or before it began one."""


class NotStarted(Exception):
    """The system has no room for one more process."""


class Handle:
    """One child: the pipes to it, and the call that it runs.

    :param number: the server's number for the child.
    :param calls: where calls are written.
    :param answers: where answers are read.
    :ivar generation: how often the pool was restarted before it began.
    :param on_lost: called when the child can no longer be reached; it may still live.
    """

    def __init__(self, number: int, calls: int, answers: int, on_lost: Callable[[Handle], None]) -> None:
        self.number = number
        self.pid = 0
        self.calls = 0
        self.is_lost = False
        self.is_retired = False
        self.generation = 0
        self._calls = calls
        self._answers = answers
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox()
        self._unsent: list[memoryview] = []
        self._answer: asyncio.Future[Frame] | None = None
        for end in (calls, answers):
            os.set_blocking(end, False)
        self._loop.add_reader(answers, self._read)

    @property
    def is_busy(self) -> bool:
        """Whether it runs a call."""
        return self._answer is not None

    def ask(self, kind: int, body: bytes) -> asyncio.Future[Frame]:
        """Send a call, or what it waits for; the future gets the child's answer.

        The future raises ``ChildEnded`` or ``NotStarted``.
        """
        if kind == CALL:
            self.calls += 1
        self._answer = answer = self._loop.create_future()
        self.send(kind, body)
        return answer

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
            self._read_rest()
            self._let_go()
        self.say_goodbye()
        if self._answers >= 0:
            os.close(self._answers)
            self._answers = -1
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

    def _take(self, data: bytes) -> None:
        for frame in self._inbox.feed(data):
            answer, self._answer = self._answer, None
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
        self._loop.remove_reader(self._answers)
        self.say_goodbye()
