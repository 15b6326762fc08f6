"""Results in tables that Celery 4.4 made: what it writes there are pickles, and it goes on beside us."""

import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests.interop.celeriac_client import CeleriacClient
from tests.interop.celeriac_side import make_app
from tests.interop.celery44.client import OldCeleryClient
from tests.interop.celery44.conftest import old_worker
from tests.interop.celery_worker import CeleryWorker
from tests.interop.errors import OutOfStock
from tests.servers import PostgresServer


@dataclass(frozen=True)
class Database:
    """An empty database.

    :param theirs: its URL as Celery has it.
    :param ours: its URL.
    :param columns: returns the names of the columns of `celery_taskmeta`.
    """

    theirs: str
    ours: str
    columns: Callable[[], set[str]]


@pytest.fixture(params=["postgres", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        yield _file(tmp_path / "results.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    schema = f"old_{uuid4().hex}"
    with server.client() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        yield _schema(server, schema)
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


def _file(path: Path) -> Database:
    def columns() -> set[str]:
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT name FROM pragma_table_info('celery_taskmeta')")
            return {name for (name,) in rows}

    return Database(f"db+sqlite:///{path}", f"sqlite:///{path}", columns)


def _schema(server: PostgresServer, schema: str) -> Database:
    def columns() -> set[str]:
        query = (
            "SELECT column_name FROM information_schema.columns WHERE table_schema = %s AND table_name = %s"
        )
        with server.client() as connection:
            return {name for (name,) in connection.execute(query, (schema, "celery_taskmeta"))}

    theirs = server.url(scheme="db+postgresql") + f"?options=-csearch_path%3D{schema}"
    return Database(theirs, server.url(schema), columns)


@pytest.fixture
def worker_of_celery(interop_url: str, old_python: Path, database: Database) -> Iterator[CeleryWorker]:
    with old_worker(old_python, interop_url, database.theirs) as worker:
        yield worker


@pytest.fixture
def client_of_celery(interop_url: str, old_python: Path, database: Database) -> Iterator[OldCeleryClient]:
    client = OldCeleryClient(old_python, interop_url, database.theirs)
    yield client
    client.close()


@pytest.fixture
async def client(interop_url: str, database: Database) -> AsyncIterator[CeleriacClient]:
    client = CeleriacClient(interop_url, database.ours)
    yield client
    await client.close()


async def test_its_tables_are_used_and_it_goes_on_using_them(
    interop_url: str,
    database: Database,
    worker_of_celery: CeleryWorker,
    client_of_celery: OldCeleryClient,
    client: CeleriacClient,
    queue: str,
) -> None:
    # Its processes cannot make the tables at once, so one of them looks for a result first.
    early = await client_of_celery.send("interop.add", [2, 3], queue=queue)
    assert await early.state() == "PENDING"
    by_celery = await client_of_celery.send("interop.add", [2, 3], queue=worker_of_celery.queue)
    assert await by_celery.value() == 5
    assert "result" in database.columns()
    assert "children" not in database.columns(), "it is an old table"

    # Whoever ran a task, our client has its result.
    app = make_app(interop_url, database.ours)
    async with app, app.worker(queues=[queue], concurrency=1):
        assert await app.result(by_celery.id).wait(timeout=60) == 5
        for place in (queue, worker_of_celery.queue):
            sent = await client.send("interop.add", [2, 3], queue=place)
            assert await sent.value() == 5
            failed = await client.send("interop.run_out", ["tea", 3], queue=place)
            with pytest.raises(OutOfStock):
                await failed.value()

    # And its own worker and client go on, although the table has further columns now.
    sent = await client_of_celery.send("interop.add", [2, 3], queue=worker_of_celery.queue)
    assert await sent.value() == 5
