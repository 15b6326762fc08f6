"""Headers of RabbitMQ's and celeriac's own, written by somebody else: they count no deliveries and hold nothing up."""

import asyncio
import time
from typing import Any

import pytest

import amqp
from celeriac import Celeriac
from celeriac.testing.steps import envelope_of, numbered, take_all
from celeriac.wire.envelope import Route
from tests.amqp.conftest import MakeBroker

FORGED: list[dict[str, Any]] = [
    {"x-delivery-count": 0},
    {"x-delivery-count": -(10**9)},
    {"x-delivery-count": 10**9},
    {"x-delivery-count": True},
    {"x-delivery-count": "many"},
    {"x-celeriac-deliveries": -(10**9)},
    {"x-celeriac-deliveries": True},
    {"x-celeriac-deliveries": 10**12},
    {"x-celeriac-deliveries": [5]},
    {"x-acquired-count": -7},
    {"x-celeriac-set-by": "nobody"},
    {"x-celeriac-copy": "[" * 10_000},
    {"x-celeriac-copy": '{"key": "' + "k" * 5000 + '", "name": "", "number": ""}'},
    {"x-celeriac-expiration": -1},
    {"x-celeriac-due": 1e300},
]


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_deliveries_are_counted_all_the_same(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str, kind: str
) -> None:
    """So a message that kills its workers is set aside after ``max_deliveries``, whatever it says of itself."""
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments={"x-queue-type": kind})
    for number, headers in enumerate(FORGED):
        message = amqp.Message(str(number), content_type="application/json", application_headers=headers)
        channel.basic_publish(message, routing_key=queue)
    for death in (1, 2):
        dying = make_broker()
        async with dying.subscribe([queue]) as subscription:
            taken = await take_all(subscription, len(FORGED))
            assert {delivery.deliveries for delivery in taken} == {death}
            (await dying.link.connection()).abort()
        await dying.close()
    broker = make_broker()
    async with broker.subscribe([queue]) as subscription:
        taken = await take_all(subscription, len(FORGED))
        assert {int(envelope_of(delivery).body): delivery.deliveries for delivery in taken} == dict.fromkeys(
            range(len(FORGED)), 3
        )
        # What goes away to come back keeps the count, and nothing of what was forged.
        await asyncio.gather(*[delivery.receipt.park(0.0) for delivery in taken])
        again = await take_all(subscription, len(FORGED))
        assert {delivery.deliveries for delivery in again} == {3}
        await asyncio.gather(*[delivery.receipt.ack() for delivery in again])


async def test_times_that_were_made_up_are_none(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str
) -> None:
    broker = make_broker()
    name = "celery_delayed_9"
    await broker.publish(numbered(1), Route(queue, queue=queue, due=time.time() + 5))  # it makes the queues
    for due in (1e300, -1e300, True, "tomorrow", [1], 2**62):
        message = amqp.Message(
            "{}",
            content_type="application/json",
            correlation_id=f"{queue}.{due}",
            application_headers={"x-celeriac-due": due},
        )
        channel.basic_publish_confirm(message, routing_key=name)  # a quorum queue has it on return
    found = {parked.id: parked.due for parked in await broker.schedule.list(10_000) if queue in parked.id}
    assert len(found) == 6
    assert all(0 < due < 253402300800 for due in found.values())
    assert await broker.schedule.delete(list(found)) == 6
    left = [parked.id for parked in await broker.schedule.list(10_000) if parked.queue == queue]
    assert await broker.schedule.delete(left) == 1


@pytest.mark.parametrize(
    "entry",
    [
        b"[" * 100_000,
        b"\xff",
        b"{}",
        b'{"number": -1, "queue": "x"}',
        b'{"number": 1, "counted": ["a"], "step": 1000000000}',
        b'{"number": 2, "held": ["a"], "until": 1e308}',
        b'{"number": 99999999999999999999999, "revoke": ["a"], "until": 1e308}',
        b'{"number": 3, "x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
    ids=["nested", "no text", "empty", "negative", "a step", "a hold", "a number", "nested in a field"],
)
async def test_entries_of_the_ledger_end_no_worker(
    make_broker: MakeBroker, channel: amqp.Channel, queue: str, entry: bytes
) -> None:
    app = Celeriac("ledger", broker=make_broker(prefix=f"{queue}."), backend="memory://", default_queue=queue)

    async def one() -> int:
        return 1

    task = app.register("one", one)
    async with app, app.worker():
        assert await (await task.send()).wait(timeout=60) == 1
        channel.basic_publish(amqp.Message(entry), f"{queue}.ledger", "")
        assert await (await task.send()).wait(timeout=60) == 1
    async with app, app.worker():  # which reads the history
        assert await (await task.send()).wait(timeout=60) == 1
