"""The Redis adapters keep the contracts, each test under a key prefix of its own."""

from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest

from celeriac.contracts.board import Board
from celeriac.contracts.set_aside import Cap
from celeriac.servers.redis.broker import RedisBroker
from celeriac.servers.redis.results import RedisBackend
from celeriac.testing.contracts import (
    BackendContract,
    BeatContract,
    BoardContract,
    BrokerContract,
    ChordContract,
    FailedContract,
    FanoutContract,
    OnceContract,
    Plant,
    RemovalContract,
    RevocationContract,
    ScheduleContract,
    SettlementContract,
    SlotsContract,
)
from celeriac.wire.content import Codecs
from tests.servers import RedisServer


@pytest.fixture
def prefix(unique: Callable[[str], str]) -> str:
    return unique("contract") + ":"


@pytest.fixture
async def broker(redis_url: str, prefix: str) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(redis_url, key_prefix=prefix)
    yield broker
    await broker.close()


@pytest.fixture
async def second(redis_url: str, prefix: str) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(redis_url, key_prefix=prefix)
    yield broker
    await broker.close()


@pytest.fixture
def plant(redis_server: RedisServer, prefix: str) -> Plant:
    async def plant(queue: str, raw: bytes) -> None:
        with redis_server.client() as client:
            client.lpush(prefix + queue, raw)

    return plant


class TestRedisBroker(BrokerContract, RemovalContract, OnceContract, BeatContract):
    """Messages."""


class TestRedisFailed(FailedContract):
    """What failed for good."""

    @pytest.fixture
    async def capped(self, redis_url: str, prefix: str) -> AsyncIterator[RedisBroker]:
        broker = RedisBroker(redis_url, key_prefix=prefix, failed=Cap(most=3))
        yield broker
        await broker.close()


class TestRedisSchedule(ScheduleContract):
    """What is for later."""


class TestRedisRevocations(RevocationContract):
    """What must not run."""


class TestRedisFanout(FanoutContract):
    """Telling and asking everybody who listens."""


class TestRedisBoard(BoardContract, SlotsContract):
    """What a broker's and a result store's users share."""

    @pytest.fixture(params=["broker", "results"])
    async def boards(
        self, redis_url: str, prefix: str, request: pytest.FixtureRequest
    ) -> AsyncIterator[tuple[Board, Board]]:
        make = RedisBroker if request.param == "broker" else partial(RedisBackend, codecs=Codecs())
        first, second = (make(redis_url, key_prefix=prefix) for _ in range(2))
        yield first.board, second.board
        await first.close()
        await second.close()

    @pytest.fixture
    def board(self, boards: tuple[Board, Board]) -> Board:
        return boards[0]

    @pytest.fixture
    def other(self, boards: tuple[Board, Board]) -> Board:
        return boards[1]


class TestRedisBackend(BackendContract, ChordContract):
    @pytest.fixture
    async def backend(self, redis_url: str, prefix: str) -> AsyncIterator[RedisBackend]:
        backend = RedisBackend(redis_url, Codecs(), key_prefix=prefix)
        yield backend
        await backend.close()

    @pytest.fixture
    async def second(self, redis_url: str, prefix: str) -> AsyncIterator[RedisBackend]:
        backend = RedisBackend(redis_url, Codecs(), key_prefix=prefix)
        yield backend
        await backend.close()


class TestRedisSettlements(SettlementContract):
    """Endings, with results in the broker's database and in another."""

    @pytest.fixture(params=[0, 1])
    async def results(
        self, redis_server: RedisServer, prefix: str, request: pytest.FixtureRequest
    ) -> AsyncIterator[RedisBackend]:
        backend = RedisBackend(redis_server.url(request.param), Codecs(), key_prefix=prefix)
        yield backend
        await backend.close()
