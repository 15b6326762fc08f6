"""The broker goes away and comes back; the worker and the client see to themselves, and nothing is lost."""

import asyncio
import contextlib
import resource
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from celeriac import Celeriac, Result
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker
from celeriac.errors import BackendUnavailable, BrokerUnavailable
from celeriac.servers.redis.broker import RedisBroker
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.url import parse_redis_url
from celeriac.servers.sqlite import SqlBackend, SqliteBroker
from celeriac.servers.sqlite.limits import FileLimits
from celeriac.settings import Settings
from celeriac.wire.content import Codecs
from tests.servers import RedisSentinel, RedisServer
from tests.servers.proxy import Proxy

WAIT = 60.0
SETTINGS = Settings(publish_timeout=0.5, lease=3.0)


class Shop:
    """A worker and a client on one broker; every run is counted outside of it."""

    def __init__(self, broker: str | Broker, backend: str | Backend) -> None:
        self.app = Celeriac("shop", broker, backend, settings=SETTINGS)
        self.runs: Counter[int] = Counter()
        self.go_on = asyncio.Event()
        self._sent = 0
        self._results: dict[int, Result[int]] = {}

        @self.app.task(name="count")
        async def count(number: int) -> int:
            self.runs[number] += 1
            return number

        @self.app.task(name="stay")
        async def stay(number: int) -> int:
            self.runs[number] += 1
            await self.go_on.wait()
            return number

        self._count, self._stay = count, stay

    async def send(self) -> bool:
        """Send one task; return whether the broker took it. It may have, though it says no."""
        self._sent += 1
        try:
            self._results[self._sent] = await self._count.send(self._sent)
        except BrokerUnavailable:
            return False
        return True

    async def send_until(self, over: asyncio.Event) -> None:
        """Send, whatever happens."""
        while not over.is_set():
            await self.send()
            await asyncio.sleep(0.01)

    async def stay(self) -> asyncio.Task[int]:
        """Have a task run that stays until ``go_on``; return who waits for its result."""
        self._sent += 1
        self._results[self._sent] = await self._stay.send(self._sent)
        async with asyncio.timeout(WAIT):
            while not self.runs[self._sent]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return asyncio.create_task(self._value(self._results[self._sent]))

    async def all_ran_once(self) -> None:
        """Wait for the result of everything that was sent so far."""
        self.go_on.set()
        results = dict(self._results)
        values = await asyncio.gather(*(self._value(result) for result in results.values()))
        assert values == list(results)
        again = {number: runs for number, runs in self.runs.items() if runs > 1}
        assert not again, f"ran more than once: {again}"
        assert all(self.runs[number] == 1 for number in results)

    async def _value(self, result: Result[int]) -> int:
        async with asyncio.timeout(WAIT):
            while True:
                with contextlib.suppress(BackendUnavailable):
                    return await result.wait(WAIT)
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def open_shop(broker: str | Broker, backend: str | Backend | None = None) -> AsyncIterator[Shop]:
    """Open one on a URL, or on a broker and a result store, which are closed at the end."""
    shop = Shop(broker, backend or str(broker))
    async with contextlib.AsyncExitStack() as stack:
        for made in (backend, broker):
            if not isinstance(made, str | None):
                stack.push_async_callback(made.close)
        async with working(shop):
            yield shop


@contextlib.asynccontextmanager
async def working(shop: Shop) -> AsyncIterator[None]:
    async with shop.app, shop.app.worker(concurrency=20) as worker:
        await worker.ready()
        assert await shop.send()
        await shop.all_ran_once()
        shop.go_on.clear()
        yield


async def through(shop: Shop, fault: Awaitable[None]) -> None:
    """Let the fault happen while a task runs, while a result is waited for, and while tasks are sent."""
    waiting = await shop.stay()
    over = asyncio.Event()
    sending = asyncio.create_task(shop.send_until(over))
    await fault
    over.set()
    await sending
    await sends_again(shop)
    assert not waiting.done()
    await shop.all_ran_once()
    await waiting


async def sends_again(shop: Shop) -> None:
    async with asyncio.timeout(WAIT):
        while not await shop.send():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def connections(server: RedisServer) -> list[str]:
    """What each connection did last, and how long ago."""
    with server.client() as client:
        return [
            f"{found['cmd']} {found['idle']} s ago"
            for found in client.client_list()
            if found["cmd"] != "client|list"
        ]


async def settled(server: RedisServer, most: int) -> None:
    """Wait until there are no more connections than that."""
    try:
        async with asyncio.timeout(WAIT / 2):
            while len(connections(server)) > most:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"more than {most} connections: {connections(server)}")


async def restart(server: RedisServer) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(server.start)


