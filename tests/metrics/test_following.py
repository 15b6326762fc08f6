"""What workers tell of themselves, in the metrics: outages, events, leases, and what they have taken."""

import asyncio
from collections.abc import Callable

from celeriac import Celeriac
from celeriac.clock import SystemClock
from celeriac.contracts.broker import QueueState, Survey
from celeriac.metrics.app_metrics import AppMetrics
from celeriac.metrics.following import WorkerFollowing
from celeriac.metrics.queues import QueueReader
from celeriac.servers.memory.board import MemoryBoard
from tests.metrics.scraping import Scrape, scrape
from tests.servers import RedisServer

WAIT = 60.0


async def until(metrics: AppMetrics, holds: Callable[[Scrape], bool]) -> Scrape:
    async with asyncio.timeout(WAIT):
        while not holds(found := await scrape(metrics)):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.05)
        return found


async def test_events_outages_and_renewals_are_counted_and_kept(own_redis: RedisServer, queue: str):
    app = Celeriac("shop", own_redis.url(), own_redis.url(), default_queue=queue, lease=0.3)
    running = asyncio.Event()

    @app.task(name="wait")
    async def wait() -> None:
        await running.wait()

    metrics = app.metrics()
    async with app, app.events.listen() as events, app.worker(send_events=True, grace=0):
        sent = await app.send_task("wait")
        async for event in events:
            if event.type == "task-started":
                break
        found = await until(metrics, lambda seen: seen.value("celeriac_leases_renewed_total") >= 2)
        assert found.value("celeriac_events_sent_total") >= 2
        assert found.value("celeriac_events_dropped_total") == 0
        assert found.value("celeriac_reconnects_total") == 0
        own_redis.restart()
        await until(metrics, lambda seen: seen.value("celeriac_reconnects_total") == 1)
        running.set()
        await sent.wait(timeout=WAIT)
        last = await scrape(metrics)
    after = await scrape(metrics)
    for name in ("events_sent", "leases_renewed", "reconnects"):
        name = f"celeriac_{name}_total"
        assert after.value(name) >= last.value(name) > 0, name


class Told:
    """The events of a worker."""

    sent, dropped = 5, 2


class Made:
    """A worker."""

    name, concurrency, queues, pool = "a@b", 1, ("q",), "threads"
    events = Told()


class Leased:
    """A broker whose leases were renewed before the worker came."""

    leases_renewed = 3


def test_a_counter_does_not_fall_when_a_worker_ends_or_comes_again():
    broker = Leased()
    following = WorkerFollowing(lambda: broker)  # type: ignore[arg-type,return-value]
    assert following.leases_renewed is None
    for _ in range(2):
        following.worker_made(Made())
        following.worker_ready("a@b")
        following.worker_ready("another on the same broker")
        broker.leases_renewed += 4
    assert (following.events, following.leases_renewed) == ((10, 4), 8)
    following.worker_stopped("a@b")
    assert (following.events, following.leases_renewed) == ((10, 4), 8)


class Counted:
    """A broker that counts messages, and shows none of them."""

    tells_taken = shows_heads = False

    def __init__(self) -> None:
        self.state = QueueState("q", 0, (), 0)
        self.board = MemoryBoard(SystemClock())

    async def queues(self) -> list[str]:
        return ["q"]

    async def survey(self, queues: object) -> Survey:
        return Survey([self.state], 0, None, 0)


async def test_what_nobody_takes_waits_at_least_since_it_was_seen():
    broker, clock = Counted(), [0.0]
    reader = QueueReader(lambda: broker, now=lambda: clock[0], always=True, fresh=0.0)  # type: ignore[arg-type,return-value]

    async def oldest(at: float, waiting: int, consumers: int) -> tuple[float | None, bool]:
        clock[0], broker.state = at, QueueState("q", waiting, (), consumers)
        numbers = await reader.read()
        assert numbers is not None
        assert numbers.queues[0].consumers == consumers
        return numbers.queues[0].oldest, numbers.queues[0].at_least

    assert await oldest(0, 0, 0) == (0.0, False)
    assert await oldest(10, 3, 0) == (0.0, True)
    assert await oldest(20, 5, 0) == (10.0, True)
    assert await oldest(30, 4, 0) == (0.0, True)  # somebody was there
    assert await oldest(40, 4, 0) == (10.0, True)
    assert await oldest(50, 4, 1) == (0.0, True)
    assert await oldest(60, 4, 0) == (0.0, True)
    assert await oldest(70, 4, 0) == (10.0, True)


async def test_rabbitmq_tells_consumers_and_each_process_what_it_has_taken(rabbit_url: str, queue: str):
    app = Celeriac("shop", rabbit_url, "rpc://", default_queue=queue)
    running = asyncio.Event()

    @app.task(name="wait")
    async def wait() -> None:
        await running.wait()

    metrics = app.metrics()
    async with app:
        async with app.worker(concurrency=2):
            sent = [await app.send_task("wait") for _ in range(2)]
            found = await until(
                metrics, lambda seen: seen.found("celery_active_consumer_count", queue_name=queue)
            )
            assert found.value("celery_active_consumer_count", queue_name=queue) == 1
            found = await until(metrics, lambda seen: sum(seen.found("celeriac_queue_taken")) == 2)
            assert found.found("celeriac_leases_renewed_total") == []
            running.set()
            for one in sent:
                await one.wait(timeout=WAIT)
        assert sum((await scrape(metrics)).found("celeriac_queue_taken")) == 0
