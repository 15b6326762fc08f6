"""The metrics of one process: it counts for an app, its workers, and what it sends."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from celeriac.client.send_listeners import SendListener
from celeriac.clock import Clock
from celeriac.contracts.broker import Broker
from celeriac.metrics.counts import SeriesTable, Snapshot, WorkerState
from celeriac.metrics.following import WorkerFollowing
from celeriac.metrics.listening import SendCounting, TaskCounting
from celeriac.worker.attachments import Working
from celeriac.worker.builtin import BUILT_IN
from celeriac.worker.listeners import Listener


class ProcessMetrics:
    """Counts for one app in this process.

    :param tasks: the app's tasks by name.
    :param workers: the workers that run in this process; the list is looked at when a snapshot is made.
    :param broker: returns the app's broker, in the event loop of a worker.
    :param host: the label ``hostname``; the machine's name where it is not given.
    :ivar lag: returns the seconds by which the event loop is late, or ``None``.
    :ivar broker_up: returns whether the broker answers, or ``None``.
    :ivar backend_up: the same of the result store.
    :ivar schedule_lag: returns the seconds by which the latest slot of a periodic task was late, or ``None``.
    """

    def __init__(
        self,
        tasks: Mapping[str, Any],
        clock: Clock,
        workers: Sequence[Working],
        broker: Callable[[], Broker],
        host: str | None = None,
    ) -> None:
        self._table = SeriesTable(lambda name: name in tasks or name in BUILT_IN)
        self._counting = TaskCounting(self._table, clock.now)
        self._sending = SendCounting()
        self._following = WorkerFollowing(broker)
        self._workers = workers
        self._host = host or socket.gethostname()
        self._boot = f"{os.getpid()}.{time.time_ns()}"
        self.lag: Callable[[], float | None] = lambda: None
        self.broker_up: Callable[[], bool | None] = lambda: None
        self.backend_up: Callable[[], bool | None] = lambda: None
        self.schedule_lag: Callable[[], float | None] = lambda: None

    @property
    def listeners(self) -> Sequence[Listener | SendListener]:
        """What has to hear of the app."""
        return (self._counting, self._following, self._sending)

    def queues(self) -> Sequence[str]:
        """Return the queues that the workers of this process take from."""
        return sorted({queue for worker in self._workers for queue in worker.queues})

    def snapshot(self) -> Snapshot:
        """Return all numbers; any thread may call this."""
        states = [state for worker in list(self._workers) if (state := self._state(worker)) is not None]
        sent, dropped = self._following.events
        return Snapshot(
            self._host,
            self._boot,
            self._table.all(),
            dict(self._counting.deliveries),
            self._sending.published(),
            self._sending.seconds,
            states,
            True if states else None,
            sum(state.running for state in states) if states else None,
            self.lag(),
            self.broker_up(),
            self.schedule_lag(),
            self.backend_up(),
            self._following.reconnects,
            sent,
            dropped,
            self._following.leases_renewed,
        )

    def _state(self, worker: Working) -> WorkerState | None:
        slots = worker.slots
        if slots is None:
            return None
        children = len(self._counting.children.get(worker.name, ()))
        taken = None if self._following.tells_taken else slots.running + slots.settling
        return WorkerState(
            worker.name, worker.queues, slots.total, slots.running, slots.settling, children, taken
        )