async def hang(server: RedisServer) -> None:
    """Longer than a call may take."""
    server.pause()
    await asyncio.sleep(1.2)
    server.resume()


async def cut(server: RedisServer) -> None:
    with server.client() as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    await asyncio.sleep(0.2)


async def refuse_writes(server: RedisServer) -> None:
    """As a replica does that clients still take for the master."""
    with server.client() as client:
        client.replicaof("127.0.0.1", 1)
        await asyncio.sleep(0.5)
        client.replicaof("NO", "ONE")


async def run_out_of_memory(server: RedisServer) -> None:
    with server.client() as client:
        client.config_set("maxmemory", "1")
        await asyncio.sleep(0.5)
        client.config_set("maxmemory", "0")


def tidy(server: RedisServer) -> tuple[RedisBroker, str]:
    """Return places on a Redis, of whose connections the surplus is closed soon."""
    url = server.url()
    connections = ConnectionPool(parse_redis_url(url), SETTINGS.publish_timeout, surplus=0.2)
    return RedisBroker(url, lease=SETTINGS.lease, connections=connections), url


@pytest.mark.parametrize("fault", [restart, hang, cut, refuse_writes, run_out_of_memory])
async def test_redis(own_redis: RedisServer, fault: Callable[[RedisServer], Awaitable[None]]):
    async with open_shop(*tidy(own_redis)) as shop:
        baseline = len(connections(own_redis))
        await through(shop, fault(own_redis))
        await settled(own_redis, baseline + 2)  # who is done keeps those that it did its last work with
    await settled(own_redis, 0)


@pytest.mark.parametrize("fault", [cut, restart])
async def test_redis_twenty_times_in_a_row(
    own_redis: RedisServer, fault: Callable[[RedisServer], Awaitable[None]]
):
    async with open_shop(*tidy(own_redis)) as shop:
        baseline = len(connections(own_redis))
        for _ in range(20):
            await shop.send()
            await fault(own_redis)
        await sends_again(shop)
        await shop.all_ran_once()
        await settled(own_redis, baseline + 2)


async def test_redis_while_idle_costs_nothing(own_redis: RedisServer):
    async with open_shop(own_redis.url()) as shop:
        await asyncio.to_thread(own_redis.kill)
        before = psutil.Process().cpu_times()
        await asyncio.sleep(1.5)
        after = psutil.Process().cpu_times()
        await asyncio.to_thread(own_redis.start)
        await sends_again(shop)
        await shop.all_ran_once()
    assert after.user + after.system - before.user - before.system < 0.3


async def test_a_half_open_connection(own_redis: RedisServer):
    async with Proxy(own_redis.port) as proxy, open_shop(f"redis://127.0.0.1:{proxy.port}/0") as shop:

        async def silence() -> None:
            proxy.freeze()
            await asyncio.sleep(1.5)
            proxy.thaw()

        await through(shop, silence())


async def demoted(server: RedisServer) -> None:
    async with asyncio.timeout(WAIT):
        with server.client() as client:
            while client.info("replication")["role"] != "slave":  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_failover_by_sentinel():
    with RedisSentinel() as sentinel:
        async with open_shop(f"{sentinel.url()}?master_name={sentinel.name}") as shop:
            waiting = await shop.stay()
            with sentinel.primary.client() as client:
                # What the replica has not got is lost with the primary. WAIT is for what this connection wrote.
                client.set("written after all that", "")
                assert client.wait(1, 20_000) == 1
            await asyncio.to_thread(sentinel.failover)
            await demoted(
                sentinel.primary
            )  # until then it takes what it will lose: Sentinel promises no more
            await sends_again(shop)
            await shop.all_ran_once()
            await waiting
            assert connections(sentinel.replica)


async def test_a_sqlite_file_that_another_program_locks(tmp_path: Path):
    file, limits = tmp_path / "shop.db", FileLimits(busy=0.2)
    broker = SqliteBroker(str(file), lease=SETTINGS.lease, limits=limits)
    async with open_shop(broker, SqlBackend(f"sqlite:///{file}", Codecs(), limits=limits)) as shop:
        other = sqlite3.connect(file, isolation_level=None)

        async def lock() -> None:
            other.execute("BEGIN IMMEDIATE")
            await asyncio.sleep(1.0)
            other.execute("ROLLBACK")
            other.close()

        await through(shop, lock())


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """No file of this process may grow any more, which is what a full disk is to SQLite."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_sqlite_file_on_a_full_disk(tmp_path: Path):
    async with open_shop(f"sqlite:///{tmp_path}/shop.db") as shop:

        async def fill() -> None:
            with full_disk():
                began = time.monotonic()
                while await shop.send():
                    assert time.monotonic() - began < 5, "the disk was not full"
                await asyncio.sleep(0.5)

        await through(shop, fill())
