"""Tasks are sent in the caller's own transaction, whichever library the connection is of."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from django.conf import settings
from django.db.backends.postgresql.base import DatabaseWrapper
from django.utils.functional import empty
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from celeriac import Celeriac, chain, group
from celeriac.errors import ConfigError
from tests.servers import PostgresServer


def sum_of(xs: list[int]) -> int:
    return sum(xs)


def make_app(url: str) -> Celeriac:
    app = Celeriac("shop", url)
    app.register("add", lambda a, b: a + b)
    app.register("sum", sum_of)
    return app


@pytest.fixture
async def app(postgres_url: str) -> AsyncIterator[Celeriac]:
    async with make_app(postgres_url) as app:
        await app.connections().broker.ping()
        yield app


# Each kind yields what sends, and what ends its transaction: committed or not.


@asynccontextmanager
async def by_session(server: PostgresServer) -> AsyncIterator[Any]:
    engine = sqlalchemy.create_engine(server.url(scheme="postgresql+psycopg"))
    with Session(engine) as session:
        yield session, session.commit, session.rollback
    engine.dispose()


@asynccontextmanager
async def by_async_session(server: PostgresServer, driver: str) -> AsyncIterator[Any]:
    engine = create_async_engine(server.url(scheme=f"postgresql+{driver}"))
    async with AsyncSession(engine) as session:
        yield session, session.commit, session.rollback
    await engine.dispose()


@asynccontextmanager
async def by_psycopg(server: PostgresServer) -> AsyncIterator[Any]:
    with psycopg.connect(server.url()) as connection:
        yield connection, connection.commit, connection.rollback


@asynccontextmanager
async def by_async_psycopg(server: PostgresServer) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(server.url()) as connection:
        yield connection, connection.commit, connection.rollback


@asynccontextmanager
async def by_asyncpg(server: PostgresServer) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(server.url())
    transaction = connection.transaction()
    await transaction.start()
    yield connection, transaction.commit, transaction.rollback
    await connection.close()


KINDS: dict[str, Callable[[PostgresServer], Any]] = {
    "SQLAlchemy Session": by_session,
    "SQLAlchemy AsyncSession, asyncpg": lambda server: by_async_session(server, "asyncpg"),
    "SQLAlchemy AsyncSession, psycopg": lambda server: by_async_session(server, "psycopg"),
    "psycopg": by_psycopg,
    "psycopg async": by_async_psycopg,
    "asyncpg": by_asyncpg,
}


async def end(action: Callable[[], Any]) -> None:
    done = action()
    if done is not None:
        await done


@pytest.mark.parametrize("kind", KINDS)
async def test_rolled_back_leaves_nothing_and_committed_wakes_a_worker(
    app: Celeriac, postgres_server: PostgresServer, postgres_url: str, kind: str
):
    broker = app.connections().broker
    async with AsyncExitStack() as stack:
        connection, commit, rollback = await stack.enter_async_context(KINDS[kind](postgres_server))
        add = app.tasks["add"]
        await app.using(connection).send(add, 1, 2)
        await end(rollback)
        assert await broker.depth("celery") == 0
        async with app.worker(concurrency=4):
            if kind == "asyncpg":  # its transaction is an object of its own
                transaction = connection.transaction()
                await transaction.start()
                commit = transaction.commit
            single = await app.using(connection).send(add, 20, 22)
            named = await add.using(connection=connection, countdown=0.01).send(2, 3)
            many = await app.using(connection).send_many([add.call(n, 1) for n in range(150)])
            chained = await app.using(connection).send(chain(add.s(1, 2), add.s(10)))
            counted = await app.using(connection).send(
                group(add.s(n, n) for n in range(3)) | app.tasks["sum"].s()
            )
            await asyncio.sleep(0)
            assert (await single.info()).status == "PENDING"
            await end(commit)
            assert await single.wait(timeout=60) == 42
            assert await named.wait(timeout=60) == 5
            assert await asyncio.gather(*[one.wait(timeout=60) for one in many]) == [
                n + 1 for n in range(150)
            ]
            assert await chained.wait(timeout=60) == 13
            assert await counted.wait(timeout=60) == 6


async def test_code_without_a_loop(postgres_server: PostgresServer, postgres_url: str):
    def send() -> list[Any]:
        app = make_app(postgres_url)
        add = app.tasks["add"]
        with psycopg.connect(postgres_server.url()) as connection:
            results = [app.using(connection).delay(add, 1, 2), add.using(connection=connection).delay(3, 4)]
            results += app.using(connection).delay_many([add.call(5, 6)])
            results.append(app.using(connection).delay(chain(add.s(1, 1), add.s(1))))
        return [result.id for result in results]

    ids = await asyncio.to_thread(send)
    async with make_app(postgres_url) as app, app.worker(concurrency=4):
        assert [await app.result(id).wait(timeout=60) for id in ids] == [3, 7, 11, 3]


@pytest.fixture
def django_settings() -> Iterator[None]:
    """Django's defaults, as far as a connection asks for them, and nothing of them left afterwards."""
    if settings.configured:
        yield
        return
    settings.configure()
    yield
    settings._wrapped = empty


