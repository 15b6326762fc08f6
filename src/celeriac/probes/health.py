"""Whether a worker lives, is ready, and has begun: the facts that its event loop notes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from time import monotonic

from celeriac.contracts.broker import Broker
from celeriac.probes.asking import Asking
from celeriac.probes.facts import Facts, Verdict
from celeriac.quantities import SECONDS, require
from celeriac.worker.listeners import Listener

LIVE_AFTER = 10.0
"""Seconds without a beat of the event loop after which a worker counts as stuck."""

READY_WITHIN = 8.0
"""Seconds without an answer of the broker after which a worker is not ready: an outage shows within 10 s."""

BEAT = 0.5
"""Seconds between two beats of the event loop."""

ASK, ASK_AGAIN = 1.0, 0.5
"""Seconds between two questions to the broker, while it answers and while it does not."""


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
    :ivar on_change: called when a fact has changed that is not looked at with each beat.
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
        self.on_change: Callable[[], None] = lambda: None
        self._broker = Asking(ASK, ASK_AGAIN)
        self._began = False
        self._holds = False
        self._stopping = False
        self._ended = False

    def facts(self) -> Facts:
        """Return what is known now."""
        return Facts(
            os.getpid(),
            self._live_after,
            self._ready_within,
            self.not_yet,
            self.pulse.last,
            self.is_dead_text if self.is_dead() else "",
            self.queues is None or bool(self.queues()),
            self._broker.answered,
            self._broker.complaint,
            self._began,
            self._holds,
            self._stopping,
            self._ended,
        )

    def live(self) -> Verdict:
        """Whether the process should go on as it is; if not, a restart helps."""
        return self.facts().live(monotonic())

    def ready(self) -> Verdict:
        """Whether the worker takes tasks now."""
        return self.facts().ready(monotonic())

    def started(self) -> Verdict:
        """Whether the worker was ready once."""
        return self.facts().started(monotonic())

    @property
    def broker_answers(self) -> bool:
        """Whether the broker answered the latest question."""
        return self._broker.answers is True

    def note_ready(self) -> None:
        """Note that the worker holds its queues, or that whatever else this is has begun."""
        self._holds = self._began = True
        self.on_change()

    def note_stopping(self) -> None:
        """Note that the worker was asked to stop."""
        self._stopping = True
        self.on_change()

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
            self.on_change()


class HealthListener(Listener):
    """Puts the events of a worker into its health."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def worker_ready(self, node: str) -> None:
        self._health.note_ready()

    def worker_stopping(self, node: str) -> None:
        self._health.note_stopping()
