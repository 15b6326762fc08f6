"""A slow line costs time and fails nothing; a server that says nothing is told of in time."""

import asyncio
import time
from collections.abc import Callable

import pytest

from celeriac.errors import BackendUnavailable, BrokerUnavailable
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.result import SUCCESS, ResultRecord
from tests.servers import PostgresServer
from tests.servers.proxy import Proxy

PATIENCE = 0.8
PACE = 1_500_000
LARGE = 4_500_000


@pytest.fixture
def connect(postgres_schema: str) -> Callable[[Proxy], Connections]:
    """Make connections through a proxy to the test's own schema."""

    def connect(line: Proxy) -> Connections:
        url = f"postgresql://postgres@127.0.0.1:{line.port}/postgres?schema={postgres_schema}"
        return Connections(parse_postgres_url(url), "test", 20.0, PATIENCE)

    return connect


async def test_a_large_result_is_stored_and_read_on_a_slow_line(connect, postgres_server: PostgresServer):
    async with Proxy(postgres_server.port, pace=PACE, pace_back=PACE) as line, asyncio.timeout(60):
        backend = PostgresBackend(connect(line), Codecs())
        await backend.ping()
        began = time.monotonic()
        await backend.store(backend.encode(ResultRecord(task_id="one", status=SUCCESS, result="x" * LARGE)))
        assert time.monotonic() - began > 2 * PATIENCE, "it was slow"
        (record,) = await backend.load(["one"])
        assert record is not None
        assert len(record.result) == LARGE
        await backend.close()


async def test_a_large_message_is_sent_on_a_slow_line(connect, postgres_server: PostgresServer, queue: str):
    async with Proxy(postgres_server.port, pace=PACE) as line, asyncio.timeout(60):
        broker = PostgresBroker(connect(line))
        await broker.ping()
        await broker.publish(Envelope(body=bytes(LARGE)), Route(queue, queue=queue))
        assert await broker.depth(queue) == 1
        await broker.close()


async def test_a_silent_server_is_told_of_in_time(connect, postgres_server: PostgresServer, queue: str):
    async with Proxy(postgres_server.port) as line:
        broker, backend = PostgresBroker(connect(line)), PostgresBackend(connect(line), Codecs())
        await broker.ping()
        await backend.ping()
        line.freeze()
        async with asyncio.timeout(20):
            with pytest.raises(BrokerUnavailable, match="did not answer in time"):
                await broker.publish(Envelope(body=b""), Route(queue, queue=queue))
            with pytest.raises(BackendUnavailable, match="did not answer in time"):
                await backend.store(
                    backend.encode(ResultRecord(task_id="one", status=SUCCESS, result="x" * LARGE))
                )
        line.thaw()
        async with asyncio.timeout(20):
            await broker.publish(Envelope(body=b""), Route(queue, queue=queue))
            await backend.close()
            await broker.close()
