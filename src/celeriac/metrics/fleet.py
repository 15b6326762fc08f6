"""The numbers of a whole fleet, celeriac's and Celery's, counted from its events.

Rules: an event of a task says its id alone; its name and its queue are remembered from the event of its sending or
its receipt, for as many tasks as ``REMEMBERED``. What an event says is not believed to be of the right kind.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from celeriac.metrics.counts import (
    OTHER,
    UNKNOWN,
    Published,
    Series,
    SeriesTable,
    Snapshot,
    WorkerState,
    published_under,
)
from celeriac.quantities import LONGEST, is_number
from celeriac.wire.event import Event
from celeriac.wire.names import is_text
from celeriac.wire.waiting import eta_of

REMEMBERED = 100_000
"""Tasks of which name and queue are remembered."""

MOST_HOSTS = 1000
"""The most hosts that are counted apart."""

MOST_NODES, MOST_QUEUES = 1000, 1000
"""The most workers of a host, and queues of a worker, that are reported."""

_COUNT = 2**53

SILENT = 60.0
"""Seconds without a word after which a worker counts as down."""

FORGOTTEN = 600.0
"""Seconds after which a worker that is down is reported no more."""


class Known(msgspec.Struct):
    """What is remembered of one task.

    :param sent: when it was sent, or was due; 0 where nobody told.
    """

    name: str
    queue: str
    sent: float = 0.0


class Node(msgspec.Struct):
    """One worker.

    :param heard: when it was last heard, by the clock of this process.
    :param active: tasks that run.
    :param children: processes of its pool.
    """

    heard: float
    active: int = 0
    queues: Sequence[str] = ()
    children: int = 0


class Host(msgspec.Struct):
    """One host of the fleet: the part of the node's name after the ``@``."""

    table: SeriesTable
    published: dict[tuple[str, str], Published] = {}
    nodes: dict[str, Node] = {}


