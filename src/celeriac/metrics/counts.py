"""The numbers that one process keeps of its tasks: plain integers, and what adds those of several processes.

Rules: counting takes no lock and makes no object for a task of a kind that was seen before. The number of kinds is
bounded, whatever names a sender makes up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

import msgspec

RUNTIME_BOUNDS = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
    300.0,
)
"""Seconds; up to 10 those of prometheus_client, and so of celery-exporter."""

WAIT_BOUNDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
PUBLISH_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

MOST_SERIES = 5000
"""The most pairs of task and queue that one process counts; further ones are counted as ``OTHER``."""

MOST_EXCEPTIONS = 100
"""The most classes of exceptions of one task that are counted apart."""

UNKNOWN, OTHER = "(unknown)", "(other)"
"""The name of tasks that nobody registered, and of what exceeds a bound."""


class Histogram(msgspec.Struct):
    """How many values were at most each of some bounds.

    :param counts: one for each bound, and one for what is above all of them; each value is counted once.
    """

    bounds: tuple[float, ...]
    counts: list[int] = []
    total: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Add another's counts, of the same bounds."""
        self.counts = [one + two for one, two in zip(self.counts, other.counts, strict=True)]
        self.total += other.total

    def buckets(self) -> list[tuple[str, float]]:
        """Return the sums up to each bound, as Prometheus wants them."""
        found, so_far = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found


class Series(msgspec.Struct):
    """What became of the tasks of one name from one queue.

    :param failed: by the class of the exception.
    """

    name: str
    queue: str
    received: int = 0
    started: int = 0
    succeeded: int = 0
    retried: int = 0
    revoked: int = 0
    rejected: int = 0
    failed: dict[str, int] = {}
    runtime: Histogram = msgspec.field(default_factory=lambda: Histogram(RUNTIME_BOUNDS))
    wait: Histogram = msgspec.field(default_factory=lambda: Histogram(WAIT_BOUNDS))

    def fail(self, exception: str) -> None:
        """Count a failure."""
        if exception not in self.failed and len(self.failed) >= MOST_EXCEPTIONS:
            exception = OTHER
        self.failed[exception] = self.failed.get(exception, 0) + 1

    def add(self, other: Series) -> None:
        """Add another's numbers."""
        self.received += other.received
        self.started += other.started
        self.succeeded += other.succeeded
        self.retried += other.retried
        self.revoked += other.revoked
        self.rejected += other.rejected
        for exception, count in other.failed.items():
            self.failed[exception] = self.failed.get(exception, 0) + count
        self.runtime.add(other.runtime)
        self.wait.add(other.wait)


class SeriesTable:
    """The series of one process, made as they are first counted.

    :param knows: whether a task of this name is registered; others are counted together.
    """

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self._series: dict[tuple[str, str], Series] = {}

    def of(self, name: str, queue: str) -> Series:
        """Return the series of a task from a queue."""
        found = self._series.get((name, queue))
        return self._make(name, queue) if found is None else found

    def all(self) -> list[Series]:
        """Return all series."""
        return list(self._series.values())

    def _make(self, name: str, queue: str) -> Series:
        if not self._knows(name):
            name = UNKNOWN
        if len(self._series) >= MOST_SERIES:
            name = queue = OTHER
        found = self._series.get((name, queue))
        if found is None:
            found = self._series[name, queue] = Series(name, queue)
        return found


class Published(msgspec.Struct):
    """How many messages of one task were sent to one queue."""

    name: str
    queue: str
    count: int = 0


def published_under(published: dict[tuple[str, str], Published], name: str, queue: str) -> Published:
    """Return the count of a task's messages on a queue; beyond ``MOST_SERIES`` that of all the others."""
    key = (name, queue)
    if key not in published and len(published) >= MOST_SERIES:
        key = (OTHER, OTHER)
    return published.setdefault(key, Published(*key))


class WorkerState(msgspec.Struct, frozen=True):
    """One worker now.

    :param running: tasks whose body runs.
    :param settling: tasks that have ended, and whose results are on their way.
    :param children: processes of its pool, 0 where it has none.
    :param taken: messages that it has taken and not settled; ``None`` where the broker tells that of all workers.
    """

    node: str
    queues: Sequence[str]
    slots: int
    running: int
    settling: int
    children: int = 0
    taken: int | None = None


class Snapshot(msgspec.Struct):
    """All numbers of one process, or the sum of several.

    :param host: the name of the machine.
    :param boot: names the process; another that takes its place has another name.
    :param deliveries: messages by what became of them.
    :param up: whether a worker runs there; ``None`` where there was none lately.
    :param active: tasks that run there.
    :param lag: seconds by which the event loop is late; ``None`` where nobody measures.
    :param schedule_lag: seconds by which the latest slot of a periodic task was late; ``None`` where none was ticked.
    :param broker_up: whether the broker answers; ``None`` where nobody asks.
    :param backend_up: the same of the result store.
    :param reconnects: how often a worker took messages again after an outage of its broker.
    :param events_sent: events of workers that reached a monitor, and ``events_dropped`` those that were dropped.
    :param leases_renewed: how often the leases of taken messages were renewed; ``None`` where that is not needed.
    """

    host: str
    boot: str = ""
    series: list[Series] = []
    deliveries: dict[str, int] = {}
    published: list[Published] = []
    publishing: Histogram = msgspec.field(default_factory=lambda: Histogram(PUBLISH_BOUNDS))
    workers: list[WorkerState] = []
    up: bool | None = None
    active: int | None = None
    lag: float | None = None
    broker_up: bool | None = None
    schedule_lag: float | None = None
    backend_up: bool | None = None
    reconnects: int = 0
    events_sent: int = 0
    events_dropped: int = 0
    leases_renewed: int | None = None


def summed(snapshots: Iterable[Snapshot], host: str) -> Snapshot:
    """Return the sum of several processes; of the loops the latest counts, and of brokers one that does not answer."""
    total = Snapshot(host)
    series: dict[tuple[str, str], Series] = {}
    published: dict[tuple[str, str], Published] = {}
    for one in snapshots:
        for other in one.series:
            series.setdefault((other.name, other.queue), Series(other.name, other.queue)).add(other)
        for sent in one.published:
            published.setdefault(
                (sent.name, sent.queue), Published(sent.name, sent.queue)
            ).count += sent.count
        for outcome, count in one.deliveries.items():
            total.deliveries[outcome] = total.deliveries.get(outcome, 0) + count
        total.publishing.add(one.publishing)
        total.workers += one.workers
        if one.up is not None:
            total.up = one.up or total.up
        if one.active is not None:
            total.active = one.active + (total.active or 0)
        if one.lag is not None:
            total.lag = max(one.lag, total.lag or 0.0)
        if one.schedule_lag is not None:
            total.schedule_lag = max(one.schedule_lag, total.schedule_lag or 0.0)
        total.broker_up = _both(total.broker_up, one.broker_up)
        total.backend_up = _both(total.backend_up, one.backend_up)
        total.reconnects += one.reconnects
        total.events_sent += one.events_sent
        total.events_dropped += one.events_dropped
        if one.leases_renewed is not None:
            total.leases_renewed = one.leases_renewed + (total.leases_renewed or 0)
    total.series, total.published = list(series.values()), list(published.values())
    return total


def _both(one: bool | None, other: bool | None) -> bool | None:
    """Return whether both answer; of one that nobody asked nothing is known."""
    return other if one is None else one and other is not False
