"""Brokers and backends on the shared Redis, under a prefix that no other test uses."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import redis
from celeriac.servers.redis.broker import RedisBroker
from celeriac.servers.redis.results import RedisBackend
from celeriac.wire.content import Codecs
from tests.servers import RedisServer

MakeBroker = Callable[..., RedisBroker]
MakeBackend = Callable[..., RedisBackend]


@pytest.fixture
def prefix(unique: Callable[[str], str]) -> str:
    return unique("prefix") + ":"


@pytest.fixture
async def make_broker(redis_url: str, prefix: str) -> AsyncIterator[MakeBroker]:
    made: list[RedisBroker] = []

    def make(url: str = redis_url, **options: Any) -> RedisBroker:
        made.append(RedisBroker(url, **{"key_prefix": prefix} | options))
        return made[-1]

    yield make
    for broker in made:
        await broker.close()


@pytest.fixture
async def broker(make_broker: MakeBroker) -> RedisBroker:
    return make_broker()


@pytest.fixture
async def make_backend(redis_url: str, prefix: str) -> AsyncIterator[MakeBackend]:
    made: list[RedisBackend] = []

    def make(url: str = redis_url, codecs: Codecs | None = None, **options: Any) -> RedisBackend:
        made.append(RedisBackend(url, codecs or Codecs(), **{"key_prefix": prefix} | options))
        return made[-1]

    yield make
    for backend in made:
        await backend.close()


@pytest.fixture
async def backend(make_backend: MakeBackend) -> RedisBackend:
    return make_backend()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    client = redis_server.client()
    yield client
    client.close()
