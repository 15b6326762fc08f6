"""The private servers do what the tests rely on."""

import asyncio
import os
import signal
import sys
from contextlib import closing

import pytest

import redis
from tests.servers import LoggedProcess, RedisSentinel, RedisServer


def test_each_server_is_its_own(redis_server: RedisServer, own_redis: RedisServer) -> None:
    with closing(redis_server.client()) as shared, closing(own_redis.client()) as own:
        own.set("key", "value")
        assert shared.get("key") is None


def test_a_durable_server_keeps_its_data_over_a_kill(own_redis: RedisServer) -> None:
    with closing(own_redis.client()) as client:
        client.set("key", "value")
    own_redis.kill()
    own_redis.start()
    with closing(own_redis.client()) as client:
        assert client.get("key") == b"value"


async def test_a_paused_server_answers_only_when_resumed(own_redis: RedisServer) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url(), protocol=2) as client:
        await client.ping()
        own_redis.pause()
        answer = asyncio.create_task(client.ping())
        done, _ = await asyncio.wait([answer], timeout=0.05)
        assert not done
        own_redis.resume()
        assert await answer


def test_password_tls_and_socket(secured_redis: RedisServer) -> None:
    with (
        closing(redis.Redis.from_url(secured_redis.tls_url())) as over_tls,
        closing(redis.Redis(unix_socket_path=str(secured_redis.socket_path), retry=None)) as unauthenticated,
    ):
        assert over_tls.ping()
        with pytest.raises(redis.AuthenticationError):
            unauthenticated.ping()


def test_a_failover_moves_the_primary() -> None:
    with RedisSentinel() as sentinel:
        before = sentinel.primary_port
        sentinel.failover()
        assert (before, sentinel.primary_port) == (sentinel.primary.port, sentinel.replica.port)


def test_a_process_that_ends_early_shows_what_it_printed() -> None:
    process = LoggedProcess([sys.executable, "-c", "print('no such setting')"])
    with pytest.raises(AssertionError, match="no such setting"):
        process.wait_for("ready")


def test_a_stopped_process_is_gone() -> None:
    process = LoggedProcess([sys.executable, "-uc", "print('ready'); import time; time.sleep(60)"])
    process.wait_for("ready")
    assert process.stop() == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