@pytest.mark.filterwarnings("ignore:Accessing the database during app initialization:RuntimeWarning")
async def test_djangos_connection(postgres_server: PostgresServer, postgres_url: str, django_settings: None):
    def send() -> str:
        app = make_app(postgres_url)
        add = app.tasks["add"]
        database = {"HOST": "127.0.0.1", "PORT": postgres_server.port, "NAME": "postgres", "USER": "postgres"}
        usual = {"PASSWORD": "", "OPTIONS": {}, "TIME_ZONE": None, "CONN_MAX_AGE": 0, "AUTOCOMMIT": True}
        usual |= {"CONN_HEALTH_CHECKS": False, "ATOMIC_REQUESTS": False}
        connection = DatabaseWrapper(database | usual)
        connection.set_autocommit(False)
        app.using(connection).delay(add, 1, 2)
        connection.rollback()
        sent = app.using(connection).delay(add, 3, 4)
        connection.commit()
        connection.close()
        return sent.id

    id = await asyncio.to_thread(send)
    async with make_app(postgres_url) as app:
        assert await app.connections().broker.depth("celery") == 1
        async with app.worker(concurrency=1):
            assert await app.result(id).wait(timeout=60) == 7


async def test_a_new_queue_keeps_nobody_waiting(postgres_server: PostgresServer, postgres_url: str):
    async with make_app(postgres_url) as app, make_app(postgres_url) as other:
        add = app.tasks["add"].using(queue="new")
        with psycopg.connect(postgres_server.url()) as connection:
            await add.using(connection=connection).send(1, 2)
            async with asyncio.timeout(60):
                await other.tasks["add"].using(queue="new").send(3, 4)
            assert await other.connections().broker.depth("new") == 1
        assert await other.connections().broker.depth("new") == 2


async def test_an_async_connection_is_awaited(postgres_url: str, postgres_server: PostgresServer):
    app = make_app(postgres_url)
    connection = await asyncpg.connect(postgres_server.url())
    try:
        with pytest.raises(ConfigError, match="write await"):
            await asyncio.to_thread(app.using(connection).delay, app.tasks["add"], 1, 2)
    finally:
        await connection.close()


async def test_the_same_for_a_sqlite_file(tmp_path):
    url = f"sqlite:///{tmp_path}/shop.db"
    async with make_app(url) as app:
        await app.connections().broker.ping()
        add = app.tasks["add"]
        engine = sqlalchemy.create_engine(url)
        with closing(sqlite3.connect(tmp_path / "shop.db")) as connection, Session(engine) as session:
            await app.using(connection).send(add, 1, 2)
            connection.rollback()
            assert await app.connections().broker.depth("celery") == 0
            first = await app.using(connection).send(
                group(add.s(n, n) for n in range(3)) | app.tasks["sum"].s()
            )
            connection.commit()
            second = await add.using(connection=session).send(3, 4)
            session.commit()
        engine.dispose()
        async with app.worker(concurrency=2):
            assert await first.wait(timeout=60) == 6
            assert await second.wait(timeout=60) == 7


async def test_other_brokers_say_what_to_do(postgres_server: PostgresServer):
    with sqlite3.connect(":memory:") as connection:
        for url in ("redis://127.0.0.1:1", "amqp://127.0.0.1:1", "memory://"):
            app = make_app(url)
            with pytest.raises(ConfigError, match="on_commit"):
                await app.using(connection).send(app.tasks["add"], 1, 2)
            await app.close()
    connection.close()


def test_what_is_no_connection_is_refused(postgres_url: str):
    with pytest.raises(ConfigError, match="Session"):
        make_app(postgres_url).using(object())
