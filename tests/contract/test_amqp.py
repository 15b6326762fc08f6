"""The AMQP broker keeps the contract, each test with queues of its own."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing

import pytest

import amqp
from celeriac.contracts.board import Board
from celeriac.contracts.set_aside import Cap
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.testing.contracts import (
    BrokerContract,
    FailedContract,
    FanoutContract,
    LeasesContract,
    OnceContract,
    Plant,
    RemovalContract,
    RevocationContract,
    ScheduleContract,
    SetsContract,
)
from celeriac.wire.envelope import Envelope, Route
from tests.servers import RabbitServer


@pytest.fixture
def prefix(unique: Callable[[str], str]) -> str:
    return unique("contract") + "."


@pytest.fixture
async def broker(rabbit_url: str, prefix: str) -> AsyncIterator[AmqpBroker]:
    broker = AmqpBroker(f"{rabbit_url}?max_priority=9", priorities="lowest_first", prefix=prefix)
    yield broker
    await broker.close()


@pytest.fixture
async def second(rabbit_url: str, prefix: str) -> AsyncIterator[AmqpBroker]:
    broker = AmqpBroker(f"{rabbit_url}?max_priority=9", priorities="lowest_first", prefix=prefix)
    yield broker
    await broker.close()


@pytest.fixture
def plant(rabbit_server: RabbitServer) -> Plant:
    async def plant(queue: str, raw: bytes) -> None:
        with closing(rabbit_server.client()) as connection:
            channel = connection.channel()
            arguments = {"x-max-priority": 9}
            channel.queue_declare(queue, durable=True, auto_delete=False, arguments=arguments)
            channel.basic_publish(amqp.Message(raw), routing_key=queue)

    return plant


@pytest.fixture(autouse=True)
async def delays(rabbit_url: str) -> None:
    """Have the queues of delays made before a test that is about time."""
    broker = AmqpBroker(rabbit_url)
    await broker.publish(Envelope(body=b""), Route("to-be-delayed", due=time.time() + 0.9))
    await broker.close()


@pytest.fixture
def no_delayed_messages(rabbit_server: RabbitServer, delays: None) -> None:
    """The queues of delays are kombu's, one set a vhost: what other tests left there is deleted."""
    with closing(rabbit_server.client()) as connection:
        for queue in ("celeriac.soon", *(f"celery_delayed_{level}" for level in range(28))):
            connection.channel().queue_purge(queue)


class TestAmqpBroker(BrokerContract, RemovalContract, OnceContract):
    """Messages."""


class TestAmqpFailed(FailedContract):
    """What failed for good."""

    @pytest.fixture
    async def capped(self, rabbit_url: str, prefix: str) -> AsyncIterator[AmqpBroker]:
        url = f"{rabbit_url}?max_priority=9"
        broker = AmqpBroker(url, priorities="lowest_first", prefix=prefix, failed=Cap(most=3))
        yield broker
        await broker.close()


@pytest.mark.usefixtures("no_delayed_messages")
class TestAmqpSchedule(ScheduleContract):
    """What is for later."""


@pytest.mark.usefixtures("no_delayed_messages")
class TestAmqpRevocations(RevocationContract):
    """What must not run."""


class TestAmqpFanout(FanoutContract):
    """Telling and asking everybody who listens."""


class TestAmqpBoard(SetsContract, LeasesContract):
    """What the ledger can tell everybody, and queues that are exclusive."""

    @pytest.fixture
    def board(self, broker: AmqpBroker) -> Board:
        return broker.board

    @pytest.fixture
    def other(self, second: AmqpBroker) -> Board:
        return second.board
