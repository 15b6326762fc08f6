"""What is on one RabbitMQ uses one connection, whoever made the broker."""

import asyncio

import pytest

from celeriac import Celeriac
from celeriac.errors import ConfigError
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.testing.faults import Faults, FaultyBroker
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy


async def run_two_tasks(app: Celeriac) -> None:
    @app.task(name="double")
    async def double(number: int) -> int:
        return 2 * number

    async with app.worker():
        results = [await double.send(number) for number in (1, 2)]
        assert [await result.wait(60) for result in results] == [2, 4]


@pytest.mark.parametrize("results", ["rpc://", "the broker's URL"])
async def test_queues_and_results_share_a_connection(proxy: Proxy, queue: str, results: str):
    url = proxy.url()
    async with Celeriac("pair", url, url if results != "rpc://" else results, default_queue=queue) as app:
        await run_two_tasks(app)
        assert proxy.accepted == 1
    async with asyncio.timeout(60):
        while proxy.open_lines:  # noqa: ASYNC110 - a proxy tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("results", ["rpc://", "the broker's URL"])
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_broker_of_the_users_own_lends_its_connection(
    proxy: Proxy, make_broker: MakeBroker, queue: str, results: str, wrapped: bool
):
    url = proxy.url()
    own = make_broker(url)
    broker = FaultyBroker(own, Faults()) if wrapped else own
    async with Celeriac("own", broker, url if results != "rpc://" else results, default_queue=queue) as app:
        await run_two_tasks(app)
        assert proxy.accepted == 1
    await own.ping()
    assert proxy.accepted == 1, "the app closed a connection that is not its own"


async def test_results_on_another_rabbit_have_a_connection_of_their_own(
    proxy: Proxy, rabbit_url: str, queue: str
):
    async with Celeriac("two", rabbit_url, proxy.url(), default_queue=queue) as app:
        await run_two_tasks(app)
        assert proxy.accepted == 1


async def test_without_a_rabbit_there_is_nowhere_to_send_results_to():
    with pytest.raises(ConfigError, match="this app's broker is none"):
        Celeriac("none", MemoryBroker(), "rpc://").connections()
    with pytest.raises(ConfigError, match="this app's broker is none"):
        Celeriac("none", "memory://", "rpc://").connections()


async def test_a_broker_made_by_hand_connects_by_itself(rabbit_url: str):
    broker = AmqpBroker(rabbit_url)
    try:
        assert "RabbitMQ" in await broker.ping()
    finally:
        await broker.close()
