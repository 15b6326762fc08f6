"""The numbers of one process, and the sum of several."""

from pathlib import Path

import msgspec
import pytest

from celeriac.metrics.counts import (
    MOST_EXCEPTIONS,
    MOST_SERIES,
    OTHER,
    UNKNOWN,
    WAIT_BOUNDS,
    Histogram,
    Published,
    Series,
    SeriesTable,
    Snapshot,
    WorkerState,
    summed,
)
from celeriac.metrics.family import SNAPSHOT_PATH, FamilyMetrics
from celeriac.probes.address import Address
from celeriac.probes.pages import PageServer
from celeriac.probes.serving import Page
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.waiting import waits_since


def test_names_that_nobody_registered_are_counted_together():
    table = SeriesTable(lambda name: name == "known")
    table.of("known", "q").received += 1
    for number in range(10_000):
        table.of(f"made up {number}", "q").received += 1
    assert [(one.name, one.received) for one in table.all()] == [("known", 1), (UNKNOWN, 10_000)]


def test_queues_and_exceptions_are_bounded():
    table = SeriesTable(lambda name: True)
    for number in range(MOST_SERIES + 10):
        table.of("task", f"queue {number}").fail(f"Error{number}")
    assert len(table.all()) == MOST_SERIES + 1
    assert table.of("task", "one more").failed == {f"Error{MOST_SERIES + number}": 1 for number in range(10)}
    series = Series("task", "q")
    for number in range(MOST_EXCEPTIONS + 10):
        series.fail(f"Error{number}")
    assert len(series.failed) == MOST_EXCEPTIONS + 1
    assert series.failed[OTHER] == 10


def test_a_histogram_has_the_sums_up_to_each_bound():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.observe(value)
    assert histogram.buckets() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert histogram.total == 10.0


@pytest.mark.parametrize(
    ("headers", "since"),
    [
        ({"x-celeriac-sent": 5.5}, 5.5),
        ({"sentry-task-enqueued-time": 7}, 7.0),
        ({"x-celeriac-sent": 5.5, "sentry-task-enqueued-time": 7}, 5.5),
        ({"x-celeriac-sent": 5.5, "eta": "1970-01-01T00:01:00+00:00"}, 60.0),
        ({"x-celeriac-sent": 5.5, "eta": "1970-01-01T00:01:00"}, 60.0),
        ({"x-celeriac-sent": 5.5, "eta": "soon"}, 5.5),
        ({"x-celeriac-sent": "5.5"}, None),
        ({"x-celeriac-sent": True}, None),
        ({"x-celeriac-sent": float("nan")}, None),
        ({"x-celeriac-sent": 10**400}, None),
        ({}, None),
    ],
)
def test_since_when_a_message_waits(headers: dict[str, object], since: float | None):
    assert waits_since(Envelope(b"", headers=headers)) == since


def test_an_unreadable_message_says_nothing():
    assert waits_since(Unreadable(b"", "no reason")) is None


def numbers(boot: str, succeeded: int) -> Snapshot:
    series = Series("task", "q", succeeded=succeeded, failed={"ValueError": 1})
    series.wait.observe(0.07)
    worker = WorkerState("node", ["q"], slots=4, running=1, settling=0)
    return Snapshot(
        "host",
        boot,
        [series],
        {"succeeded": succeeded},
        [Published("task", "q", 2)],
        workers=[worker],
        lag=0.25,
    )


def test_the_sum_of_processes_keeps_what_a_process_counted_that_ended(tmp_path: Path):
    now = {"1": numbers("a", 5), "2": numbers("b", 7)}
    servers: dict[str, PageServer] = {}

    def serve(name: str) -> None:
        page = {SNAPSHOT_PATH: lambda: Page(200, msgspec.json.encode(now[name]))}
        servers[name] = PageServer(Address(path=str(tmp_path / name)).listen(), page)
        servers[name].start()

    serve("1")
    serve("2")
    family = FamilyMetrics([str(tmp_path / name) for name in ("1", "2", "never")], "host")
    total = family.snapshot()
    assert (total.series[0].succeeded, total.series[0].failed) == (12, {"ValueError": 2})
    assert total.series[0].wait.counts[WAIT_BOUNDS.index(0.1)] == 2
    assert total.published == [Published("task", "q", 4)]
    assert (len(total.workers), total.lag) == (2, 0.25)
    servers["1"].close()
    gone = family.snapshot()
    assert (gone.series[0].succeeded, len(gone.workers)) == (12, 1)
    now["1"] = numbers("c", 1)
    serve("1")
    assert family.snapshot().series[0].succeeded == 13
    now["1"] = numbers("c", 2)
    assert family.snapshot().series[0].succeeded == 14
    assert family.snapshot().deliveries == {"succeeded": 14}
    for server in servers.values():
        server.close()


def test_one_broker_that_does_not_answer_counts():
    assert summed([Snapshot("h", broker_up=True), Snapshot("h", broker_up=False)], "h").broker_up is False
    assert summed([Snapshot("h", broker_up=False), Snapshot("h", broker_up=True)], "h").broker_up is False
    assert summed([Snapshot("h", broker_up=True), Snapshot("h")], "h").broker_up is True
