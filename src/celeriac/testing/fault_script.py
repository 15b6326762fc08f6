"""A script of faults: what happens at which point of a broker or result store, and when.

Rules: points have the names of the contracts' methods. The faults of a point happen in the order in which they were
set.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection
from typing import Literal, Self, TypeAlias, TypeVar, get_args

import msgspec

from celeriac.errors import BackendUnavailable, BrokerUnavailable, CeleriacError

R = TypeVar("R")

BrokerPoint: TypeAlias = Literal["publish", "subscribe", "take", "ack", "requeue", "park", "bury"]
ChordPoint: TypeAlias = Literal["open", "extend", "count", "collect", "renew", "finish"]
ResultPoint: TypeAlias = Literal["store", "load", "follow", "forget"]
BackendPoint: TypeAlias = ResultPoint | ChordPoint
Point: TypeAlias = BrokerPoint | BackendPoint
When: TypeAlias = Literal["before", "after"]

BROKER_POINTS: Collection[Point] = get_args(BrokerPoint)
POINTS: Collection[Point] = (*BROKER_POINTS, *get_args(ResultPoint), *get_args(ChordPoint))


class Pause:
    """Holds every call that comes to a point until ``resume``; then they go on, to the point's next fault if any."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        """Set when the first call has come to the point."""
        self.resumed = asyncio.Event()

    def resume(self) -> None:
        """Let the waiting calls go on, and hold no further ones."""
        self.resumed.set()

    async def hold(self) -> None:
        """Wait for ``resume``."""
        self.reached.set()
        await self.resumed.wait()


class _Fault(msgspec.Struct):
    """A fault of the next ``times`` calls; ``None`` is for ever."""

    happen: Callable[[], Awaitable[None]]
    times: int | None
    pause: Pause | None = None

    def spend(self) -> bool:
        """Count a call; return whether it was the last."""
        if self.pause is not None:
            return self.pause.resumed.is_set()
        if self.times is not None:
            self.times -= 1
        return self.times == 0


class Faults:
    """A script of faults; the wrappers that share it play it.

    Every method returns at once; its fault happens when a call comes to the point. ``passed`` counts the calls that
    came to each ``(point, when)``, those with a fault included. An unknown point raises ``ValueError``.
    """

    def __init__(self) -> None:
        self.passed: Counter[tuple[Point, When]] = Counter()
        self._script: dict[tuple[Point, When], deque[_Fault]] = {}
        self._news = asyncio.Event()

    def fail(
        self,
        point: Point,
        when: When = "before",
        *,
        times: int | None = 1,
        error: CeleriacError | type[CeleriacError] | None = None,
    ) -> Self:
        """Raise ``error`` at the next ``times`` calls, at every call where ``times`` is ``None``.

        :param when: ``after`` lets the effect land and loses the answer.
        :param error: "unavailable", of the broker or the result store, where not given.

        Raises ``ValueError`` for ``take`` with ``after``: the broker would hold messages that the worker never got.
        """
        if (point, when) == ("take", "after"):
            raise ValueError(
                "what was taken is held by the adapter: kill or pause after take, or fail before it"
            )
        raised = error or _unavailable(point)

        async def happen() -> None:
            raise raised

        return self._add(point, when, happen, times)

    def delay(self, point: Point, when: When = "before", *, seconds: float, times: int | None = 1) -> Self:
        """Make the next ``times`` calls wait ``seconds``."""
        return self._add(point, when, lambda: asyncio.sleep(seconds), times)

    def skip(self, point: Point, when: When = "before", *, times: int = 1) -> Self:
        """Let ``times`` calls pass before the next fault of the point."""
        return self._add(point, when, _nothing, times)

    def kill_at(self, point: Point, when: When = "before") -> Self:
        """Kill this process with SIGKILL at the next call: nothing is cleaned up, as in a power cut."""
        return self._add(point, when, _kill_this_process, 1)

    def pause(self, point: Point, when: When = "before") -> Pause:
        """Hold the calls at the point until ``resume`` of the returned pause, whose ``reached`` is set by the first."""
        pause = Pause()
        self._append(point, when, _Fault(pause.hold, None, pause))
        return pause

    def clear(self) -> None:
        """Forget what has not happened yet. Calls that are held go on being held."""
        self._script.clear()

    def awaits(self, point: Point, when: When) -> bool:
        """Return whether the script has a fault for this point."""
        return bool(self._script.get((point, when)))

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Return when ``holds`` returns true; it is asked now and whenever a call has come to a point."""
        self._news.clear()
        while not await holds():
            await self._news.wait()
            self._news.clear()

    async def at(self, point: Point, when: When) -> None:
        """Play what the script has for this point; for wrappers."""
        self.passed[point, when] += 1
        self._news.set()
        while script := self._script.get((point, when)):
            fault = script[0]
            if fault.spend():
                script.popleft()
            await fault.happen()
            if fault.pause is None:
                return

    async def around(self, point: Point, effect: Callable[[], Awaitable[R]]) -> R:
        """Await the effect between the two faults of its point; for wrappers."""
        await self.at(point, "before")
        value = await effect()
        await self.at(point, "after")
        return value

    def _add(
        self, point: Point, when: When, happen: Callable[[], Awaitable[None]], times: int | None
    ) -> Self:
        self._append(point, when, _Fault(happen, times))
        return self

    def _append(self, point: Point, when: When, fault: _Fault) -> None:
        if point not in POINTS or when not in get_args(When):
            raise ValueError(
                f"no call comes to {(point, when)}: the points are {', '.join(POINTS)}, each 'before' and 'after'"
            )
        self._script.setdefault((point, when), deque()).append(fault)


def _unavailable(point: Point) -> CeleriacError:
    kind = BrokerUnavailable if point in BROKER_POINTS else BackendUnavailable
    return kind(f"a test made {point} fail")


async def _nothing() -> None:
    return


async def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
