"""Follows the workers of one process: their outages, events and leases.

Rules: a counter never falls, so what a worker counted that has ended is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from celeriac.contracts.broker import Broker, Leasing, Surveyed
from celeriac.worker.listeners import Listener, Made


class WorkerFollowing(Listener):
    """Counts what workers tell of themselves.

    :param broker: returns the broker, in the event loop of a worker.
    :ivar reconnects: how often a worker took messages again after an outage of its broker.
    :ivar tells_taken: whether the broker tells how many messages workers have taken.
    """

    def __init__(self, broker: Callable[[], Broker]) -> None:
        self._broker = broker
        self._made: dict[str, Made] = {}
        self._leasing: dict[str, tuple[Leasing, int]] = {}
        self._sent = self._dropped = self._renewed = 0
        self._has_leases = False
        self.reconnects = 0
        self.tells_taken = True

    @property
    def events(self) -> tuple[int, int]:
        """How many events reached a monitor, and how many were dropped."""
        counts = list(self._event_counts())
        sent, dropped = sum(sent for sent, _ in counts), sum(dropped for _, dropped in counts)
        return self._sent + sent, self._dropped + dropped

    @property
    def leases_renewed(self) -> int | None:
        """How often leases were renewed; ``None`` where the broker needs none."""
        if not self._has_leases:
            return None
        return self._renewed + sum(
            broker.leases_renewed - before for broker, before in list(self._leasing.values())
        )

    def worker_made(self, worker: Made) -> None:
        self.worker_stopped(worker.name)
        self._made[worker.name] = worker

    def worker_ready(self, node: str) -> None:
        broker = self._broker()
        self.tells_taken = isinstance(broker, Surveyed) and broker.tells_taken
        if isinstance(broker, Leasing):
            self._has_leases = True
            if all(known is not broker for known, _ in self._leasing.values()):
                self._leasing[node] = (broker, broker.leases_renewed)

    def worker_reconnected(self, node: str) -> None:
        self.reconnects += 1

    def worker_stopped(self, node: str) -> None:
        worker, leasing = self._made.pop(node, None), self._leasing.pop(node, None)
        if worker is not None and worker.events is not None:
            self._sent += worker.events.sent
            self._dropped += worker.events.dropped
        if leasing is not None:
            self._renewed += leasing[0].leases_renewed - leasing[1]

    def _event_counts(self) -> Iterator[tuple[int, int]]:
        for worker in list(self._made.values()):
            if (events := worker.events) is not None:
                yield events.sent, events.dropped
