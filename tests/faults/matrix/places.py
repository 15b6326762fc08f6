"""Where the messages of one case are, and what is left there afterwards, read without celeriac."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Protocol

import amqp
from celeriac import Celeriac
from celeriac.servers.memory.broker import MemoryBroker
from tests.amqp.proxy import Proxy
from tests.servers import PostgresServer, RabbitServer, RedisServer
from tests.servers import Proxy as SilentProxy

QUEUE = "celery"
ABSENCE = 0.3
"""Seconds for which a broker is gone."""


class Place(Protocol):
    """One case's own broker and result store."""

    url: str
    results: str

    def in_reach(self) -> AbstractAsyncContextManager[object]:
        """What it takes to reach it."""
        ...

    async def left(self, app: Celeriac) -> Mapping[str, int]:
        """How many messages are where."""
        ...

    def absence(self) -> AbstractAsyncContextManager[None]:
        """The broker is gone when the block begins, and back soon after it ended."""
        ...


class InMemory:
    url = results = "memory://"

    def in_reach(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def left(self, app: Celeriac) -> Mapping[str, int]:
        broker = app.connections().broker
        assert isinstance(broker, MemoryBroker)
        return {
            "waiting": await broker.depth(QUEUE),
            "held": len(broker._lines._held),
            "parked": await broker.schedule.count(),
            "dead": await broker.dead.count(),
        }

    def absence(self) -> AbstractAsyncContextManager[None]:
        raise AssertionError("a process does not lose its own memory")


class InFile:
    def __init__(self, file: Path) -> None:
        self._file = file
        self.url = self.results = f"sqlite:///{file}"

    def in_reach(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def left(self, app: Celeriac) -> Mapping[str, int]:
        with closing(sqlite3.connect(self._file)) as connection:
            ask = connection.execute
            rows = ask("SELECT owner IS NOT NULL, due_at IS NOT NULL FROM celeriac_message").fetchall()
            (dead,) = ask("SELECT count(*) FROM celeriac_dead").fetchone()
        return {
            "waiting": rows.count((0, 0)),
            "held": rows.count((1, 0)),
            "parked": rows.count((0, 1)),
            "dead": dead,
        }

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        """Another program holds the file's lock."""
        with closing(sqlite3.connect(self._file, isolation_level=None, timeout=10)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            await asyncio.sleep(ABSENCE)
            connection.execute("ROLLBACK")


class InRedis:
    """:param outage: what all cases that the server deserts share."""

    def __init__(self, server: RedisServer, prefix: str, outage: "Outage") -> None:
        self._server = server
        self._prefix = prefix
        self._outage = outage
        self.url = self.results = f"{server.url()}?global_keyprefix={prefix}"

    def in_reach(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def left(self, app: Celeriac) -> Mapping[str, int]:
        prefix = self._prefix
        with closing(self._server.client()) as client:
            lists = [key for key in client.scan_iter(f"{prefix}{QUEUE}*") if client.type(key) == b"list"]
            parked = client.zcard(f"{prefix}celeriac.due")
            held = client.hlen(f"{prefix}unacked") - parked
            return {
                "waiting": sum(client.llen(key) for key in lists),
                "held": held,
                "parked": parked,
                "dead": client.hlen(f"{prefix}celeriac.dead"),
                "stray": client.zcard(f"{prefix}celeriac.leases")
                - held
                + client.zcard(f"{prefix}unacked_index")
                - held
                - parked,
            }

    def absence(self) -> AbstractAsyncContextManager[None]:
        return self._outage.absence()


class InRedisFarAway(InRedis):
    """The workers that are to vanish reach it through a line that can fall silent."""

    def __init__(self, server: RedisServer, prefix: str, outage: "Outage") -> None:
        super().__init__(server, prefix, outage)
        self.far_url = ""
        self._line = SilentProxy(server.port)

    @asynccontextmanager
    async def in_reach(self) -> AsyncIterator[object]:
        async with self._line:
            self.far_url = f"redis://127.0.0.1:{self._line.port}/0?global_keyprefix={self._prefix}"
            yield

    def fall_silent(self) -> None:
        """Let nothing through any more, not even the end of a connection."""
        self._line.freeze()


class InPostgres:
    """:param schema: is the case's own."""

    def __init__(self, server: PostgresServer, schema: str) -> None:
        self._server = server
        self._schema = schema
        self._line = Proxy(server.port)
        self.url = self.results = ""

    @asynccontextmanager
    async def in_reach(self) -> AsyncIterator[object]:
        """Reach it through a line that can be cut."""
        await asyncio.to_thread(self._make)
        async with self._line:
            port = self._line.port
            self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres?schema={self._schema}"
            self.results = self.url
            yield

    async def left(self, app: Celeriac) -> Mapping[str, int]:
        return await asyncio.to_thread(self._count)

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        """The line is cut."""
        self._line.refuse()
        yield
        await asyncio.sleep(ABSENCE)
        self._line.accept()

    def _make(self) -> None:
        with self._server.client() as connection:
            connection.execute(f"CREATE SCHEMA {self._schema}")

    def _count(self) -> Mapping[str, int]:
        with self._server.client(self._schema) as connection:
            ask = connection.execute
            rows = ask("SELECT owner IS NOT NULL, due_at IS NOT NULL FROM celeriac_message").fetchall()
            (dead,) = ask("SELECT count(*) FROM celeriac_dead").fetchone()
        return {
            "waiting": rows.count((False, False)),
            "held": rows.count((True, False)),
            "parked": rows.count((False, True)),
            "dead": dead,
        }


class InRabbit:
    """:param vhost: is the case's own; :param results: where its results are."""

    def __init__(self, server: RabbitServer, vhost: str, results: str) -> None:
        self._server = server
        self.vhost = vhost
        self.url = ""
        self.results = results
        self._line = Proxy(server.port)

    @asynccontextmanager
    async def in_reach(self) -> AsyncIterator[object]:
        """Reach it through a line that can be cut."""
        async with self._line:
            self.url = self._line.url(f"{self.vhost}?queue_type=quorum")
            yield

    async def left(self, app: Celeriac) -> Mapping[str, int]:
        # What a worker holds is not told; when it has stopped, it waits again.
        return await asyncio.to_thread(self._count)

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        """The line is cut."""
        self._line.refuse()
        yield
        await asyncio.sleep(ABSENCE)
        self._line.accept()

    def _count(self) -> Mapping[str, int]:
        with closing(self._server.client(self.vhost)) as connection:
            delayed = ["celeriac.soon", *(f"celery_delayed_{level}" for level in range(28))]
            return {
                "waiting": _messages(connection, QUEUE),
                "parked": sum(_messages(connection, queue) for queue in delayed),
                "dead": _messages(connection, "celeriac.dead"),
            }


def _messages(connection: amqp.Connection, queue: str) -> int:
    try:
        return int(connection.channel().queue_declare(queue, passive=True).message_count)
    except amqp.NotFound:
        return 0


class Outage:
    """One death of one Redis, for all who wait for it.

    :param parties: how many there are.
    """

    def __init__(self, server: RedisServer, parties: int) -> None:
        self._server = server
        self._everyone = asyncio.Barrier(max(1, parties))

    @asynccontextmanager
    async def absence(self) -> AsyncIterator[None]:
        if await self._everyone.wait() == 0:
            self._server.kill()
        await self._everyone.wait()
        yield
        if await self._everyone.wait() == 0:
            await asyncio.sleep(ABSENCE)
            self._server.start()
        await self._everyone.wait()
