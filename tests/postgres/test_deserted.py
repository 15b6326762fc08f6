"""A heartbeat that nobody would receive costs the server nothing, and a listener that comes gets the next one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from celeriac import Celeriac
from celeriac.contracts.fanout import Binding, Exchange, Fanout, KnowsListeners
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.wire.envelope import Envelope
from celeriac.worker.events import heart
from tests.servers import PostgresServer

EVENTS = Exchange("celeryev", by_key=True)
BEAT = "worker.heartbeat"
HEARS_BEATS = [Binding(exchange=EVENTS, key="worker.#")]


@pytest.fixture
async def broker(postgres_url: str) -> AsyncIterator[PostgresBroker]:
    async for made in connected(postgres_url):
        yield made


@pytest.fixture
async def other(postgres_url: str) -> AsyncIterator[PostgresBroker]:
    """The same place with connections of its own, as in another process."""
    async for made in connected(postgres_url):
        yield made


async def connected(url: str) -> AsyncIterator[PostgresBroker]:
    broker = PostgresBroker(Connections(parse_postgres_url(url), "test", 20.0))
    await broker.ping()
    yield broker
    await broker.close()


async def until(holds: Callable[[], bool], step: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await step()


async def left_alone(fanout: Fanout) -> Callable[[], bool]:
    """Speak to nobody; return what tells whether it is known that nobody hears."""
    assert isinstance(fanout, KnowsListeners)

    def is_deserted() -> bool:
        return fanout.is_deserted(EVENTS, BEAT)

    assert not is_deserted()
    await until(is_deserted, lambda: fanout.publish(EVENTS, Envelope(body=b"{}"), BEAT))
    return is_deserted


async def test_a_listener_that_comes_is_known_of_at_once(broker: PostgresBroker, other: PostgresBroker):
    is_deserted = await left_alone(broker.fanout)
    async with other.fanout.listen(HEARS_BEATS) as heard:
        await until(lambda: not is_deserted(), lambda: asyncio.sleep(0.01))
        assert await broker.fanout.publish(EVENTS, Envelope(body=b"{}"), BEAT) == 1
        assert not is_deserted()
        async with asyncio.timeout(60):
            envelope = await anext(heard)
        assert isinstance(envelope, Envelope)
        assert envelope.body == b"{}"
    await left_alone(broker.fanout)


async def test_what_is_known_of_one_key_says_nothing_of_another(broker: PostgresBroker):
    await left_alone(broker.fanout)
    assert not broker.fanout.is_deserted(EVENTS, "task.multi")


async def test_a_connection_that_was_cut_knows_nothing(
    broker: PostgresBroker, postgres_server: PostgresServer
):
    """A listener may have come while nothing could be heard."""
    is_deserted = await left_alone(broker.fanout)
    pid = broker.connections.listening.connection.get_server_pid()
    with postgres_server.client() as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
    await until(lambda: not is_deserted(), lambda: asyncio.sleep(0.01))
    await until(lambda: broker.connections.listening.is_open, lambda: asyncio.sleep(0.01))
    assert not is_deserted()
    await left_alone(broker.fanout)


async def test_who_closed_and_opened_again_knows_nothing(broker: PostgresBroker):
    is_deserted = await left_alone(broker.fanout)
    await broker.close()
    assert not is_deserted()
    await left_alone(broker.fanout)


async def test_a_worker_that_nobody_hears_asks_for_listeners_no_more(
    postgres_url: str, other: PostgresBroker, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(heart, "FREQUENCY", 0.02)
    async with Celeriac("shop", postgres_url) as app, app.worker(concurrency=1):
        broker = app.connections().broker
        assert isinstance(broker, PostgresBroker)
        fanout = broker.fanout
        await until(lambda: fanout.is_deserted(EVENTS, BEAT), lambda: asyncio.sleep(0.01))
        asked = 0
        fetch = broker._queues.link.fetch

        async def count(statement: str, *values: object, **options: bool) -> object:
            nonlocal asked
            asked += "celeriac_binding WHERE exchange" in statement
            return await fetch(statement, *values, **options)

        monkeypatch.setattr(broker._queues.link, "fetch", count)
        await asyncio.sleep(20 * heart.FREQUENCY)  # what does not happen can only be waited for
        assert asked == 0
        began = time.monotonic()
        async with other.fanout.listen(HEARS_BEATS) as heard:
            async with asyncio.timeout(60):
                await anext(heard)
        assert time.monotonic() - began < 10  # far less than a worker's time between two questions
