"""The states of a delivery, and calls that are under way when the connection is lost."""

import asyncio
from typing import get_args

import pytest

from celeriac.contracts.broker import Delivery
from celeriac.errors import DeliveryLost
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.servers.rabbitmq.delivery import TABLE, AmqpReceipt, Event, State
from celeriac.testing.steps import publish_numbers, soon, take_some
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy


def test_the_table_has_every_state_and_event_and_no_dead_end() -> None:
    assert set(TABLE) == set(get_args(State))
    assert {event for row in TABLE.values() for event in row} == set(get_args(Event))
    assert {after for row in TABLE.values() for after in row.values()} == set(TABLE)
    for state, row in TABLE.items():
        assert bool(row) == (state not in {"settled", "lost"})
        assert not row or row["lose channel"] == "lost"


@pytest.fixture
def behind(make_broker: MakeBroker, proxy: Proxy) -> AmqpBroker:
    return make_broker(proxy.url())


def receipt_of(delivery: Delivery) -> AmqpReceipt:
    assert isinstance(delivery.receipt, AmqpReceipt)
    return delivery.receipt


async def test_what_is_given_back_while_the_connection_is_lost_comes_again(
    behind: AmqpBroker, proxy: Proxy, queue: str
) -> None:
    await publish_numbers(behind, queue, [1])
    async with behind.subscribe([queue]) as subscription:
        (first,) = await take_some(subscription, 1)
        proxy.freeze()
        giving_back = asyncio.create_task(first.receipt.requeue())
        await asyncio.sleep(0.1)  # what it asks is on its way, and is not answered
        proxy.cut()
        proxy.thaw()
        await soon(giving_back)
        (again,) = await soon(take_some(subscription, 1))
        await again.receipt.ack()
    assert await behind.depth(queue) == 0


async def test_what_came_again_while_it_was_given_back_comes_once_more(
    behind: AmqpBroker, proxy: Proxy, queue: str
) -> None:
    await publish_numbers(behind, queue, [1])
    async with behind.subscribe([queue]) as subscription:
        (first,) = await take_some(subscription, 1)
        receipt = receipt_of(first)
        async with behind._orphans._turn:
            proxy.cut()
            while receipt.state != "orphaned":  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            giving_back = asyncio.create_task(receipt.requeue())
            taking = asyncio.create_task(take_some(subscription, 1))
            while receipt.state != "working":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await soon(giving_back)
        (again,) = await soon(taking)
        with pytest.raises(DeliveryLost):
            await receipt.ack()
        await again.receipt.ack()
    assert await behind.depth(queue) == 0
