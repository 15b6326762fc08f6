"""The metrics of a fleet from its events."""

import time
from collections.abc import Callable
from typing import Any

from celeriac import Celeriac
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.fleet import FORGOTTEN, REMEMBERED, SILENT, FleetCounts
from celeriac.wire.event import Event
from celeriac_probe import fetch
from tests.cli.project import TASKS, Project
from tests.metrics.scraping import Scrape
from tests.servers import LoggedProcess, RedisServer
from tests.servers.redis import free_port

WAIT = 60.0
NODE = "celery@host"


class Heard:
    """Counts that hear events by a clock of the test's own."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.counts = FleetCounts(lambda: self.now)

    def hear(self, kind: str, node: str = NODE, at: float = 0.0, **fields: Any) -> None:
        self.counts.take(Event(kind, node, at or self.now, {"type": kind, **fields}))

    def scrape(self) -> Scrape:
        return Scrape(Exposition().fleet_text(self.counts.snapshots(), None)[0].decode())


def test_celerys_events_have_name_and_queue_from_the_sending():
    heard = Heard()
    heard.hear("task-sent", "gen1@web", 1000.0, uuid="a", name="add", queue="fast", eta=None)
    heard.hear("task-received", at=1003.0, uuid="a", name="add")
    heard.hear("task-started", uuid="a")
    heard.hear("task-succeeded", uuid="a", runtime=0.3, result="3")
    heard.hear("task-received", uuid="b", name="add", queue="slow")
    heard.hear("task-failed", uuid="b", exception="my.module.OutOfStock('tea', 2)")
    heard.hear("task-retried", uuid="c", exception="OSError()")
    for kind in ("task-rejected", "task-revoked"):
        heard.hear(kind, uuid="b")
    found = heard.scrape()
    fast = {"name": "add", "hostname": "host", "queue_name": "fast"}
    assert found.value("celery_task_sent_total", **{**fast, "hostname": "web"}) == 1
    for what in ("received", "started", "succeeded"):
        assert found.value(f"celery_task_{what}_total", **fast) == 1
    assert found.value("celery_task_runtime_sum", **fast) == 0.3
    assert found.value("celery_task_queue_wait_time_sum", **fast) == 3
    assert found.value("celery_task_failed_total", exception="OutOfStock", queue_name="slow") == 1
    assert found.value("celery_task_retried_total", name="(unknown)", queue_name="(unknown)") == 1
    assert found.value("celery_task_rejected_total", queue_name="slow") == 1
    assert found.value("celery_task_revoked_total", queue_name="slow") == 1


def test_workers_come_fall_silent_and_are_forgotten():
    heard = Heard()
    heard.hear("worker-online", active=0)
    heard.hear("worker-heartbeat", active=3)
    heard.hear("worker-heartbeat", "other@host", active=2)
    heard.hear("worker-heartbeat", "celery@second", active=1)
    queues = {NODE: [{"name": "fast"}, {"name": "slow"}], "celery@second": [{"name": "fast"}], "bad@x": 7}
    heard.counts.note_workers(queues, {NODE: {"pool": {"processes": [1, 2, 3]}}, "celery@second": "no"})
    found = heard.scrape()
    assert found.value("celery_worker_up", hostname="host") == 1
    assert found.value("celery_worker_tasks_active", hostname="host") == 5
    assert found.value("celery_active_worker_count", queue_name="fast") == 2
    assert found.value("celery_active_process_count", queue_name="fast") == 4
    heard.hear("worker-offline", "celery@second", active=1)
    heard.now += SILENT - 1
    heard.hear("worker-heartbeat", active=0)
    found = heard.scrape()
    assert found.value("celery_worker_up", hostname="second") == 0
    assert found.value("celery_worker_up", hostname="host") == 1
    assert found.value("celery_active_worker_count", queue_name="fast") == 1
    heard.now += FORGOTTEN + SILENT
    assert heard.scrape().found("celery_worker_up") == []


def test_events_of_the_wrong_kind_are_survived_and_memory_is_bounded():
    heard = Heard()
    for fields in ({}, {"uuid": 7}, {"uuid": "x", "name": 7, "queue": []}, {"uuid": "y", "eta": 5}):
        for kind in ("task-sent", "task-received", "task-succeeded", "task-failed", "worker-heartbeat", "?"):
            heard.hear(kind, **fields, runtime="long", exception=None, active="many")
    for number in range(REMEMBERED + 10):
        heard.hear("task-started", uuid=f"{number}")
    assert len(heard.counts._tasks) == REMEMBERED
    for number in range(2000):
        heard.hear("worker-heartbeat", f"w@{number}", active=0)
    assert len(heard.scrape().found("celery_worker_up")) <= 1001


def test_the_command_counts_a_fleet_and_survives_its_broker(project: Project, own_redis: RedisServer):
    port, url = free_port(), own_redis.url()
    project.write(TASKS.replace('Celeriac("shop")', 'Celeriac("shop", remote_control=True)'))
    sender = Celeriac("sender", url, url)
    sender.delay("shop.add", 0, 0)
    exporter = project.start("exporter", "-b", url, "--metrics-port", f"127.0.0.1:{port}")
    try:
        exporter.wait_for(f"metrics on port {port}")
        with project.worker("-b", url, "--backend", url, "-E"):
            found = read(port, lambda seen: bool(seen.found("celery_active_worker_count")))
            assert found.value("celery_worker_up") == 1
            assert broker_up(found) == [1]
            sender.delay_many([sender.call("shop.add", [1, number]) for number in range(20)])
            sender.delay("shop.boom")
            found = read(
                port, lambda seen: sum(seen.found("celery_task_failed_total", exception="ValueError")) == 1
            )
            assert found.value("celery_task_succeeded_total", name="shop.add", queue_name="celery") == 21
            assert len(found.found("celery_queue_length", queue_name="celery")) == 1
            own_redis.kill()
            read(port, lambda seen: not seen.found("celery_queue_length") and broker_up(seen) == [0])
            own_redis.start()

            def failed_again(seen: Scrape) -> bool:
                sender.delay("shop.boom")  # what is told before the exporter listens again is lost
                return sum(seen.found("celery_task_failed_total", exception="ValueError")) > 1

            read(port, failed_again)
            read(port, lambda seen: broker_up(seen) == [1])
        assert exporter.stop() == 0
    finally:
        stop(exporter)


def broker_up(seen: Scrape) -> list[float]:
    return seen.found("celeriac_broker_up")


def stop(process: LoggedProcess) -> None:
    if process.running:
        process.kill()


def read(port: int, holds: Callable[[Scrape], bool]) -> Scrape:
    end = time.monotonic() + WAIT
    while True:
        status, body = fetch(port, "/metrics", WAIT)
        assert status == 200
        if holds(found := Scrape(body.decode())):
            return found
        assert time.monotonic() < end, found.text
        time.sleep(0.1)
