"""Whether a worker lives, is ready, and has begun: facts that the event loop notes, and verdicts on them.

Rules: any thread may ask for a verdict. Whether a worker lives never depends on its broker: a restart mends no broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic

import msgspec

from celeriac.broker import Broker
from celeriac.probes.asking import Asking
from celeriac.probes.pages import Page, Pages
from celeriac.quantities import SECONDS, require
from celeriac.worker.listeners import Listener

LIVE_AFTER = 10.0
"""Seconds without a beat of the event loop after which a worker counts as stuck."""

READY_WITHIN = 8.0
"""Seconds without an answer of the broker after which a worker is not ready: it is told within 10 s of an outage."""

BEAT = 0.5
"""Seconds between two beats of the event loop."""

ASK, ASK_AGAIN = 1.0, 0.5
"""Seconds between two questions to the broker, while it answers and while it does not."""


class Verdict(msgspec.Struct, frozen=True):
    """Whether a thing is so, and in words why, or why not."""

    good: bool
    text: str

    def page(self) -> Page:
        """Return it as the answer to a probe: 200 or 503."""
        return Page(200 if self.good else 503, f"{self.text}\n".encode())


class Pulse:
    """The beats of an event loop, which come late where something holds the loop up.

    :param on_beat: called at each beat.
    """

    def __init__(self, on_beat: Callable[[], None] | None = None) -> None:
        self._on_beat = on_beat
        self.last: float | None = None
        self._late = 0.0

    @property
    def age(self) -> float | None:
        """Seconds since the last beat, ``None`` before the first."""
        return None if self.last is None else max(0.0, monotonic() - self.last)

    @property
    def lag(self) -> float:
        """Seconds by which the latest beat came late, or is late now."""
        return 0.0 if self.last is None else max(self._late, monotonic() - self.last - BEAT, 0.0)

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            now = monotonic()
            self._late = 0.0 if self.last is None else max(0.0, now - self.last - BEAT)
            self.last = now
            if self._on_beat is not None:
                self._on_beat()
            await asyncio.sleep(BEAT)


class Health:
    """The health of one worker in this process.

    :param live_after: seconds without a beat after which the worker counts as stuck.
    :param ready_within: seconds without an answer of the broker after which the worker is not ready.
    :ivar queues: returns the queues that the worker takes from now.
    :ivar is_dead: whether the worker takes no more, without having been asked to stop.
    :ivar is_dead_text: that in words, and ``not_yet`` what is so until it is ready.
    """

    def __init__(
        self, pulse: Pulse, live_after: float = LIVE_AFTER, ready_within: float = READY_WITHIN
    ) -> None:
        require("live_after", live_after, SECONDS)
        self._ready_within = ready_within
        self.pulse = pulse
        self._live_after = live_after
        self.queues: Callable[[], Sequence[str]] | None = None
        self.is_dead: Callable[[], bool] = lambda: False
        self.is_dead_text = "the worker takes no more messages"
        self.not_yet = "the worker does not hold its queues yet"
        self._broker = Asking(ASK, ASK_AGAIN)
        self._began = False
        self._holds = False
        self._stopping = False
        self._ended = False

    def live(self) -> Verdict:
        """Whether the process should go on as it is; if not, a restart helps."""
        age = self.pulse.age
        if self._ended:
            return Verdict(True, "stopped")
        if age is None:
            return Verdict(True, "starting")
        if age > self._live_after:
            return Verdict(False, f"the event loop is stuck for {age:.1f} s")
        if not self._stopping and self.is_dead():
            return Verdict(False, self.is_dead_text)
        return Verdict(True, f"the event loop's last beat was {age:.1f} s ago")

    def ready(self) -> Verdict:
        """Whether the worker takes tasks now."""
        if self._stopping:
            return Verdict(False, "stopping")
        if not self._holds:
            return Verdict(False, self.not_yet)
        if self.queues is not None and not self.queues():
            return Verdict(False, "the worker takes from no queue")
        answered, why = self._broker.answered, self._broker.complaint
        age = None if answered is None else monotonic() - answered
        if age is None or age > self._ready_within:
            since = "has not answered yet" if age is None else f"did not answer for {age:.1f} s"
            return Verdict(False, f"the broker {since}{why and f': {why}'}")
        return Verdict(True, f"the broker answered {age:.1f} s ago")

    def started(self) -> Verdict:
        """Whether the worker was ready once."""
        return Verdict(True, "started") if self._began else Verdict(False, self.ready().text)

    def pages(self) -> Pages:
        """Return what answers the probes."""
        return {
            "/livez": lambda: self.live().page(),
            "/readyz": lambda: self.ready().page(),
            "/startupz": lambda: self.started().page(),
        }

    @property
    def broker_answers(self) -> bool:
        """Whether the broker answered the latest question."""
        return self._broker.answers is True

    def note_ready(self) -> None:
        """Note that the worker holds its queues, or that whatever else this is has begun."""
        self._holds = self._began = True

    def note_stopping(self) -> None:
        """Note that the worker was asked to stop."""
        self._stopping = True

    async def lifespan(self, broker: Callable[[], Broker]) -> AsyncIterator[None]:
        """Beat, and ask the broker, for as long as a worker lives: the lifespan of this health."""
        running = [
            asyncio.create_task(self.pulse.run(), name="celeriac-pulse"),
            asyncio.create_task(self._broker.run(broker().ping), name="celeriac-broker-probe"),
        ]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            self._ended = True


class HealthListener(Listener):
    """Notes what a worker tells of itself in its health."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def worker_ready(self, node: str) -> None:
        self._health.note_ready()

    def worker_stopping(self, node: str) -> None:
        self._health.note_stopping()
