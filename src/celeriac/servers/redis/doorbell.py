"""Wakes a subscription when something changes in its queues, without polling.

Rules: the server remembers which keys were looked at and pushes one note when any is written, by any client (``CLIENT
TRACKING``, Redis "Server-assisted client side caching"); looking and remembering are one step, so nothing is missed.
A server forgets what a connection looked at when that connection ends, and tells nobody: who waits must look again now
and then, which shows whether the connection stands.
Where the server refuses that, the wait is a poll with backoff, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any

from celeriac.errors import BrokerError, BrokerUnavailable, CeleriacError
from celeriac.servers.redis.link import Line, Link
from celeriac.servers.redis.pushes import Ear, Pushes

_log = logging.getLogger("celeriac.broker.redis")

_CHANNEL = "__redis__:invalidate"
_LISTENER_GONE = "redirect to does not exist"
"""What the server says of tracking for a connection that was cut a moment ago: it is no refusal to push."""

_FIRST_POLL = 0.01
_LAST_POLL = 1.0
_ALARM_PAUSE = 0.1
"""Seconds in which changes of the due times alone are collected before they wake anybody."""


class Doorbell:
    """Waits for a subscription.

    :param pushes: the connection that the notes come over.
    :param alarm: the set of due times, whose changes may be noticed a little later than those of the queues.
    """

    def __init__(self, link: Link, pushes: Pushes, alarm: str) -> None:
        self._link = link
        self._pushes = pushes
        self._alarm = alarm.encode()
        self._rung = asyncio.Event()
        self._eye: Line | None = None
        self._ear = Ear(self._note, self._lost, (_CHANNEL,))
        self._failure: CeleriacError | None = None
        self._polling = False
        self._pause = _FIRST_POLL

    def ring(self) -> None:
        """End the wait."""
        self._rung.set()

    async def arm(self, keys: Sequence[str]) -> float:
        """Return the seconds until there is something: 0 when one of the lists has it already.

        A change of any list, or of the due times, will ring.
        """
        if self._failure is not None:
            await self.close()
        self._rung.clear()
        if self._polling:
            return math.inf
        try:
            counted, head, time = await self._look(keys)
        except BrokerUnavailable:
            await self.close()
            raise
        except BrokerError as error:
            await self.close()
            if _LISTENER_GONE in str(error):
                raise BrokerUnavailable(
                    f"{self._link.target} is not available: a connection was cut: {error}"
                ) from error
            self._fall_back(error)
            return math.inf
        for answer in (counted, head, time):
            if isinstance(answer, Exception):
                await self.close()
                raise answer
        if counted:
            return 0.0
        return float(head[1]) - int(time[0]) - int(time[1]) / 1e6 if head else math.inf

    async def _look(self, keys: Sequence[str]) -> Sequence[Any]:
        """Ask what there is; once more over new lines where the old ones were cut, as idle ones may be."""
        questions = [("EXISTS", *keys), ("ZRANGE", self._alarm, 0, 0, "WITHSCORES"), ("TIME",)]
        if self._eye is not None:
            try:
                return await self._eye.calls(questions)
            except BrokerUnavailable as error:
                _log.debug("the connection that waits was lost while it was idle; making it anew: %s", error)
                await self.close()
        eye = await self._open()
        return await eye.calls(questions)

    async def wait(self, timeout: float) -> bool:
        """Return whether it rang within ``timeout`` seconds, or it is time for a poll.

        Raises ``BrokerUnavailable`` when the line is cut.
        """
        if self._polling:
            timeout = min(timeout, self._pause)
            self._pause = min(self._pause * 2, _LAST_POLL)
        try:
            async with asyncio.timeout(timeout):
                await self._rung.wait()
        except TimeoutError:
            return self._polling
        if self._failure is not None:
            failure = self._failure
            await self.close()
            raise failure
        return True

    def found(self) -> None:
        """Poll quickly again: there was something."""
        self._pause = _FIRST_POLL

    async def check(self) -> None:
        """Ask whether the notes still arrive; called now and then. Raises ``BrokerUnavailable`` when they do not."""
        if self._eye is not None:
            try:
                await self._pushes.check()
            except BrokerUnavailable:
                await self.close()
                raise

    async def close(self) -> None:
        """Drop the connection that looks, and listen no more. Idempotent."""
        eye, self._eye = self._eye, None
        await self._pushes.leave(self._ear)
        self._failure = None
        if eye is not None:
            await eye.close()

    async def _open(self) -> Line:
        if self._eye is None:
            await self._pushes.join(self._ear)
            eye = await self._link.open_line()
            try:
                await eye.call("CLIENT", "TRACKING", "ON", "REDIRECT", self._pushes.number)
            except BaseException:
                await eye.close()
                raise
            self._eye = eye
        return self._eye

    def _note(self, channel: bytes, keys: object) -> None:
        if keys == [self._alarm]:
            asyncio.get_running_loop().call_later(_ALARM_PAUSE, self._rung.set)
        else:
            self._rung.set()

    def _lost(self, error: CeleriacError) -> None:
        self._failure = error
        self._rung.set()

    def _fall_back(self, error: BrokerError) -> None:
        self._polling = True
        _log.warning(
            "queues are polled, up to every %g s, since the server does not push: %s", _LAST_POLL, error
        )
