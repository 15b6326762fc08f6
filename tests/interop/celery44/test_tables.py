"""Results in PostgreSQL, in tables that Celery 4.4 made: its results are pickles there, and it goes on beside us."""

from collections.abc import AsyncIterator, Iterator
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


@pytest.fixture(scope="module")
def schema(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of an empty schema."""
    schema = f"old_{uuid4().hex}"
    with postgres_server.client() as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        yield schema
        connection.execute(f"DROP SCHEMA {schema} CASCADE")


@pytest.fixture(scope="module")
def theirs(postgres_server: PostgresServer, schema: str) -> str:
    """The result backend as Celery names it."""
    return postgres_server.url(scheme="db+postgresql") + f"?options=-csearch_path%3D{schema}"


@pytest.fixture(scope="module")
def worker_of_celery(interop_url: str, old_python: Path, theirs: str) -> Iterator[CeleryWorker]:
    with old_worker(old_python, interop_url, theirs) as worker:
        yield worker


@pytest.fixture(scope="module")
def client_of_celery(interop_url: str, old_python: Path, theirs: str) -> Iterator[OldCeleryClient]:
    client = OldCeleryClient(old_python, interop_url, theirs)
    yield client
    client.close()


@pytest.fixture
async def client(
    interop_url: str, postgres_server: PostgresServer, schema: str
) -> AsyncIterator[CeleriacClient]:
    client = CeleriacClient(interop_url, postgres_server.url(schema))
    yield client
    await client.close()


async def test_its_tables_are_used_and_it_goes_on_using_them(
    interop_url: str,
    postgres_server: PostgresServer,
    schema: str,
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
    with postgres_server.client(schema) as connection:
        columns = connection.execute(
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = %s AND column_name = 'children'",
            (schema,),
        )
        assert columns.fetchone() == (0,), "it is an old table"

    # Whoever ran a task, our client has its result.
    app = make_app(interop_url, postgres_server.url(schema))
    async with app, app.worker(queues=[queue], concurrency=1):
        assert await app.result(by_celery.id).wait(timeout=30) == 5
        for place in (queue, worker_of_celery.queue):
            sent = await client.send("interop.add", [2, 3], queue=place)
            assert await sent.value() == 5
            failed = await client.send("interop.run_out", ["tea", 3], queue=place)
            with pytest.raises(OutOfStock):
                await failed.value()

    # And its own worker and client go on, although the table has further columns now.
    sent = await client_of_celery.send("interop.add", [2, 3], queue=worker_of_celery.queue)
    assert await sent.value() == 5
