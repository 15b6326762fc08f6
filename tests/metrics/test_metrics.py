"""The metrics of workers: equal to the truth, on real servers."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery as CeleryClient
from prometheus_client import CollectorRegistry, generate_latest

from celeriac import Celeriac, Context, Retry
from celeriac.metrics.app_metrics import AppMetrics
from celeriac.metrics.queues import QueueReader
from celeriac.wire.envelope import Envelope, Route
from celeriac_probe import fetch
from tests.cli.project import Project
from tests.metrics.scraping import Scrape, scrape
from tests.servers import RedisServer
from tests.servers.redis import free_port

WAIT = 60.0


def make(url: str, queue: str) -> Celeriac:
    app = Celeriac("shop", url, url, default_queue=queue, default_retry=None)

    @app.task(name="good")
    async def good() -> str:
        return "well"

    @app.task(name="slow")
    async def slow(seconds: float) -> None:
        await asyncio.sleep(seconds)

    @app.task(name="bad")
    async def bad(again: bool = False) -> None:
        raise LookupError("again") if again else ValueError("no")

    @app.task(name="flaky", retry=Retry(max_attempts=3, backoff=0.01, on=(OSError,)))
    async def flaky(ctx: Context) -> None:
        if ctx.attempt < 3:
            raise OSError("not yet")

    @app.task(name="refusing")
    async def refusing(ctx: Context) -> None:
        ctx.reject("no")

    return app


async def until(metrics: AppMetrics, holds: Callable[[Scrape], bool]) -> Scrape:
    async with asyncio.timeout(WAIT):
        while not holds(found := await scrape(metrics)):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)
        return found


async def test_a_paused_queue_is_told(own_redis: RedisServer, queue: str):
    app = make(own_redis.url(), queue)
    metrics = app.metrics()
    async with app:
        await app.send_task("good")
        await app.send_task("good", queue="open")
        await app.control.pause(queue)
        found = await until(metrics, lambda seen: bool(seen.value("celery_queue_length")))
    told = [found.value("celeriac_queue_paused", queue_name=name) for name in (queue, "open")]
    assert told == [1, 0]


async def test_every_number_is_the_truth(own_redis: RedisServer, queue: str):
    app = make(own_redis.url(), queue)
    metrics = app.metrics(hostname="here")
    async with app, app.worker(concurrency=7):
        await app.send_many([app.call("good") for _ in range(20)])
        for name, again in (("bad", []), ("bad", [True]), ("flaky", []), ("refusing", [])):
            await app.send_task(name, again)
        for number in range(5):
            await app.send_task(f"made up {number}")
        await app.send_task("good", expires=datetime.now(UTC) - timedelta(seconds=1))
        await app.send_task("good", countdown=3600)
        found = await until(
            metrics,
            lambda seen: seen.value("celeriac_deliveries_total") >= 20 + 2 + 3 + 1 + 5 + 1,
        )
    here = {"hostname": "here", "queue_name": queue}
    assert found.value("celery_task_received_total", name="good", **here) == 21
    assert found.value("celery_task_started_total", name="good", **here) == 20
    assert found.value("celery_task_succeeded_total", name="good", **here) == 20
    assert found.value("celery_task_runtime_count", name="good", **here) == 20
    assert found.value("celery_task_queue_wait_time_count", name="good", **here) == 21
    assert found.value("celery_task_revoked_total", name="good", **here) == 1
    assert found.value("celery_task_failed_total", name="bad", exception="ValueError", **here) == 1
    assert found.value("celery_task_failed_total", name="bad", exception="LookupError", **here) == 1
    assert found.value("celery_task_retried_total", name="flaky", **here) == 2
    assert found.value("celery_task_succeeded_total", name="flaky", **here) == 1
    assert found.value("celery_task_rejected_total", name="refusing", **here) == 1
    assert found.value("celery_task_failed_total", name="(unknown)", exception="TaskNotFound", **here) == 5
    assert not any("made up" in labels["name"] for labels in found.labels("celery_task_received_total"))
    assert found.value("celery_task_sent_total", name="good", **here) == 22
    assert found.value("celeriac_published_total", name="flaky", queue_name=queue) == 3
    assert found.value("celeriac_publish_seconds_count") == 12
    assert found.value("celeriac_queue_wait_seconds_count", queue_name=queue) == 20 + 1 + 2 + 3 + 1 + 5
    outcomes = {"succeeded": 21, "failed": 3, "retried": 2, "declined": 1, "refused": 5, "parked": 0}
    for outcome, count in outcomes.items():
        assert found.value("celeriac_deliveries_total", outcome=outcome) == count, outcome
    assert found.value("celery_worker_up", hostname="here") == 1
    assert found.value("celery_active_worker_count", queue_name=queue) == 1
    assert found.value("celery_active_process_count", queue_name=queue) == 1
    assert found.value("celeriac_slots", state="free") == 7
    assert found.value("celeriac_build_info") == 1


@pytest.fixture(params=["redis", "sqlite", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: object) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("own_redis").url())
    return f"sqlite:///{tmp_path}/shop.db" if request.param == "sqlite" else "memory://"


async def test_what_waits_is_told_with_its_age(url: str, queue: str):
    app = make(url, queue)
    metrics = app.metrics()
    async with app:
        await app.send_many([app.call("good") for _ in range(100)])
        sent = time.monotonic()
        await app.send_task("good", queue=f"{queue}.high", priority=3)
        async with app.worker(concurrency=1, queues=[f"{queue}.other"], grace=0):
            await app.send_task("slow", [600], queue=f"{queue}.other")
            await app.send_task("slow", [0], queue=f"{queue}.other", countdown=600)
            await app.send_task("made up", queue=f"{queue}.other")
            await until(metrics, lambda seen: seen.value("celeriac_slots", state="running") == 1)
            reader = QueueReader(lambda: app.connections().broker, always=True)
            await asyncio.sleep(max(0.0, sent + 1.2 - time.monotonic()))
            numbers = await reader.read()
            assert numbers is not None
            by_queue = {one.queue: one for one in numbers.queues}
            waiting = by_queue[queue]
            assert waiting.waiting == 100
            assert waiting.oldest is not None
            assert 1.1 < waiting.oldest < time.monotonic() - sent + 5
            assert not waiting.at_least
            assert by_queue[f"{queue}.high"].waiting == 1
            assert numbers.parked == 1
            assert numbers.taken == 1
    async with app, app.worker(queues=[queue], concurrency=50):
        found = await until(
            metrics,
            lambda seen: sum(seen.found("celery_task_succeeded_total", name="good", queue_name=queue)) == 100,
        )
    buckets = {"name": "good", "queue_name": queue}
    assert found.value("celery_task_queue_wait_time_bucket", le="1.0", **buckets) == 0
    assert found.value("celery_task_queue_wait_time_bucket", le="+Inf", **buckets) == 100


async def test_a_message_without_a_time_of_sending_gives_a_lower_bound(own_redis: RedisServer, queue: str):
    def send() -> None:
        with CeleryClient(broker=own_redis.url(), set_as_current=False) as client:
            client.send_task("good", queue=queue)

    await asyncio.to_thread(send)
    async with Celeriac("shop", own_redis.url()) as app:
        clock = [1000.0]
        reader = QueueReader(lambda: app.connections().broker, now=lambda: clock[0], always=True, fresh=0.0)
        first = await reader.read()
        clock[0] = 1007.0
        second = await reader.read()
        await app.connections().broker.publish(Envelope(b""), Route(queue, queue=queue))
        clock[0] = 1008.0
        third = await reader.read()
    for numbers, oldest in ((first, 0.0), (second, 7.0), (third, 8.0)):
        assert numbers is not None
        (of_queue,) = [one for one in numbers.queues if one.queue == queue]
        assert (of_queue.oldest, of_queue.at_least) == (oldest, True)


async def test_one_process_of_all_tells_what_waits(own_redis: RedisServer, queue: str):
    async with Celeriac("shop", own_redis.url()) as app, Celeriac("shop", own_redis.url()) as second:
        await app.send_task("good", queue=queue)
        readers = [QueueReader(lambda app=one: app.connections().broker) for one in (app, second)]  # type: ignore[misc]
        assert [await one.read() is not None for one in readers] == [True, False]
        await readers[0].release()
        other = QueueReader(lambda: second.connections().broker)
        assert await other.read() is not None


async def test_a_worker_that_ticks_is_seen_with_its_lag(queue: str):
    app = make("memory://", queue)
    app.schedules.declare("often", "good", 0.2)
    metrics = app.metrics(hostname="here")
    async with app, app.worker():
        found = await until(metrics, lambda seen: bool(seen.found("celeriac_schedule_lag_seconds")))
        assert 0 <= found.value("celeriac_schedule_lag_seconds") < WAIT
        assert found.value("celery_worker_up", hostname="here") == 1
        assert found.value("celery_active_worker_count", queue_name=queue) == 1


async def test_a_broker_that_is_away_leaves_its_numbers_out(own_redis: RedisServer, queue: str):
    app = make(own_redis.url(), queue)
    before, metrics = app.metrics(), app.metrics()
    async with app:
        found = await scrape(before)
        assert (found.value("celeriac_broker_up"), found.value("celeriac_backend_up")) == (1, 1)
        own_redis.stop()
        found = await scrape(metrics)
    assert "celery_queue_length" not in found.families
    assert "celeriac_build_info" in found.families
    assert (found.value("celeriac_broker_up"), found.value("celeriac_backend_up")) == (0, 0)


async def test_an_app_tells_how_late_its_loop_is_and_nothing_of_a_store_that_it_has_not(queue: str):
    app = Celeriac("shop", "memory://", "disabled://", default_queue=queue)
    metrics = app.metrics()

    @app.task(name="block")
    async def block() -> None:
        time.sleep(1.2)  # noqa: ASYNC251 - that is what it is about

    async with app, app.worker():
        await app.send_task("block")
        found = await until(metrics, lambda seen: sum(seen.found("celeriac_loop_lag_seconds")) > 0.5)
        assert found.value("celeriac_broker_up") == 1
        assert not found.found("celeriac_backend_up")


async def test_the_loop_of_a_program_without_a_worker_is_followed_from_the_first_scrape(queue: str):
    app = make("memory://", queue)
    metrics = app.metrics()
    async with app:
        assert (await scrape(metrics)).value("celeriac_loop_lag_seconds") < WAIT


def test_a_registry_collects_an_app_beside_others(redis_url: str, queue: str):
    app = make(redis_url, queue)
    registry = CollectorRegistry()
    registry.register(app.metrics(prefix="shop_"))
    app.delay("good")
    found: list[Scrape] = []
    thread = threading.Thread(target=lambda: found.append(Scrape(generate_latest(registry).decode())))
    thread.start()
    thread.join(WAIT)
    assert found[0].value("shop_celeriac_published_total", name="good", queue_name=queue) == 1
    assert found[0].value("shop_celeriac_broker_up") == found[0].value("shop_celeriac_backend_up") == 1
    assert all(name.startswith("shop_") for name in found[0].families)


def test_processes_are_summed_and_a_restart_takes_nothing_back(project: Project):
    port = free_port()
    options = ["--processes", "2", "--metrics-port", f"127.0.0.1:{port}"]
    with project.worker(*options) as worker:

        def read(holds: Callable[[Scrape], bool]) -> Scrape:
            end = time.monotonic() + WAIT
            while True:
                status, body = fetch(port, "/metrics", WAIT)
                assert status == 200
                if holds(found := Scrape(body.decode())):
                    return found
                assert time.monotonic() < end, found.text
                time.sleep(0.1)

        def succeeded(found: Scrape) -> float:
            return sum(found.found("celery_task_succeeded_total", name="shop.add"))

        read(lambda seen: seen.value("celeriac_slots", state="free") == 200)
        sender = Celeriac("sender", project.url, project.url)
        sender.delay_many([sender.call("shop.add", [1, n]) for n in range(30)])
        found = read(lambda seen: succeeded(seen) == 30)
        assert found.value("celery_active_worker_count", queue_name="celery") == 2
        for process in pids(worker.lines):
            os.kill(process, signal.SIGKILL)
        sender.delay_many([sender.call("shop.add", [1, n]) for n in range(5)])
        read(lambda seen: succeeded(seen) == 35)


def pids(lines: list[str]) -> list[int]:
    return [int(line.rsplit(" ", 1)[1]) for line in lines if " is process " in line]