class FleetCounts:
    """Counts events.

    :param now: seconds since the epoch.
    :param host: the label of senders, in place of their hosts: programs that send come and go.
    """

    def __init__(self, now: Callable[[], float], host: str | None = None) -> None:
        self._now = now
        self._sender = host
        self._tasks: OrderedDict[str, Known] = OrderedDict()
        self._hosts: dict[str, Host] = {}
        self._count: Mapping[str, Callable[[Series, Event, Known], None]] = {
            "task-received": self._received,
            "task-started": lambda series, event, known: _add(series, "started"),
            "task-succeeded": _succeeded,
            "task-failed": _failed,
            "task-rejected": lambda series, event, known: _add(series, "rejected"),
            "task-revoked": lambda series, event, known: _add(series, "revoked"),
            "task-retried": lambda series, event, known: _add(series, "retried"),
        }

    def take(self, event: Event) -> None:
        """Count an event."""
        if event.type.startswith("worker-"):
            self._take_worker(event)
        elif event.type == "task-sent":
            self._take_sent(event)
        elif (count := self._count.get(event.type)) is not None:
            known = self._know(event)
            count(self._host(event.node).table.of(known.name, known.queue), event, known)

    def knows(self, node: str) -> bool:
        """Whether this worker was heard lately."""
        host = self._hosts.get(node.rpartition("@")[2])
        known = None if host is None else host.nodes.get(node)
        return known is not None and self._now() - known.heard < SILENT

    def note_workers(self, queues: Mapping[str, Any], stats: Mapping[str, Any]) -> None:
        """Take in what workers answered to ``active_queues`` and ``stats``, by node."""
        for node, found in queues.items():
            known = self._node(node, heard=self._now())
            entries = found if isinstance(found, list) else []
            names = (entry.get("name") for entry in entries[:MOST_QUEUES] if isinstance(entry, dict))
            known.queues = [name for name in names if isinstance(name, str) and is_text(name)]
            of_node = stats.get(node)
            pool = of_node.get("pool") if isinstance(of_node, dict) else None
            processes = pool.get("processes") if isinstance(pool, dict) else None
            known.children = len(processes) if isinstance(processes, list) else 0

    def snapshots(self) -> Sequence[Snapshot]:
        """Return the numbers of each host; any thread may call this."""
        return [self._snapshot(name, host) for name, host in list(self._hosts.items())]

    def _snapshot(self, name: str, host: Host) -> Snapshot:
        now = self._now()
        nodes = {node: known for node, known in list(host.nodes.items()) if now - known.heard < FORGOTTEN}
        alive = {node: known for node, known in nodes.items() if now - known.heard < SILENT}
        return Snapshot(
            name,
            series=host.table.all(),
            published=list(host.published.values()),
            workers=[
                WorkerState(node, known.queues, 0, known.active, 0, known.children)
                for node, known in alive.items()
            ],
            up=bool(alive) if nodes else None,
            active=sum(known.active for known in alive.values()) if nodes else None,
        )

    def _take_worker(self, event: Event) -> None:
        known = self._node(event.node, heard=0.0)
        known.heard = self._now() - (SILENT if event.type == "worker-offline" else 0.0)
        active = event.fields.get("active")
        known.active = active if type(active) is int and 0 <= active < _COUNT else 0

    def _take_sent(self, event: Event) -> None:
        known = self._know(event)
        host = self._host(self._sender or event.node)
        published_under(host.published, known.name, known.queue).count += 1
        known.sent = max(event.timestamp, eta_of(event.fields.get("eta")))

    def _received(self, series: Series, event: Event, known: Known) -> None:
        series.received += 1
        if known.sent and event.timestamp >= known.sent:
            series.wait.observe(event.timestamp - known.sent)

    def _know(self, event: Event) -> Known:
        """Return what is known of the event's task, with what this event adds."""
        task_id = event.task_id or ""
        known = self._tasks.get(task_id)
        if known is None:
            known = self._tasks[task_id] = Known(UNKNOWN, UNKNOWN)
            if len(self._tasks) > REMEMBERED:
                self._tasks.popitem(last=False)
        name, queue = event.fields.get("name"), event.fields.get("queue")
        if isinstance(name, str) and name:
            known.name = name
        if not isinstance(queue, str) and event.type == "task-sent":
            queue = event.fields.get("routing_key")
        if isinstance(queue, str) and queue:
            known.queue = queue
        return known

    def _node(self, node: str, heard: float) -> Node:
        """Return what is known of a worker; of one more than is remembered, one for all of those."""
        nodes = self._host(node).nodes
        if node not in nodes and len(nodes) >= MOST_NODES:
            for gone in [name for name, known in nodes.items() if self._now() - known.heard >= FORGOTTEN]:
                del nodes[gone]
            node = node if len(nodes) < MOST_NODES else OTHER
        return nodes.setdefault(node, Node(heard))

    def _host(self, node: str) -> Host:
        name = node.rpartition("@")[2]
        if not is_text(name):
            name = UNKNOWN
        if name not in self._hosts and len(self._hosts) >= MOST_HOSTS:
            name = UNKNOWN
        if name not in self._hosts:
            self._hosts[name] = Host(SeriesTable(lambda _: True))
        return self._hosts[name]


def _add(series: Series, attribute: str) -> None:
    setattr(series, attribute, getattr(series, attribute) + 1)


def _succeeded(series: Series, event: Event, known: Known) -> None:
    series.succeeded += 1
    runtime: Any = event.fields.get("runtime")
    if is_number(runtime) and 0 <= runtime < LONGEST:
        series.runtime.observe(float(runtime))


def _failed(series: Series, event: Event, known: Known) -> None:
    exception = event.fields.get("exception")
    text = exception if isinstance(exception, str) else ""
    series.fail(text.partition("(")[0].rpartition(".")[2][:100] or "Exception")
