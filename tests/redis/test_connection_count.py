"""How many connections a process keeps while it is idle: a server takes a limited number, and a fleet is many."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.url import parse_redis_url
from celeriac.testing.faults import Faults, FaultyBroker
from tests.redis.conftest import MakeBroker
from tests.servers import LoggedProcess, RedisServer

MODULE = """
from celeriac import Celeriac

app = Celeriac("idle", {url!r}, {results!r})

@app.task(name="double")
async def double(number: int) -> int:
    return 2 * number
"""


def connections(server: RedisServer) -> list[str]:
    """Return what each connection asked last, but for the one that asks here."""
    with server.client() as client:
        own = client.client_id()
        return [found["cmd"] for found in client.client_list() if int(found["id"]) != own]


async def settle_at(server: RedisServer, most: int) -> None:
    """Return once there are no more than so many connections."""
    try:
        async with asyncio.timeout(60):
            while len(connections(server)) > most:  # noqa: ASYNC110 - Redis tells nobody
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"connections that are kept: {connections(server)}") from None


async def run_twenty(app: Celeriac) -> None:
    results = [await app.send_task("double", [number]) for number in range(20)]
    assert [await result.wait(60) for result in results] == [2 * number for number in range(20)]


async def test_an_idle_worker_has_three_connections(own_redis: RedisServer, tmp_path: Path):
    url, results = own_redis.url(0), own_redis.url(1)
    (tmp_path / "idle_tasks.py").write_text(MODULE.format(url=url, results=results))
    command = (sys.executable, "-m", "celeriac", "worker", "-A", "idle_tasks:app", "-c", "4")
    worker = LoggedProcess(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    try:
        async with Celeriac("sender", url, results) as sender:
            await run_twenty(sender)
        await settle_at(own_redis, 3)
        assert worker.running
    finally:
        worker.stop()


async def test_a_program_that_sends_waits_and_works_has_four(own_redis: RedisServer, make_broker: MakeBroker):
    url = own_redis.url()
    broker = make_broker(url, connections=ConnectionPool(parse_redis_url(url), 5.0, surplus=0.5))
    async with Celeriac("all", broker, url) as app:

        @app.task(name="double")
        async def double(number: int) -> int:
            return 2 * number

        async with app.worker(concurrency=4):
            await run_twenty(app)
            waiting = asyncio.create_task((await app.send_task("nobody", queue="other")).wait(60))
            await settle_at(own_redis, 4)
            await run_twenty(app)
            await settle_at(own_redis, 4)
            waiting.cancel()
    await broker.close()
    await settle_at(own_redis, 0)


async def test_closing_the_results_alone_leaves_the_broker_its_connections(own_redis: RedisServer):
    url = own_redis.url()
    app = Celeriac("pair", url, url)
    broker, backend = app.connections().broker, app.connections().backend
    await broker.ping()
    await backend.ping()
    assert len(connections(own_redis)) == 1
    await backend.close()
    assert len(connections(own_redis)) == 1
    await broker.close()
    await settle_at(own_redis, 0)
    await broker.ping()
    await app.close()
    await settle_at(own_redis, 0)


@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_broker_of_the_users_own_lends_its_connections(
    own_redis: RedisServer, make_broker: MakeBroker, wrapped: bool
):
    own = make_broker(own_redis.url())
    broker = FaultyBroker(own, Faults()) if wrapped else own
    async with Celeriac("own", broker, own_redis.url()) as app:
        await own.ping()
        await app.connections().backend.ping()
        assert len(connections(own_redis)) == 1
    assert len(connections(own_redis)) == 1, "the app closed connections that are not its own"
    await own.ping()
    await own.close()
    await settle_at(own_redis, 0)
