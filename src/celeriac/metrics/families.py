"""The numbers as Prometheus has them: a name, a help text and labels for each.

Rules: names, labels and meaning are those of celery-exporter where there is one, so that its dashboards and alerts
work; what is new begins with ``celeriac_``. The table in ``docs/reference/metrics.md`` has each of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from platform import python_version

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from celeriac.metrics.counts import Histogram, Series, Snapshot, WorkerState
from celeriac.metrics.queues import BrokerNumbers

TASK_LABELS = ("name", "hostname", "queue_name")

BROKER_UP = ("celeriac_broker_up", "Whether the broker answers.")

COUNTERS = {
    "received": "Messages that the worker has taken.",
    "started": "Tasks whose body has begun.",
    "succeeded": "Tasks that have succeeded.",
    "rejected": "Tasks that have refused their message, with or without requeue.",
    "revoked": "Tasks that were revoked or have expired.",
    "retried": "Runs of tasks that are followed by another.",
}
"""Counters by name, hostname and queue: the attribute of ``Series``, and the help."""


class Families:
    """Makes the families of one snapshot.

    :param prefix: put before every name.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix

    def of(self, snapshot: Snapshot, broker: BrokerNumbers | None) -> Iterator[Metric]:
        """Yield all families of a process, or of several that were summed."""
        yield from self._tasks([snapshot])
        deliveries = self._counter("celeriac_deliveries", "Messages by what became of them.", ["outcome"])
        for outcome, count in snapshot.deliveries.items():
            deliveries.add_metric([outcome], count)
        yield deliveries
        seconds = HistogramMetricFamily(
            f"{self._prefix}celeriac_publish_seconds", "Seconds until the broker had what was sent."
        )
        seconds.add_metric([], snapshot.publishing.buckets(), snapshot.publishing.total)
        yield seconds
        yield self._slots(snapshot.workers)
        yield from self._process(snapshot)
        yield from self._common([snapshot], broker)

    def of_fleet(
        self, hosts: Sequence[Snapshot], broker: BrokerNumbers | None, broker_up: bool | None
    ) -> Iterator[Metric]:
        """Yield the families of many hosts, of which only the events are known.

        :param broker_up: whether the broker answers the process that watches them.
        """
        yield from self._tasks(hosts)
        yield from self._gauges((*BROKER_UP, broker_up))
        yield from self._common(hosts, broker)

    def _common(self, hosts: Sequence[Snapshot], broker: BrokerNumbers | None) -> Iterator[Metric]:
        yield from self._sent(hosts)
        yield from self._workers(hosts)
        if broker is not None:
            yield from self._queues(broker)
        yield from self._taken(hosts, broker)
        info = self._gauge("celeriac_build_info", "The versions that run.", ["version", "python"])
        info.add_metric([version("celeriac"), python_version()], 1)
        yield info

    def _tasks(self, hosts: Sequence[Snapshot]) -> Iterator[Metric]:
        for attribute, text in COUNTERS.items():
            family = self._counter(f"celery_task_{attribute}", text, TASK_LABELS)
            for host, one in _each(hosts):
                family.add_metric([one.name, host, one.queue], getattr(one, attribute))
            yield family
        yield self._failures(hosts)
        yield self._histogram(
            "celery_task_runtime", "Seconds that tasks took which succeeded.", hosts, "runtime"
        )
        waits = "Seconds that messages waited until they were taken, from their ETA on where they have one."
        yield self._histogram("celery_task_queue_wait_time", waits, hosts, "wait")
        yield self._queue_waits(waits, hosts)

    def _failures(self, hosts: Sequence[Snapshot]) -> Metric:
        labels = ("name", "hostname", "exception", "queue_name")
        family = self._counter("celery_task_failed", "Tasks that have failed for good.", labels)
        for host, one in _each(hosts):
            for exception, count in (dict(one.failed) or {"": 0}).items():
                family.add_metric([one.name, host, exception, one.queue], count)
        return family

    def _histogram(self, name: str, text: str, hosts: Sequence[Snapshot], attribute: str) -> Metric:
        family = HistogramMetricFamily(self._prefix + name, text, labels=TASK_LABELS)
        for host, one in _each(hosts):
            values: Histogram = getattr(one, attribute)
            family.add_metric([one.name, host, one.queue], values.buckets(), values.total)
        return family

    def _queue_waits(self, text: str, hosts: Sequence[Snapshot]) -> Metric:
        sums: dict[str, Histogram] = {}
        for _, one in _each(hosts):
            sums.setdefault(one.queue, Histogram(one.wait.bounds)).add(one.wait)
        family = HistogramMetricFamily(
            f"{self._prefix}celeriac_queue_wait_seconds", text, labels=["queue_name"]
        )
        for queue, values in sums.items():
            family.add_metric([queue], values.buckets(), values.total)
        return family

    def _sent(self, hosts: Sequence[Snapshot]) -> Iterator[Metric]:
        sent = self._counter("celery_task_sent", "Messages that were sent.", TASK_LABELS)
        published = self._counter("celeriac_published", "Messages that were sent.", ["name", "queue_name"])
        sums: Counter[tuple[str, str]] = Counter()
        for snapshot in hosts:
            for one in snapshot.published:
                sent.add_metric([one.name, snapshot.host, one.queue], one.count)
                sums[one.name, one.queue] += one.count
        for labels, count in sums.items():
            published.add_metric(list(labels), count)
        yield sent
        yield published

    def _workers(self, hosts: Sequence[Snapshot]) -> Iterator[Metric]:
        up = self._gauge("celery_worker_up", "Whether a worker runs.", ["hostname"])
        active = self._gauge("celery_worker_tasks_active", "Tasks whose body runs.", ["hostname"])
        counts: Counter[str] = Counter()
        processes: Counter[str] = Counter()
        for snapshot in hosts:
            if snapshot.up is not None:
                up.add_metric([snapshot.host], float(snapshot.up))
            if snapshot.active is not None:
                active.add_metric([snapshot.host], snapshot.active)
            for worker in snapshot.workers:
                for queue in worker.queues:
                    counts[queue] += 1
                    processes[queue] += worker.children or 1
        yield up
        yield active
        for name, text, found in (
            ("celery_active_worker_count", "Workers that take from the queue.", counts),
            ("celery_active_process_count", "Processes that run tasks of the queue.", processes),
        ):
            family = self._gauge(name, text, ["queue_name"])
            for queue, count in found.items():
                family.add_metric([queue], count)
            yield family

    def _slots(self, workers: Sequence[WorkerState]) -> Metric:
        text = (
            "Tasks that may run at once: that run now, are free, and whose results are on their way besides."
        )
        family = self._gauge("celeriac_slots", text, ["state"])
        running = sum(worker.running for worker in workers)
        family.add_metric(["running"], running)
        family.add_metric(["free"], sum(max(0, worker.slots - worker.running) for worker in workers))
        family.add_metric(["settling"], sum(worker.settling for worker in workers))
        return family

    def _queues(self, broker: BrokerNumbers) -> Iterator[Metric]:
        length = self._gauge("celery_queue_length", "Messages that wait, of all priorities.", ["queue_name"])
        text = (
            "Seconds that the oldest waiting message waits; at_least where it does not say when it was sent."
        )
        oldest = self._gauge("celeriac_queue_oldest_seconds", text, ["queue_name", "bound"])
        paused = self._gauge("celeriac_queue_paused", "Whether the queue is paused.", ["queue_name"])
        for queue in broker.queues:
            length.add_metric([queue.queue], queue.waiting)
            paused.add_metric([queue.queue], queue.paused)
            if queue.oldest is not None:
                bound = "at_least" if queue.at_least else "exact"
                oldest.add_metric([queue.queue, bound], queue.oldest)
        yield from (length, paused, oldest)
        consumers = self._gauge("celery_active_consumer_count", "Consumers of the queue.", ["queue_name"])
        for queue in broker.queues:
            if queue.consumers is not None:
                consumers.add_metric([queue.queue], queue.consumers)
        if consumers.samples:
            yield consumers
        yield from self._gauges(
            ("celeriac_queue_parked", "Messages that wait until they are due, of all queues.", broker.parked),
            ("celeriac_dead_letters", "Messages that were set aside.", broker.dead),
            (
                "celeriac_failed_kept",
                "Messages of failed tasks that are kept, to be run again.",
                broker.failed,
            ),
        )

    def _taken(self, hosts: Sequence[Snapshot], broker: BrokerNumbers | None) -> Iterator[Metric]:
        """Yield the count that the broker has of all workers, else what the workers here have taken."""
        own = [worker.taken for host in hosts for worker in host.workers if worker.taken is not None]
        of_all = None if broker is None else broker.taken
        if of_all is not None or own:
            family = self._gauge("celeriac_queue_taken", "Messages that workers have taken and not settled.")
            family.add_metric([], sum(own) if of_all is None else of_all)
            yield family

    def _process(self, snapshot: Snapshot) -> Iterator[Metric]:
        yield from self._gauges(
            ("celeriac_loop_lag_seconds", "Seconds by which the event loop is late.", snapshot.lag),
            (*BROKER_UP, snapshot.broker_up),
            ("celeriac_backend_up", "Whether the result store answers.", snapshot.backend_up),
            (
                "celeriac_schedule_lag_seconds",
                "Seconds by which the latest slot of a periodic task was late.",
                snapshot.schedule_lag,
            ),
        )
        for name, text, value in (
            (
                "celeriac_reconnects",
                "Outages of the broker after which a worker took messages again.",
                snapshot.reconnects,
            ),
            ("celeriac_events_sent", "Events that reached a monitor.", snapshot.events_sent),
            (
                "celeriac_events_dropped",
                "Events that were dropped, since the broker was away for long.",
                snapshot.events_dropped,
            ),
            (
                "celeriac_leases_renewed",
                "Renewals of the leases of taken messages.",
                snapshot.leases_renewed,
            ),
        ):
            if value is not None:
                counter = self._counter(name, text, ())
                counter.add_metric([], value)
                yield counter

    def _counter(self, name: str, text: str, labels: Sequence[str]) -> CounterMetricFamily:
        return CounterMetricFamily(self._prefix + name, text, labels=labels)

    def _gauges(self, *gauges: tuple[str, str, float | None]) -> Iterator[Metric]:
        """Yield a gauge for each name, text and value; nothing where the value is not known."""
        for name, text, value in gauges:
            if value is not None:
                family = self._gauge(name, text)
                family.add_metric([], float(value))
                yield family

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._prefix + name, text, labels=labels)


def _each(hosts: Iterable[Snapshot]) -> Iterator[tuple[str, Series]]:
    """Yield each series with its host."""
    for snapshot in hosts:
        for series in snapshot.series:
            yield snapshot.host, series
