"""Connections to a schema of one's own, and processes that use it."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.results import PostgresBackend
from celeriac.servers.postgres.url import parse_postgres_url
from celeriac.wire.content import Codecs
from tests.servers import LoggedProcess, PostgresServer

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def connect(postgres_server: PostgresServer, postgres_schema: str) -> Callable[..., Connections]:
    """Make connections to the test's own schema for a role."""
    return lambda role="postgres": Connections(
        parse_postgres_url(postgres_server.url(postgres_schema, user=role)), "test", 20.0
    )


@pytest.fixture
async def open_results(connect: Callable[..., Connections]) -> AsyncIterator[Callable[..., PostgresBackend]]:
    """Make result stores; they are closed at the end."""
    async with AsyncExitStack() as stack:

        def open_results(
            role: str = "postgres", codecs: Codecs | None = None, **options: object
        ) -> PostgresBackend:
            backend = PostgresBackend(connect(role), codecs or Codecs(), **options)
            stack.push_async_callback(backend.close)
            return backend

        yield open_results


@pytest.fixture
def start() -> Iterator[Callable[..., LoggedProcess]]:
    """Start processes that do one act of `taker.py`; they are killed at the end."""
    processes: list[LoggedProcess] = []

    def start(url: str, act: str, queue: str) -> LoggedProcess:
        command = [sys.executable, "-m", "tests.postgres.taker", url, act, queue]
        processes.append(LoggedProcess(command, cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
