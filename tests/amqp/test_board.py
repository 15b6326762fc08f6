"""What a board on RabbitMQ is made of: leases by exclusive queues, sets by entries of the ledger."""

import asyncio
import itertools
import random

import pytest

from celeriac.clock import SystemClock
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.servers.rabbitmq.board import AmqpSets
from celeriac.servers.rabbitmq.ledger import Change, Entry, Ledger

LONG = 600.0


@pytest.fixture
async def brokers(rabbit_url, unique):
    prefix = unique("board") + "."
    first, second = (AmqpBroker(rabbit_url, prefix=prefix) for _ in range(2))
    yield first, second
    await first.close()
    await second.close()


async def test_a_lease_ends_with_its_holders_connection(brokers):
    first, second = brokers
    assert await first.board.leases.hold("lead", "a", LONG)
    assert not await second.board.leases.hold("lead", "b", LONG)
    await first.close()
    async with asyncio.timeout(60):
        while not await second.board.leases.hold("lead", "b", LONG):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.02)
    assert not await first.board.leases.hold("lead", "a", LONG)


async def test_a_lease_is_renewed_for_another_time(brokers):
    first, second = brokers
    for seconds in (LONG, 300, 300, LONG):
        assert await first.board.leases.hold("lead", "a", seconds)
        assert not await first.board.leases.hold("lead", "b", seconds)
        assert not await second.board.leases.hold("lead", "b", seconds)


async def test_where_nothing_may_be_declared_there_are_no_leases(rabbit_url):
    broker = AmqpBroker(f"{rabbit_url}?declare=never")
    assert broker.board.leases is None
    await broker.close()


async def test_the_order_in_which_entries_arrive_changes_nothing(brokers):
    """One process reads the log as it was written, another what each of its channels hears."""
    link, now = brokers[0].link, SystemClock().now() - 10

    def change(at: float, names: str, keep: float = 0.0) -> Entry:
        return Entry(change=Change("n", {"a": list(names)}, now + at), until=now + keep if keep else 0.0)

    entries = [change(1, "xy", LONG), change(2, "x"), change(3, "y", 60), change(4, "x", 60), change(5, "z")]
    found = []
    for order in itertools.permutations(entries):
        sets = AmqpSets(link, Ledger(link, "none"), SystemClock())
        for entry in [*order, random.choice(order)]:
            sets._read(entry)
        found.append((sets.latest("n"), sets._alive("n", "a")))
    assert all(each == found[0] for each in found)
    assert found[0][1] == {"x": now + 60, "y": now + LONG}
