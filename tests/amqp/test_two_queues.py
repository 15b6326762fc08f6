"""One message in two queues: each is run, whenever it is due, and what follows from one run is not the other's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac import Celeriac, Context
from celeriac.servers.rabbitmq import AmqpBroker, QueueOptions
from celeriac.testing.steps import numbered, take_all
from celeriac.wire.envelope import Route

Sent = Callable[[], dict[str, Any]]

WHEN: dict[str, Sent] = {
    "at once": dict,
    "with a countdown": lambda: {"countdown": 1.0},
    "with an ETA": lambda: {"eta": datetime.now(UTC) + timedelta(seconds=1.5)},
}


@pytest.fixture
def names(queue: str) -> list[str]:
    return [f"{queue}.a", f"{queue}.b"]


@pytest.fixture
async def make_broker(
    rabbit_url: str, queue: str, names: list[str]
) -> AsyncIterator[Callable[[str], AmqpBroker]]:
    made: list[AmqpBroker] = []

    def make(kind: str) -> AmqpBroker:
        options = QueueOptions(exchange=f"{queue}.x", exchange_type=kind, routing_keys=("feed.#",))
        made.append(AmqpBroker(rabbit_url, queues=dict.fromkeys(names, options)))
        return made[-1]

    yield make
    for broker in made:
        await broker.close()


@pytest.mark.parametrize(
    ("kind", "when", "retried"),
    [("topic", "with a countdown", False), ("topic", "at once", True), ("fanout", "with an ETA", True)],
)
async def test_it_runs_from_each(
    redis_url: str,
    make_broker: Callable[[str], AmqpBroker],
    queue: str,
    names: list[str],
    kind: str,
    when: str,
    retried: bool,
) -> None:
    """With a result store that tells copies apart: what is parked may be there twice."""
    broker = make_broker(kind)
    app = Celeriac("feeds", broker=broker, backend=redis_url)
    expected = [(name, attempt) for name in names for attempt in ((1, 2) if retried else (1,))]
    ran: list[tuple[str, int]] = []
    done = asyncio.Event()

    async def note(ctx: Context) -> None:
        ran.append((ctx.queue or "", ctx.attempt))
        if len(ran) == len(expected):
            done.set()
        if retried and ctx.attempt == 1:
            ctx.retry(countdown=0.1)

    task = app.register("feeds.note", note)
    async with app, app.worker(queues=names) as worker:
        await worker.ready()
        await task.using(exchange=f"{queue}.x", routing_key="feed.new", **WHEN[when]()).send()
        async with asyncio.timeout(60):
            await done.wait()
        assert [await broker.depth(name) for name in names] == [0, 0]
    assert sorted(ran) == expected


async def test_deliveries_are_counted_in_each(
    make_broker: Callable[[str], AmqpBroker], queue: str, names: list[str]
) -> None:
    """A worker that dies of the message in one queue says nothing of the message in the other."""
    broker = make_broker("topic")
    async with broker.subscribe(names):
        pass  # the queues are there
    await broker.publish(numbered(1), Route("feed.new", f"{queue}.x"))
    for taken in (names, names[:1], names[:1]):
        dying = make_broker("topic")
        async with dying.subscribe(taken) as subscription:
            await take_all(subscription, len(taken))
            (await dying.link.connection()).abort()
        await dying.close()
    async with broker.subscribe(names) as subscription:
        found = {delivery.queue: delivery.deliveries for delivery in await take_all(subscription, 2)}
    assert found == dict(zip(names, (4, 2), strict=True))
