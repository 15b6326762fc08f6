"""The event loops of commands."""

import asyncio
import gc
import random
import ssl
from contextlib import suppress

import pytest

from celeriac.cli.loops import loop_factory
from tests.servers import RedisServer


async def give_up_handshakes(port: int) -> list[str]:
    """Connect to a server that is not trusted, and give up at some moment; return what the loop complains of."""
    loop, complaints = asyncio.get_running_loop(), list[str]()
    loop.set_exception_handler(lambda _, context: complaints.append(f"{context}"))
    dice, refused, given_up = random.Random(3), 0, 0
    context = ssl.create_default_context()
    for _ in range(150):
        connecting = [
            asyncio.create_task(asyncio.open_connection("127.0.0.1", port, ssl=context)) for _ in range(4)
        ]
        await asyncio.sleep(dice.random() * 0.006)
        for task in connecting:
            task.cancel()
        ended = await asyncio.gather(*connecting, return_exceptions=True)
        refused += sum(isinstance(error, ssl.SSLCertVerificationError) for error in ended)
        given_up += sum(isinstance(error, asyncio.CancelledError) for error in ended)
    assert refused
    assert given_up
    gc.collect()
    return complaints


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_a_handshake_that_is_given_up_leaves_no_error_behind(secured_redis: RedisServer, name: str):
    assert secured_redis.tls_port is not None
    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        assert runner.run(give_up_handshakes(secured_redis.tls_port)) == []


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_a_connection_over_tls(secured_redis: RedisServer, name: str):
    async def talk() -> bytes:
        context = ssl.create_default_context(cafile=str(secured_redis.certificate))
        reader, writer = await asyncio.open_connection("127.0.0.1", secured_redis.tls_port, ssl=context)
        writer.write(b"PING\r\n")
        answer = await asyncio.wait_for(reader.readline(), 60)
        writer.close()
        with suppress(ssl.SSLError):
            await writer.wait_closed()
        return answer

    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        assert runner.run(talk()) == b"-NOAUTH Authentication required.\r\n"


def test_a_server_that_hangs_up_during_the_handshake():
    async def connect() -> None:
        server = await asyncio.start_server(lambda _, writer: writer.transport.abort(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConnectionError):
                await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())

    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        runner.run(connect())
