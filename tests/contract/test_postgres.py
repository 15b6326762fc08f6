"""The PostgreSQL adapters keep the contracts; the second of two connections is of a role that may make no tables."""

from collections.abc import AsyncIterator, Callable

import pytest

from celeriac.board import Board
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.testing.contracts import BackendContract, BoardContract, ChordContract, SlotsContract
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
    def other(self, second: PostgresBackend, board: Board) -> Board:
        return second.board
