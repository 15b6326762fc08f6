"""Wakes a subscription when something changes in its queues, without polling.

Rules: the server remembers which keys a connection has read, and pushes a note when any client writes one of them
(``CLIENT TRACKING``, Redis "Server-assisted client side caching"). Reading and remembering are one step, so no change
is missed. When a connection is cut the server forgets its keys without a note: a wait must read again now and then,
which also shows whether the connection is still open.

Where the server refuses tracking, the wait polls with growing pauses, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError
from celeriac.retry import Backoff
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.pushes import Pushes, PushListener

_log = logging.getLogger("celeriac.broker.redis")

_FIRST_POLL = 0.01
_LAST_POLL = 1.0
_ALARM_PAUSE = 0.1
"""Seconds for which changes of the due times alone are collected before they end a wait."""


class Doorbell:
    """Ends a subscription's wait when one of its keys changes.

    :param pushes: the connection that the notes come over.
    :param alarm: the set of due times, whose changes may be noticed a little later than those of the queues.
    :param on_ring: called when it rings, and when the line is cut.
    :ivar polls: whether it ends each wait after a pause, since the server does not push.
    """

    def __init__(self, link: Link, pushes: Pushes, alarm: str, on_ring: Callable[[], None]) -> None:
        self._link = link
        self._pushes = pushes
        self._alarm = alarm.encode()
        self._on_ring = on_ring
        self._rung = asyncio.Event()
        self._listener = PushListener(self._note, self._lost, changes=True)
        self._listens = False
        self._failure: CeleriacError | None = None
        self.polls = False
        self._pauses = Backoff(_FIRST_POLL, _LAST_POLL)

    def ring(self) -> None:
        """End the wait."""
        self._rung.set()
        self._on_ring()

    @property
    def is_armed(self) -> bool:
        """Whether it has not rung since it was armed, and can ring."""
        return self._listens and not self._rung.is_set()

    async def arm(self, keys: Sequence[str]) -> float:
        """Return the seconds until there is something: 0 when one of the lists, if any, has it already.

        A change of any list, or of the due times, will ring. Raises ``BrokerUnavailable`` if the line was cut since:
        a cut that came just when a wait had ended is an outage too.
        """
        if self._failure is not None:
            await self._raise_failure()
        self._rung.clear()
        if self.polls:
            return math.inf
        try:
            if not self._listens:
                await self._pushes.join(self._listener)
                self._listens = True
            questions = [("EXISTS", *keys)] if keys else []
            *counts, head, time = await self._pushes.look(
                [*questions, ("ZRANGE", self._alarm, 0, 0, "WITHSCORES"), ("TIME",)]
            )
        except BrokerUnavailable:
            await self.close()
            raise
        except BrokerError as error:
            await self.close()
            self._fall_back(error)
            return math.inf
        for answer in (*counts, head, time):
            if isinstance(answer, Exception):
                await self.close()
                raise answer
        if any(counts):
            return 0.0
        return _due(head) - int(time[0]) - int(time[1]) / 1e6 if head else math.inf

    async def wait(self, timeout: float) -> bool:
        """Return whether it rang within ``timeout`` seconds, or it is time for a poll.

        Raises ``BrokerUnavailable`` when the line is cut.
        """
        if self.polls:
            timeout = min(timeout, self._pauses.pause())
        try:
            async with asyncio.timeout(timeout):
                await self._rung.wait()
        except TimeoutError:
            return self.polls
        if self._failure is not None:
            await self._raise_failure()
        return True

    def found(self) -> None:
        """Note that messages were found, so that polling starts again with short pauses."""
        self._pauses.reset()

    async def check(self) -> None:
        """Ask whether the notes still arrive; called now and then. Raises ``BrokerUnavailable`` when they do not."""
        if self._listens:
            try:
                await self._pushes.check()
            except BrokerUnavailable:
                await self.close()
                raise

    async def close(self) -> None:
        """Listen no more. Idempotent."""
        self._listens = False
        await self._pushes.leave(self._listener)
        self._failure = None

    async def _raise_failure(self) -> None:
        failure = self._failure
        assert failure is not None
        await self.close()
        raise failure

    def _note(self, channel: bytes, keys: object) -> None:
        if keys == [self._alarm]:
            asyncio.get_running_loop().call_later(_ALARM_PAUSE, self.ring)
        else:
            self.ring()

    def _lost(self, error: CeleriacError) -> None:
        self._failure = error
        self.ring()

    def _fall_back(self, error: BrokerError) -> None:
        self.polls = True
        _log.warning(
            "queues are polled, up to every %g s, since the server does not push: %s", _LAST_POLL, error
        )


def _due(head: Sequence[Any]) -> float:
    """Return the score of the first member: protocol 3 pairs them, 2 does not."""
    return float(head[0][1] if isinstance(head[0], list) else head[1])
