"""Brokers on the shared RabbitMQ, and one to maltreat."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing

import pytest

import amqp
from celeriac.servers.rabbitmq import AmqpBroker
from tests.amqp.proxy import Proxy
from tests.servers import RabbitServer

MakeBroker = Callable[..., AmqpBroker]


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what RabbitMQ, and a timer here, bring about."""
    async with asyncio.timeout(60):
        while not is_so():  # noqa: ASYNC110 - another process's work
            await asyncio.sleep(0.01)


async def until_taken_by(broker: AmqpBroker, queue: str, consumers: int) -> None:
    """Wait until the queue has so many consumers."""
    async with asyncio.timeout(60):
        while await broker.takers(queue) != consumers:  # noqa: ASYNC110 - RabbitMQ does not tell
            await asyncio.sleep(0.01)


@pytest.fixture
async def make_broker(rabbit_url: str) -> AsyncIterator[MakeBroker]:
    """Makes brokers, on the shared RabbitMQ where no URL is given, and closes them."""
    made: list[AmqpBroker] = []

    def make(url: str | None = None, **options: object) -> AmqpBroker:
        made.append(AmqpBroker(url or rabbit_url, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for broker in made:
        await broker.close()


@pytest.fixture
def broker(make_broker: MakeBroker) -> AmqpBroker:
    return make_broker()


@pytest.fixture
def channel(rabbit_server: RabbitServer) -> Iterator[amqp.Channel]:
    """A channel of py-amqp, Celery's driver."""
    with closing(rabbit_server.client()) as connection:
        yield connection.channel()


@pytest.fixture
async def proxy(rabbit_server: RabbitServer) -> AsyncIterator[Proxy]:
    async with Proxy(rabbit_server.port) as proxy:
        yield proxy


@pytest.fixture
def bare_vhost(rabbit_server: RabbitServer, unique: Callable[[str], str]) -> str:
    """A vhost in which nobody declared anything."""
    name = unique("vhost")
    rabbit_server.add_vhosts([name])
    return name
