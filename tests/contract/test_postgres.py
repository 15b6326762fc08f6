"""The PostgreSQL adapters keep the contracts; the second of two connections is of a role that may make no tables."""

from collections.abc import AsyncIterator, Callable

import pytest

from celeriac.contracts.board import Board
from celeriac.contracts.set_aside import Cap
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.testing.contracts import (
    BackendContract,
    BeatContract,
    BoardContract,
    BrokerContract,
    ChordContract,
    FailedContract,
    FanoutContract,
    OnceContract,
    Plant,
    RemovalContract,
    RevocationContract,
    ScheduleContract,
    SettlementContract,
    SlotsContract,
)
from celeriac.wire.content import Codecs
from tests.servers import PostgresServer

Connect = Callable[[str], Connections]


@pytest.fixture
def connect(postgres_server: PostgresServer, postgres_schema: str) -> Connect:
    """Make connections to the test's own schema for a role."""
    return lambda role: Connections(
        parse_postgres_url(postgres_server.url(postgres_schema, user=role)), "test", 20.0
    )


@pytest.fixture
async def broker(connect: Connect) -> AsyncIterator[PostgresBroker]:
    broker = PostgresBroker(connect("postgres"))
    await broker.ping()
    yield broker
    await broker.close()


class TestPostgresBroker(BrokerContract, RemovalContract, OnceContract):
    """Messages."""

    @pytest.fixture
    async def second(self, connect: Connect, broker: PostgresBroker) -> AsyncIterator[PostgresBroker]:
        second = PostgresBroker(connect("guest"))
        yield second
        await second.close()

    @pytest.fixture
    def plant(self, broker: PostgresBroker, postgres_server: PostgresServer, postgres_schema: str) -> Plant:
        async def plant(queue: str, raw: bytes) -> None:
            with postgres_server.client(postgres_schema) as connection:
                connection.execute(
                    "INSERT INTO celeriac_message (queue, priority, frame) VALUES (%s, 0, %s)", (queue, raw)
                )

        return plant


class TestPostgresBeat(BeatContract):
    """Periodic tasks."""

    second = TestPostgresBroker.second


class TestPostgresFailed(FailedContract):
    """What failed for good."""

    @pytest.fixture
    async def capped(self, connect: Connect, broker: PostgresBroker) -> AsyncIterator[PostgresBroker]:
        capped = PostgresBroker(connect("guest"), failed=Cap(most=3))
        yield capped
        await capped.close()


class TestPostgresSchedule(ScheduleContract):
    """What is for later."""

    second = TestPostgresBroker.second


class TestPostgresRevocations(RevocationContract):
    """What must not run."""

    second = TestPostgresBroker.second


class TestPostgresFanout(FanoutContract):
    """Telling and asking everybody who listens."""

    second = TestPostgresBroker.second


class TestPostgresSettlements(SettlementContract):
    """Endings, with connections of their own for the results."""

    @pytest.fixture
    async def results(self, connect: Connect) -> AsyncIterator[PostgresBackend]:
        results = PostgresBackend(connect("postgres"), Codecs())
        yield results
        await results.close()


@pytest.fixture
async def backend(connect: Connect) -> AsyncIterator[PostgresBackend]:
    backend = PostgresBackend(connect("postgres"), Codecs())
    await backend.ping()
    yield backend
    await backend.close()


@pytest.fixture
async def second(connect: Connect, backend: PostgresBackend) -> AsyncIterator[PostgresBackend]:
    second = PostgresBackend(connect("guest"), Codecs())
    yield second
    await second.close()


class TestPostgresBackend(BackendContract, ChordContract):
    """Results."""


class TestPostgresBoard(BoardContract, SlotsContract):
    """What a broker's and a result store's users share."""

    @pytest.fixture
    async def board(self, backend: PostgresBackend) -> Board:
        await backend.board.sets.revision("")
        return backend.board

    @pytest.fixture
    async def other(self, second: PostgresBackend, board: Board) -> Board:
        await second.board.sets.revision("")
        return second.board
