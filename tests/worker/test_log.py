"""What the worker's log says of tasks and of outages."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import pytest

from celeriac import Celeriac
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer, RedisServer

PATIENCE = 60.0


@dataclass(frozen=True)
class Outage:
    """A broker that can be taken away, and brought back."""

    url: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


@asynccontextmanager
async def redis_outage(server: RedisServer) -> AsyncIterator[Outage]:
    yield Outage(
        server.url(), lambda: asyncio.to_thread(server.kill), lambda: asyncio.to_thread(server.start)
    )


@asynccontextmanager
async def rabbit_outage(server: RabbitServer) -> AsyncIterator[Outage]:
    async with Proxy(server.port) as proxy:

        async def begin() -> None:
            proxy.refuse()
            proxy.cut()

        async def end() -> None:
            proxy.accept()

        yield Outage(proxy.url(), begin, end)


@pytest.fixture(params=["redis", "rabbitmq"])
def outage(request: pytest.FixtureRequest) -> AbstractAsyncContextManager[Outage]:
    if request.param == "redis":
        return redis_outage(request.getfixturevalue("own_redis"))
    return rabbit_outage(request.getfixturevalue("rabbit_server"))


async def said(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while text not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_end_of_an_outage_is_told_once(
    outage: AbstractAsyncContextManager[Outage], queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "celeriac")
    async with outage as broker, Celeriac("told", broker.url, "disabled://", default_queue=queue) as app:

        @app.task(name="told.noop")
        async def noop() -> None:
            pass

        async with app.worker() as worker:
            await worker.ready()
            assert "connected again" not in caplog.text
            await broker.begin()
            await said(caplog, "cannot take messages")
            await broker.end()
            await said(caplog, "connected again")  # though there is no message
            result = await noop.send()
            await said(caplog, f"told.noop[{result.id}] succeeded")
    lines = [record.getMessage() for record in caplog.records]
    assert len(re.findall(r"connected again after \d+\.\d s", "\n".join(lines))) == 1
    begun, ended = (
        next(n for n, line in enumerate(lines) if line.startswith(f"told.noop[{result.id}] {word}"))
        for word in ("started", "succeeded in")
    )
    assert begun < ended
