"""A child as its worker sees it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Sequence

try:
    from fcntl import ioctl
    from termios import FIONREAD
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    ioctl = None  # type: ignore[assignment]

from celeriac.worker.pools.processes.frames import (
    CALL,
    NUMBERS,
    PACKET,
    QUIET,
    TURN,
    Frame,
    Inbox,
    pieces,
    received,
)

OnAnswer = Callable[[int, float], None]
"""Is told the kind of an answer, and the seconds that the call took in the child."""


class ChildEnded(Exception):
    """The child ended in the middle of a call, or before it began one."""


class NotStarted(Exception):
    """The system has no room for one more process."""


class Handle:
    """One child: the pipes to it, and the call that it runs.

    :param number: the server's number for the child.
    :param calls: where calls are written.
    :param answers: where answers are read, and where those are read for which nobody is woken.
    :param unread: where calls can be read that the child has not read; -1 where that cannot be done.
    :ivar generation: how often the pool was restarted before it began.
    :ivar began: when the present call began, in seconds of the loop's clock.
    :ivar is_quiet: whether the answer to the present call may wake nobody.
    :ivar keeps_ahead: whether calls ahead may have been read by the child, which runs them later.
    :ivar unrecorded: calls with delegates that it has answered, and whose results have not landed.
    :ivar stores: whether it stores the result of its present call itself, where another call is ahead by then.
    :ivar ended_ahead: what ended it, if it had read the first call ahead, and had not answered the one before.
    :param on_lost: called when the child can no longer be reached; it may still live.
    """

    def __init__(
        self,
        number: int,
        calls: int,
        answers: tuple[int, int],
        unread: int,
        on_lost: Callable[[Handle], None],
    ) -> None:
        self.number = number
        self.pid = 0
        self.calls = 0
        self.is_lost = False
        self.is_retired = False
        self.is_quiet = False
        self.generation = 0
        self._calls = calls
        self._answers, self._quiet = answers
        self._unread = unread
        self.began = 0.0
        self.keeps_ahead = False
        self.unrecorded = 0
        self.stores = False
        self.ended_ahead: Exception | None = None
        self._had_read_ahead = False
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._inbox, self._quiet_inbox = Inbox(), Inbox()
        self._number = 0
        self._early: dict[int, tuple[Frame, float]] = {}
        self._unsent: list[memoryview] = []
        self._answer: asyncio.Future[Frame] | None = None
        self._on_answer: OnAnswer | None = None
        self._next: deque[tuple[asyncio.Future[Frame], bytes]] = deque()
        for end in (calls, *answers):
            os.set_blocking(end, False)
        self._loop.add_reader(self._answers, self._read)

    @property
    def is_busy(self) -> bool:
        """Whether it runs a call."""
        return self._answer is not None

    def ask(self, kind: int, body: bytes, on_answer: OnAnswer | None = None) -> asyncio.Future[Frame]:
        """Send a call, or what it waits for; the future gets the child's answer.

        :param on_answer: called when the answer is read, just before the future is done.

        The future raises ``ChildEnded`` or ``NotStarted``.
        """
        self.is_quiet = False
        if kind == CALL:
            self.calls += 1
            self.began = self._loop.time()
        self._answer = answer = self._loop.create_future()
        self._on_answer = on_answer
        self.send(kind, body)
        return answer

    def place(self, body: bytes, *, quietly: bool = False) -> asyncio.Future[Frame] | None:
        """Send a call ahead of the present one's answer; return ``None`` where the pipe does not take it whole.

        :param quietly: let its answer wake nobody if the child finds the next call then: see ``look``.
        """
        if self._unread < 0 or self._unsent or self.is_lost or self.is_retired or self._answer is None:
            return None
        (frame, *more) = pieces(QUIET if quietly else CALL, body)
        if more or len(frame) > PACKET:
            return None
        try:
            os.write(self._calls, frame)
        except OSError:  # full, or the child is gone
            return None
        answer: asyncio.Future[Frame] = self._loop.create_future()
        self._next.append((answer, frame))
        return answer

    def take_back(self) -> asyncio.Future[Frame] | None:
        """Take the first call that the child has not read out of the pipe; return the future of its answer.

        Return ``None`` where all are read, or the call that it runs is not.
        """
        if self.keeps_ahead or not self._next or not 0 < self._waiting_bytes() <= self._bytes_ahead():
            return None
        taken = received(self._unread)
        for place, (answer, frame) in enumerate(self._next):
            if frame == taken:
                del self._next[place]
                return answer
        return None

    def runs_next(self) -> bool:
        """Whether the child has read a call ahead, and so is done with the one before but for its answer."""
        return bool(self._next) and not self.keeps_ahead and self._waiting_bytes() < self._bytes_ahead()

    def go_on(self, on_answer: OnAnswer) -> None:
        """Note that the child runs the first call that was ahead."""
        self.calls += 1
        self.began = self._loop.time()
        self._answer, frame = self._next.popleft()
        self.is_quiet = frame[0] == QUIET
        self.keeps_ahead = self.keeps_ahead and bool(self._next)
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

    def look(self) -> None:
        """Read the answers for which nobody is woken."""
        while self._quiet >= 0 and (data := received(self._quiet)):
            self._take(self._quiet_inbox.feed(data))

    def close(self, error: Exception) -> None:
        """Close the pipes of a child that is gone. An answer that it had sent counts; else its call gets the error."""
        if not self.is_lost:
            self.is_lost = True
            while data := received(self._answers):
                self._take(self._inbox.feed(data))
            self._let_go()
        if self._had_read_ahead:
            self.ended_ahead = error
        self.say_goodbye()
        if self._answers >= 0:
            os.close(self._answers)
            os.close(self._quiet)
            self._answers = self._quiet = -1
        if self._unread >= 0:
            os.close(self._unread)
            self._unread = -1
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
        self._answer = None

    def _read(self) -> None:
        data = received(self._answers)
        if data:
            self._take(self._inbox.feed(data))
            if self._early:
                self.look()
        elif data is not None:
            self._let_go()
            self._on_lost(self)

    def _waiting_bytes(self) -> int:
        """Return how many bytes of calls the child has not read."""
        return int.from_bytes(ioctl(self._unread, FIONREAD, bytes(4)), sys.byteorder)

    def _bytes_ahead(self) -> int:
        return sum(len(frame) for _, frame in self._next)

    def _take(self, frames: Sequence[Frame]) -> None:
        """Deal with answers in the order in which the child wrote them."""
        for kind, body in frames:
            number, seconds = TURN.unpack_from(body)
            self._early[number] = (kind, body[TURN.size :]), seconds
        while (found := self._early.pop(self._number, None)) is not None:
            self._number = self._number + 1 & NUMBERS
            frame, seconds = found
            answer, self._answer = self._answer, None
            on_answer, self._on_answer = self._on_answer, None
            if on_answer is not None:
                on_answer(frame[0], seconds)
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
        self.look()
        self._had_read_ahead = self.runs_next()
        self._loop.remove_reader(self._answers)
        self.say_goodbye()
