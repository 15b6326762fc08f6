"""The connection over which Redis pushes messages and notes of changed keys.

Rules: a broker has one such connection for all its listeners; the first listener opens it, the last closes it. A
subscription counts once the server has confirmed it. When the connection is cut, each listener gets an error, and must
join again. With protocol 3 the same connection also reads the keys whose changes are to be noted. A server that refuses
protocol 3 needs another connection for that (``Eye``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from celeriac.errors import CeleriacError
from celeriac.servers.redis.link import Line, Link
from celeriac.servers.redis.tracking import TrackingLine

CHANGES = "__redis__:invalidate"
"""The channel on which the server names changed keys in protocol 2."""

_SILENCE = 20.0
"""Seconds without a word after which the connection is asked whether it stands."""


class PushListener(msgspec.Struct, eq=False):
    """One listener: its channels, and the functions that it is called by.

    :param hear: called with the name of a channel and what came there.
    :param lost: called once when the connection was cut: nothing arrives from then on.
    :param patterns: channels by glob pattern.
    :param changes: whether to hear of changes too: the channel is ``CHANGES`` then, and a list of keys comes, or
        ``None`` where every key changed. The keys are those of every ``Pushes.look``.
    """

    hear: Callable[[bytes, Any], None]
    lost: Callable[[CeleriacError], None]
    channels: Sequence[str] = ()
    patterns: Sequence[str] = ()
    changes: bool = False

    def wants(self, kind: bytes, name: bytes) -> bool:
        """Whether this listener subscribed to the channel, or the pattern, of that name."""
        return name.decode(errors="replace") in (self.patterns if kind == b"pmessage" else self.channels)


class _Awaited(msgspec.Struct, eq=False):
    """A confirmation of one subscription, or the answers to some commands, that the server has yet to send.

    :param missing: how many confirmations or answers.
    """

    missing: int
    future: asyncio.Future[list[Any]]
    answers: list[Any] = []

    def take(self, *answer: Any) -> bool:
        """Note a confirmation or an answer; return whether it was the last."""
        self.missing -= 1
        self.answers += answer
        if self.missing == 0 and not self.future.done():
            self.future.set_result(self.answers)
        return self.missing == 0

    def fail(self, error: CeleriacError) -> None:
        """Raise the error in the task that waits."""
        if not self.future.done():
            self.future.set_exception(error)


class _Subscription(_Awaited, eq=False):
    """A subscription: the server confirms it by pushes, and answers only to refuse it."""


class Pushes:
    """The subscribed connection of one link.

    :ivar protocol: Redis's, 3 unless the server refused it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop: asyncio.AbstractEventLoop
        self._listeners: set[PushListener] = set()
        self._line: Line | None = None
        self.protocol = 3
        self._number: int | CeleriacError = 0
        self._looks = False
        self._looking = TrackingLine(link)
        self._turn = asyncio.Lock()
        self._awaited: deque[_Awaited] = deque()
        self._heard_at = 0.0
        self._asked_at: float | None = None

    async def join(self, listener: PushListener) -> None:
        """Pass pushes to this listener. Raises the link's errors, after which none are passed."""
        async with self._turn:
            line = self._line or await self._open()
            self._listeners.add(listener)
            try:
                async with self._link.deadline():
                    await self._subscribe(line, listener)
            except self._link.unavailable as error:
                self._lose(line, error)
                raise
            except BaseException:
                await self._forget(listener)
                raise

    async def leave(self, listener: PushListener) -> None:
        """Let this listener hear no more. Idempotent."""
        async with self._turn:
            await self._forget(listener)

    async def look(self, questions: Sequence[Sequence[Any]]) -> list[Any]:
        """Return the answers to commands that read; listeners get one notice when what they read changes.

        Only a listener that has joined may call this. A refused command's answer is the link's error. Raises the link's
        errors if the server does not push changes, and if the connection was cut.
        """
        if self.protocol == 2:
            if isinstance(self._number, CeleriacError):
                raise self._number
            return await self._looking.look(self._number, questions)
        if self._looks:
            return await self._ask(questions)
        tracked, *answers = await self._ask([("CLIENT", "TRACKING", "ON"), *questions])
        if isinstance(tracked, CeleriacError):
            raise tracked
        self._looks = True
        return answers

    async def check(self) -> None:
        """Ask the server for a sign of life after a silence; call this now and then.

        Raises the link's error if the answer to the last such question never came.
        """
        line = self._line
        if line is None or (now := self._loop.time()) - self._heard_at < _SILENCE:
            return
        if self._asked_at is not None and now - self._asked_at > self._link.timeout:
            error = self._away("its pushes do not arrive any more")
            self._lose(line, error)
            raise error
        if self._asked_at is None:
            self._asked_at = now
            async with self._turn:
                if line.protocol == 3:
                    self._await(_Awaited, 1)
                await line.send("PING")

    async def close(self) -> None:
        """Close the connection; its listeners get an error. Idempotent."""
        if (line := self._line) is not None:
            self._lose(line, self._away("its broker was closed"))
            await line.close()
        await self._looking.close()

    async def _open(self) -> Line:
        line = await self._open_line()
        self._loop = (
            asyncio.get_running_loop()
        )  # asked for once: up to Python 3.11 each question is a system call
        self._line, self._looks = line, False
        self._heard_at, self._asked_at = self._loop.time(), None
        line.listen(partial(self._take, line), partial(self._lose, line))
        return line

    async def _open_line(self) -> Line:
        line = await self._link.open_push_line(self.protocol)
        self.protocol = line.protocol
        if line.protocol == 3:
            return line
        try:
            self._number = await line.call("CLIENT", "ID")
        except self._link.unavailable:
            await line.close()
            raise
        except self._link.refused as error:
            self._number = error
        return line

    async def _subscribe(self, line: Line, listener: PushListener) -> None:
        changes = [CHANGES] if listener.changes and line.protocol == 2 else []
        commands = [("SUBSCRIBE", [*listener.channels, *changes]), ("PSUBSCRIBE", listener.patterns)]
        futures = []
        for command, names in commands:
            if names:
                futures.append(self._await(_Subscription, len(names)))
                await line.send(command, *names)
        await asyncio.gather(*futures)

    async def _ask(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        line = self._line
        if line is None:
            raise self._away("the connection was cut")
        late = line.in_time(partial(self._lose, line))
        try:
            answers = self._await(_Awaited, len(commands))
            await line.send_all(commands)
            return await answers
        except self._link.unavailable as error:
            self._lose(line, error)
            raise
        finally:
            late.cancel()

    def _await(self, kind: type[_Awaited], missing: int) -> asyncio.Future[list[Any]]:
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        future.add_done_callback(_note)
        self._awaited.append(kind(missing, future))
        return future

    async def _forget(self, listener: PushListener) -> None:
        if listener not in self._listeners:
            return
        self._listeners.discard(listener)
        if not self._listeners:
            await self._hang_up()
            return
        for command, mine, others in (
            (
                "UNSUBSCRIBE",
                listener.channels,
                {name for other in self._listeners for name in other.channels},
            ),
            (
                "PUNSUBSCRIBE",
                listener.patterns,
                {name for other in self._listeners for name in other.patterns},
            ),
        ):
            gone = [name for name in mine if name not in others]
            if gone and self._line is not None:
                try:
                    await self._line.send(command, *gone)
                except CeleriacError as error:
                    self._lose(self._line, error)

    def _take(self, line: Line, is_push: bool, news: Any) -> None:
        if line is not self._line:
            return
        self._heard_at, self._asked_at = self._loop.time(), None
        if is_push:
            self._hear(*news)
        else:
            self._answer(news)

    def _hear(self, kind: bytes, name: Any, *rest: Any) -> None:
        if kind in (b"subscribe", b"psubscribe"):
            if self._awaited and self._awaited[0].take():
                self._awaited.popleft()
        elif kind == b"invalidate":
            self._tell_of_changes(name)
        elif kind == b"message" and name == CHANGES.encode():
            self._tell_of_changes(*rest)
        elif kind in (b"message", b"pmessage"):
            *channel, content = rest
            for listener in tuple(self._listeners):
                if listener.wants(kind, name):
                    listener.hear(channel[0] if channel else name, content)

    def _tell_of_changes(self, keys: Sequence[bytes] | None) -> None:
        for listener in tuple(self._listeners):
            if listener.changes:
                listener.hear(CHANGES.encode(), keys)

    def _answer(self, answer: Any) -> None:
        if not self._awaited:
            return
        first = self._awaited[0]
        if not isinstance(first, _Subscription):
            if first.take(answer):
                self._awaited.popleft()
        elif isinstance(answer, CeleriacError):
            self._awaited.popleft().fail(answer)

    def _away(self, why: str) -> CeleriacError:
        return self._link.unavailable(f"{self._link.target} is not available: {why}")

    def _lose(self, line: Line, error: CeleriacError) -> None:
        line.cut()
        if line is not self._line:
            return
        self._line = None
        awaited, self._awaited = self._awaited, deque()
        for each in awaited:
            each.fail(error)
        listeners, self._listeners = self._listeners, set()
        for listener in listeners:
            listener.lost(error)

    async def _hang_up(self) -> None:
        line, self._line = self._line, None
        awaited, self._awaited = self._awaited, deque()
        for each in awaited:
            each.fail(self._away("nobody listens any more"))
        if line is not None:
            await line.close()
        await self._looking.close()


def _note(future: asyncio.Future[list[Any]]) -> None:
    """Retrieve a failure, since the task that waited for it may have been cancelled."""
    if not future.cancelled():
        future.exception()
