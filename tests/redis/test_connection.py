"""The connection below the links: exchanges, cuts, logins, sentinels."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.redis.connection_pool import ConnectionPool
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.protocol.connection import Connection
from celeriac.servers.redis.protocol.dialing import Login, dial
from celeriac.servers.redis.protocol.errors import LinkDown, NotRedis, Refused
from celeriac.servers.redis.protocol.sentinels import Sentinels
from celeriac.servers.redis.url import parse_redis_url
from tests.servers import RedisSentinel, RedisServer
from tests.servers.redis import free_port

PATIENCE = 5.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def serve_and_keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await serve(reader, writer)

    async with await asyncio.start_server(serve_and_keep, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            writer.close()
            await writer.wait_closed()


@asynccontextmanager
async def connected(server: RedisServer, login: Login | None = None) -> AsyncIterator[Connection]:
    connection = await dial(("127.0.0.1", server.port), login or Login(), None)
    try:
        yield connection
    finally:
        await connection.close()


def link_to(url: str, timeout: float = PATIENCE) -> Link:
    target = parse_redis_url(url)
    pool = ConnectionPool(target, timeout)
    return Link(target, pool, unavailable=BrokerUnavailable, refused=BrokerError)


async def test_answers_come_in_order_and_a_refusal_is_one_of_them(redis_server: RedisServer):
    async with connected(redis_server) as connection:
        commands = [("ECHO", "a"), ("NO_SUCH_COMMAND",), ("ECHO", b"b" * 3_000_000), ("PING",)]
        first, refused, large, last = await connection.exchange(commands, PATIENCE)
        assert (first, len(large), last) == (b"a", 3_000_000, b"PONG")
        assert isinstance(refused, Refused)
        assert refused.code == "ERR"
        assert connection.is_open


async def test_an_exchange_that_is_cancelled_cuts_the_connection(redis_server: RedisServer):
    async with connected(redis_server) as connection:
        waiting = asyncio.create_task(connection.exchange([("BLPOP", "nothing", 0)], PATIENCE))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not connection.is_open
        with pytest.raises(LinkDown):
            await connection.exchange([("PING",)], PATIENCE)


async def test_silence_ends_an_exchange(own_redis: RedisServer):
    async with connected(own_redis) as connection:
        own_redis.pause()
        try:
            with pytest.raises(TimeoutError):
                await connection.exchange([("PING",)], 0.2)
        finally:
            own_redis.resume()
        assert not connection.is_open


async def test_what_came_before_the_end_can_be_read_after_it(redis_server: RedisServer):
    async with connected(redis_server) as connection:
        await connection.write([("PING",), ("QUIT",)])
        async with asyncio.timeout(PATIENCE):
            while connection.is_open:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await connection.read(2) == [b"PONG", b"OK"]
        with pytest.raises(LinkDown, match="the server closed the connection"):
            await connection.read()


async def test_an_idle_connection_that_the_server_closed_is_noticed(redis_server: RedisServer):
    async with connected(redis_server) as connection:
        assert connection.is_idle(surely=True)
        await connection.write([("QUIT",)])
        async with asyncio.timeout(PATIENCE):
            while connection.is_idle(surely=True):  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_flood_of_pushes_waits_in_the_server(redis_server: RedisServer, unique):
    channel, count = unique("flood"), 30_000
    async with connected(redis_server) as ear, connected(redis_server) as mouth:
        await ear.write([("SUBSCRIBE", channel)])
        await ear.read()
        await mouth.exchange([("PUBLISH", channel, b"x" * 100)] * count, PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while not ear._is_paused:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(ear._answers) < count
        for _ in range(count):
            assert (await ear.read())[0][2] == b"x" * 100


async def test_a_login_to_a_database_under_a_name(redis_server: RedisServer, unique):
    with redis_server.client() as client:
        client.acl_setuser("anna", enabled=True, passwords=["+pa ss"], commands=["+@all"], keys=["*"])
    name = unique("name")
    for protocol in (2, 3):
        login = Login("anna", "pa ss", name, 3, protocol)
        async with connected(redis_server, login) as connection:
            (facts,) = await connection.exchange([("CLIENT", "LIST", "TYPE", "NORMAL")], PATIENCE)
            (mine,) = [line for line in facts.decode().splitlines() if f"name={name} " in line]
            assert " db=3 " in mine
            assert " user=anna " in mine


async def test_a_wrong_password_is_said_by_the_server(redis_server: RedisServer):
    with pytest.raises(Refused, match="WRONGPASS"):
        async with connected(redis_server, Login("nobody", "x")):
            pass


async def test_a_server_that_is_full_is_an_outage(own_redis: RedisServer):
    with own_redis.client() as client:
        client.config_set("maxclients", 1)
        link = link_to(own_redis.url())
        with pytest.raises(BrokerUnavailable, match="is not available"):
            await link.call("PING")
        client.config_set("maxclients", 100)
        assert await link.call("PING") == b"PONG"
        await link.close()


async def test_what_a_full_server_says_before_it_hangs_up_is_the_error():
    async def turn_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"-ERR max number of clients reached\r\n")
        writer.write_eof()

    async with serving(turn_away) as port:
        link = link_to(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(BrokerUnavailable, match="max number of clients reached"):
            await link.call("PING")
        await link.close()


async def test_what_is_no_redis_is_named():
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with serving(answer) as port:
        with pytest.raises(NotRedis):
            await dial(("127.0.0.1", port), Login(), None)
        link = link_to(f"redis://127.0.0.1:{port}/0")
        with pytest.raises(BrokerError, match="is no Redis"):
            await link.call("PING")
        await link.close()


async def test_what_nobody_asked_for_is_no_answer_to_the_next_command():
    async def say_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"+OK\r\n:7\r\n")  # to what is said at the login
        for asked in range(2):
            await reader.readuntil(b"PING\r\n")
            writer.write(b"+PONG\r\n+STRAY\r\n" if asked == 0 else b"+PONG\r\n")

    async with serving(say_twice) as port:
        link = link_to(f"redis://127.0.0.1:{port}/0")
        for _ in range(3):
            assert await link.call("PING") == b"PONG"
            await asyncio.sleep(0.01)
        await link.close()


async def test_a_silent_sentinel_leaves_time_for_the_next():
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    with RedisSentinel() as sentinel:
        async with serving(say_nothing) as silent:
            right = parse_redis_url(f"{sentinel.url()}?master_name={sentinel.name}").addresses[0]
            addresses = [("127.0.0.1", silent), ("127.0.0.1", free_port()), right]
            sentinels = Sentinels(addresses, sentinel.name, Login(), None, 1.5)
            assert (await sentinels.find())[1] == sentinel.primary_port
            async with asyncio.timeout(0.4):  # the one that answered is asked first
                assert await sentinels.find() == sentinels.named


@pytest.mark.parametrize("before", [0.4, 40.0])
async def test_an_exchange_has_its_own_deadline_whatever_was_waited_for_before(before: float):
    async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"+PONG\r\n")
        await reader.read()

    async with serving(answer_once) as port:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        assert await connection.exchange([("PING",)], before) == [b"PONG"]
        began = loop.time()
        with pytest.raises(TimeoutError):
            await connection.exchange([("PING",)], 0.4)
        assert 0.39 <= loop.time() - began < 10, "it waited for the first look of the one before"
        await connection.close()


async def test_large_and_many_answers_come_whole_over_tls(secured_redis):
    link = link_to(secured_redis.tls_url(3))
    value = bytes(range(256)) * 8192
    await link.call("SET", "large", value)
    try:
        assert await link.call("GET", "large") == value
        assert await link.calls([("GETRANGE", "large", start, start + 99_999) for start in range(50)]) == [
            value[start : start + 100_000] for start in range(50)
        ]
    finally:
        await link.call("DEL", "large")
        await link.close()
