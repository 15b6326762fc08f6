"""Several workers on a RabbitMQ that closes their connections and restarts: what they do goes on, and runs once."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from celeriac import Celeriac
from tests.faults.conftest import Record, StartWorker
from tests.servers import RabbitServer

TASKS = 40
AT_WORK, AT_REST = 0.02, 0.4
"""Seconds by turns for which a slow server runs, and does not."""


@pytest.fixture(scope="module")
def own_rabbit() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_no_task_of_a_living_worker_runs_twice(
    own_rabbit: RabbitServer, start_worker: StartWorker, queue: str, tmp_path: Path, kind: str
):
    url = f"{own_rabbit.url()}?queue_type={kind}"
    for _ in range(2):
        start_worker(url, "-c", "10")
    records = [Record(tmp_path / str(number)) for number in range(TASKS)]
    async with Celeriac("sender", url, "disabled://") as app:
        for number, record in enumerate(records):
            await app.send_task("wait", [str(record.path), 0.3 + number % 4], queue=queue)
    await records[12].until("began", timeout=30)
    await asyncio.to_thread(own_rabbit.control, "close_all_connections", "a test")
    await records[22].until("began", timeout=30)
    for command in ("stop_app", "start_app"):
        await asyncio.to_thread(own_rabbit.control, command)
    for record in records:
        await record.until("ended", timeout=60)
    assert [len(record.times("began")) for record in records] == [1] * TASKS


@asynccontextmanager
async def slowed(server: RabbitServer) -> AsyncIterator[None]:
    async def slow_down() -> None:
        try:
            while True:
                server.pause()
                await asyncio.sleep(AT_REST)
                server.resume()
                await asyncio.sleep(AT_WORK)
        finally:
            server.resume()

    slowing = asyncio.create_task(slow_down())
    yield
    slowing.cancel()
    await asyncio.wait([slowing])


async def test_a_slow_server_that_goes_on_answering_is_no_outage(own_rabbit: RabbitServer, queue: str):
    """The first delay of all makes 28 queues and their exchanges, which one answer's time need not suffice for."""
    async with Celeriac("sender", own_rabbit.url(), "disabled://", publish_timeout=3.0) as app:
        await app.send_task("note", queue=queue)
        began = time.monotonic()
        async with slowed(own_rabbit):
            await app.send_task("note", queue=queue, countdown=3600)
        assert time.monotonic() - began > 3.0, "it was not slow"
