"""Several workers on a RabbitMQ that closes their connections and restarts: what they do goes on, and runs once."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from tests.faults.conftest import Record, StartWorker
from tests.servers import RabbitServer
from tests.servers.proxy import Proxy

TASKS = 40
PACE = 350
"""Bytes a second that come back over a slow line."""

PUBLISH_TIMEOUT = 3.0


@pytest.fixture(scope="module")
def kept_rabbit() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.fixture
def own_rabbit(kept_rabbit: RabbitServer) -> Iterator[RabbitServer]:
    yield kept_rabbit
    kept_rabbit.recover()


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
    await records[12].until("began", timeout=60)
    await asyncio.to_thread(own_rabbit.control, "close_all_connections", "a test")
    await records[22].until("began", timeout=60)
    for command in ("stop_app", "start_app"):
        await asyncio.to_thread(own_rabbit.control, command)
    for record in records:
        await record.until("ended", timeout=60)
    assert [len(record.times("began")) for record in records] == [1] * TASKS


async def test_a_slow_server_that_goes_on_answering_is_no_outage(own_rabbit: RabbitServer, queue: str):
    """The first delay of all makes 28 queues and their exchanges, which one answer's time need not suffice for."""
    async with Proxy(own_rabbit.port) as line:
        url = f"amqp://guest:guest@127.0.0.1:{line.port}/"
        async with Celeriac("sender", url, "disabled://", publish_timeout=PUBLISH_TIMEOUT) as app:
            await app.send_task("note", queue=queue)
            line.pace_back = (
                PACE  # not before: what RabbitMQ says of itself at the start is the longest answer
            )
            began = time.monotonic()
            await app.send_task("note", queue=queue, countdown=3600)
            assert time.monotonic() - began > PUBLISH_TIMEOUT, "it was not slow"
