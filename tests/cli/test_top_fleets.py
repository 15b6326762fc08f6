"""celeriac top over PostgreSQL and RabbitMQ, and with Celery's workers in the fleet."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from celery import Celery

from celeriac import Celeriac
from celeriac.cli.top_app import TopApp
from celeriac.monitor.monitor import Monitor
from tests.cli.screen import Shop
from tests.interop.celery_worker import CeleryWorker
from tests.servers import RedisServer


@asynccontextmanager
async def seen(app: Celeriac, history: Path | str) -> AsyncIterator[Shop]:
    """The screen of ``celeriac top`` for an app that is open."""
    async with Monitor(app, history) as monitor:
        top = TopApp(monitor)
        async with top.run_test(size=(120, 30)) as pilot:
            yield Shop(app, top, pilot)


@pytest.fixture(params=["postgres", "rabbit"])
def server(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


async def test_a_fleet_of_celeriac(server: str, redis_url: str, postgres_url: str, queue: str):
    backend = server if server.startswith("postgres") else redis_url
    app = Celeriac("top", server, backend, default_queue=queue, send_events=True)
    failing = True

    @app.task(name="shop.pay")
    async def pay(number: int) -> int:
        if failing:
            raise ValueError("no money")
        return number

    async with app, seen(app, postgres_url) as shop:
        async with app.worker(grace=0.1):
            await shop.until(lambda: any(row[1] == "alive" for row in shop.rows("Workers")))
            await app.send_task("shop.pay", [1])
            await shop.choose("Tasks", "FAILURE")
            await shop.until(lambda: ["shop.pay", "ValueError"] in [row[1:3] for row in shop.rows("Errors")])
            failing = False
            await shop.answer("r", "y")
            await shop.until(lambda: "sent again as" in shop.text("said"))
            await shop.until(lambda: "SUCCESS" in [row[0] for row in shop.rows("Tasks")])
            await shop.press("2")
            await shop.choose("Queues", queue)
            await shop.answer("p", "y")
            await shop.until(lambda: [row[3] for row in shop.rows("Queues") if row[0] == queue] == ["paused"])
        await app.send_task("shop.pay", [2])
        await shop.until(lambda: [row[1] for row in shop.rows("Queues") if row[0] == queue] == ["1"])


@pytest.fixture
def celery_worker(redis_url: str) -> Iterator[CeleryWorker]:
    with CeleryWorker(redis_url, arguments=["-E", "--heartbeat-interval", "1"], sociable=True) as worker:
        yield worker


async def test_workers_of_celery(celery_worker: CeleryWorker, redis_url: str, tmp_path: Path):
    client = Celery("client", broker=redis_url, backend=redis_url, set_as_current=False)
    app = Celeriac("top", redis_url, redis_url)
    queue, node = celery_worker.queue, celery_worker.name
    async with app, seen(app, tmp_path / "history.db") as shop:
        await shop.until(lambda: [node, "alive"] in [row[:2] for row in shop.rows("Workers")])
        added = client.send_task("interop.add", [2, 3], queue=queue)
        assert await asyncio.to_thread(added.get, timeout=30) == 5
        await shop.choose("Tasks", "interop.add")
        await shop.press("2")
        await shop.choose("Queues", queue)
        await shop.answer("p", "y")
        await shop.until(lambda: "1 worker took from it" in shop.text("said"))
        waiting = client.send_task("interop.add", [3, 4], queue=queue)
        await shop.until(lambda: ["1", "paused"] in [[row[1], row[3]] for row in shop.rows("Queues")])
        await shop.answer("p", "y")
        assert await asyncio.to_thread(waiting.get, timeout=30) == 7


async def test_a_broker_that_goes_away_and_comes_back(own_redis: RedisServer, tmp_path: Path, queue: str):
    app = Celeriac("top", own_redis.url(), own_redis.url(), default_queue=queue, send_events=True)

    @app.task(name="shop.pay")
    async def pay(number: int) -> int:
        return number

    async with app, app.worker(grace=0.1), seen(app, tmp_path / "history.db") as shop:
        await shop.until(lambda: any(row[1] == "alive" for row in shop.rows("Workers")))
        await app.send_task("shop.pay", [1])
        await shop.choose("Tasks", "shop.pay")
        own_redis.stop()
        await shop.until(lambda: "NO BROKER" in shop.text("numbers"))
        assert len(shop.rows("Tasks")) == 1
        own_redis.start()
        await shop.until(lambda: "workers 1" in shop.text("numbers"))
        while len(shop.rows("Tasks")) < 2:
            await app.send_task("shop.pay", [2])  # until it hears events again
            await shop.pilot.pause(0.2)
            await shop.top.follow()
