"""Who begins to wait while the result store is away waits for it to come back, and no longer than it wanted to."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from celeriac import Celeriac, ResultTimeout
from celeriac.servers.redis.results import RedisBackend
from celeriac.servers.sqlite import SqlBackend
from celeriac.servers.sqlite.limits import FileLimits
from celeriac.wire.content import Codecs
from celeriac.wire.result import SUCCESS, ResultRecord
from celeriac.worker.insist import Insist
from tests.servers import RedisServer

WAIT = 60.0


@asynccontextmanager
async def killed(server: RedisServer) -> AsyncIterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.start()


@asynccontextmanager
async def hung(server: RedisServer) -> AsyncIterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@asynccontextmanager
async def locked(file: Path) -> AsyncIterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture(params=["killed", "hung", "locked"])
async def app_and_absence(
    request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[tuple[Celeriac, Callable[[], Any]]]:
    """An app whose store was in use already, and what makes the store go away for a while."""
    if request.param == "locked":
        url, absence = f"sqlite:///{tmp_path}/shop.db", lambda: locked(tmp_path / "shop.db")
        backend = SqlBackend(url, Codecs(), limits=FileLimits(busy=0.05))
    else:
        server: RedisServer = request.getfixturevalue("own_redis")
        away = killed if request.param == "killed" else hung
        url, absence = server.url(), lambda: away(server)
        backend = RedisBackend(url, Codecs(), timeout=0.3)
    async with Celeriac("waiting", url, backend, publish_timeout=0.3, default_queue=request.param) as app:
        await app.connections().backend.ping()
        yield app, absence
    await backend.close()


async def store(app: Celeriac, task_id: str, value: int) -> None:
    backend = app.connections().backend
    encoded = backend.encode(ResultRecord(task_id=task_id, status=SUCCESS, result=value))
    await Insist()(lambda: backend.store(encoded), "storing")


async def test_a_wait_begun_in_an_outage_outlasts_it(app_and_absence):
    app, absence = app_and_absence
    first, second, third = (app.result(name) for name in ("first", "second", "third"))

    async def last_state() -> str:
        return [record.status async for record in third.watch()][-1]

    async with absence():
        waits = [asyncio.create_task(wait) for wait in (first.wait(WAIT), second.wait(), last_state())]
        await asyncio.wait(waits, timeout=0.7)
        assert not any(wait.done() for wait in waits)
    for number, name in enumerate(("first", "second", "third")):
        await store(app, name, number)
    assert await asyncio.gather(*waits) == [0, 1, SUCCESS]


async def test_a_wait_in_an_outage_ends_in_time_and_says_so(app_and_absence):
    app, absence = app_and_absence
    async with absence():
        began = monotonic()
        with pytest.raises(ResultTimeout, match="was not ready within 1 s: last seen PENDING") as told:
            await app.result("never").wait(1.0)
        assert monotonic() - began < 20.0
    if app.settings.default_queue != "locked":  # a file that somebody else writes can still be read
        assert "the result store could not be asked: redis://" in str(told.value)


@pytest.mark.parametrize("begun", [0, 20], ids=["in-the-outage", "some-before"])
async def test_an_outage_is_one_warning_however_many_wait(own_redis, caplog, begun):
    url = own_redis.url()
    async with Celeriac("waiting", url, url, publish_timeout=1.0) as app:
        await app.connections().backend.ping()
        waits = [asyncio.create_task(app.result(f"early{n}").wait()) for n in range(begun)]
        await asyncio.sleep(0.2)
        async with killed(own_redis):
            waits += [asyncio.create_task(app.result(f"late{n}").wait()) for n in range(50)]
            async with asyncio.timeout(WAIT):
                while "results are waited for" not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
        warnings = [record for record in caplog.records if record.levelname == "WARNING"]
        assert [record.getMessage()[:23] for record in warnings] == ["results are waited for,"]
        await store(app, "late1", 1)
        assert await waits[begun + 1] == 1
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)


async def test_an_outage_is_one_warning_for_a_worker_however_much_it_has_to_store(own_redis, queue, caplog):
    url, gate = own_redis.url(), asyncio.Event()
    async with Celeriac("working", url, url, publish_timeout=1.0, default_queue=queue) as app:

        @app.task(name="wait")
        async def wait() -> int:
            await gate.wait()
            return 1

        async with app.worker() as worker:
            results = [await wait.send() for _ in range(30)]
            while worker.tally.received < 30:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            async with killed(own_redis):
                gate.set()
                async with asyncio.timeout(WAIT):
                    while "failed, again in" not in caplog.text:  # noqa: ASYNC110 - the log tells nobody
                        await asyncio.sleep(0.01)
                await asyncio.sleep(0.5)
            assert await asyncio.gather(*(result.wait(WAIT) for result in results)) == [1] * 30
    told = [record.levelname for record in caplog.records if "failed, again in" in record.getMessage()]
    assert told.count("WARNING") <= 2, "one for each service at the most"
