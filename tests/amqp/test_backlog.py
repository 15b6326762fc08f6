"""What a worker holds behind long tasks, since nobody else could start it: so it hears of what expires."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from celeriac import Celeriac
from celeriac.contracts.broker import Delivery
from celeriac.servers.rabbitmq import AmqpBroker, company, subscription
from celeriac.servers.rabbitmq.subscription import AmqpSubscription
from celeriac.testing.steps import number_of, publish_numbers, soon, take_all
from tests.amqp.conftest import MakeBroker, until, until_taken_by

BACKLOG = 4


@asynccontextmanager
async def holding(
    broker: AmqpBroker, queue: str, *, backlog: int = BACKLOG
) -> AsyncIterator[AmqpSubscription]:
    async with broker.subscribe([queue]) as held:
        held.prefetch, held.backlog = 200, backlog
        yield held


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Lets subscriptions look often; returns how many looks there were."""
    monkeypatch.setattr(subscription, "_SURPLUS_AFTER", 0.02)
    monkeypatch.setattr(subscription, "_LOOK_AFTER", 0.02)
    done, deal = [0], AmqpSubscription._deal_with_surplus

    async def dealt(self: AmqpSubscription) -> None:
        await deal(self)
        done[0] += 1

    monkeypatch.setattr(AmqpSubscription, "_deal_with_surplus", dealt)
    return lambda: done[0]


def numbers(taken: Sequence[Delivery]) -> list[int]:
    return [number_of(delivery) for delivery in taken]


async def test_the_only_consumer_holds_what_cannot_start(
    make_broker: MakeBroker, queue: str, looks: Callable[[], int]
) -> None:
    broker, other = make_broker(), make_broker()
    await publish_numbers(broker, queue, range(10))
    async with holding(broker, queue) as held:
        taken = await take_all(held, 1)
        await until(lambda: looks() >= 3)
        assert held.buffered(queue) == BACKLOG - 1  # the prefetch counts what runs
        assert await other.depth(queue) == 10 - BACKLOG
        taken += await take_all(held, 9)
        assert numbers(taken) == list(range(10))
        assert {(delivery.redelivered, delivery.deliveries) for delivery in taken} == {(False, 1)}


async def test_an_idle_consumer_gets_it_soon(make_broker: MakeBroker, queue: str) -> None:
    """With the pauses that workers have; what comes back counts no delivery, and keeps its order."""
    broker, other = make_broker(), make_broker()
    await publish_numbers(broker, queue, range(4))
    async with holding(broker, queue) as held:
        [first] = await take_all(held, 1)
        await until(lambda: held.buffered(queue) == 3)
        begun = asyncio.get_running_loop().time()
        async with holding(other, queue) as idle:
            got = await take_all(idle, 3)
            took = asyncio.get_running_loop().time() - begun
            assert numbers(got) == [1, 2, 3]
            assert [delivery.deliveries for delivery in got] == [1, 1, 1]
            assert took < 5, "2 s on a quiet machine"
            await publish_numbers(broker, queue, range(4, 7))
            assert numbers(await take_all(idle, 3)) == [4, 5, 6]
            assert held.buffered(queue) == 0
        await first.receipt.ack()


@pytest.mark.parametrize(("remembered", "held_back"), [(600.0, 0), (1.0, BACKLOG - 1)])
async def test_who_was_seen_is_remembered_for_a_while(
    make_broker: MakeBroker, queue: str, monkeypatch: pytest.MonkeyPatch, remembered: float, held_back: int
) -> None:
    """A worker of ours that is busy has no consumer: it is not seen, and yet soon idle again."""
    monkeypatch.setattr(company, "REMEMBERED", remembered)
    broker, other = make_broker(), make_broker()
    async with holding(broker, queue) as held, other.subscribe([queue]) as second:
        theirs = asyncio.create_task(second.take(1))
        await until_taken_by(other, queue, 1)
        mine = asyncio.create_task(held.take(1))
        await until_taken_by(other, queue, 2)
        await second.stop()
        await theirs
        await publish_numbers(broker, queue, range(10))
        assert numbers(await soon(mine)) == [0]
        await until(lambda: remembered > 1.0 or held._company.may_have_left())
        assert numbers(await take_all(held, 1)) == [1]
        await until(lambda: held.buffered(queue) >= held_back)
        await held.catch_up()
        assert held.buffered(queue) == held_back
        assert await other.depth(queue) == 8 - held_back


@pytest.mark.parametrize("options", ["queue_type=quorum", "max_priority=3"])
async def test_other_queues_keep_what_cannot_start(
    make_broker: MakeBroker, rabbit_url: str, queue: str, options: str
) -> None:
    """A quorum queue would count what is given back; of one with priorities the highest is to be the next."""
    broker, other = make_broker(f"{rabbit_url}?{options}"), make_broker()
    await publish_numbers(broker, queue, range(4))
    async with holding(broker, queue) as held:
        await take_all(held, 1)
        await held.catch_up()
        assert held.buffered(queue) == 0
        assert await other.depth(queue) == 3


async def test_what_was_held_for_long_goes_back_and_is_not_taken_again_at_once(
    make_broker: MakeBroker, queue: str, looks: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, other = make_broker(), make_broker()
    await publish_numbers(broker, queue, range(4))
    async with holding(broker, queue) as held:
        await take_all(held, 1)
        await until(lambda: held.buffered(queue) == 3 and looks() > 0)
        monkeypatch.setattr(company, "LONGEST_HELD", 0.0)
        await until(lambda: held.buffered(queue) == 0)
        assert await other.depth(queue) == 3
        assert await other.takers(queue) == 0
        monkeypatch.setattr(company, "LONGEST_HELD", 300.0)
        again = await take_all(held, 3)
        assert numbers(again) == [1, 2, 3]
        assert [delivery.deliveries for delivery in again] == [1, 1, 1]


async def test_it_holds_more_when_more_can_run(make_broker: MakeBroker, queue: str) -> None:
    broker = make_broker()
    await publish_numbers(broker, queue, range(20))
    async with holding(broker, queue) as held:
        await take_all(held, 1)
        await until(lambda: held.buffered(queue) == BACKLOG - 1)
        held.backlog = 2 * BACKLOG
        for _ in range(BACKLOG):
            await take_all(held, 1)
        await until(lambda: held.buffered(queue) == 2 * BACKLOG - 1)


async def test_what_is_given_back_stays_where_nobody_else_takes(make_broker: MakeBroker, queue: str) -> None:
    """It keeps its place, counts no delivery, and is marked."""
    broker = make_broker()
    await publish_numbers(broker, queue, range(4))
    async with holding(broker, queue) as held:
        taken = [*await take_all(held, 1), *await take_all(held, 1)]
        await until(lambda: held.buffered(queue) == 2)
        for delivery in taken:
            await delivery.receipt.requeue()
        await until(lambda: held.buffered(queue) == 4)
        again = await take_all(held, 4)
        assert numbers(again) == [0, 1, 2, 3]
        assert [delivery.redelivered for delivery in again] == [True, True, False, False]
        assert [delivery.deliveries for delivery in again] == [1, 1, 1, 1]
        for delivery in again:
            await delivery.receipt.ack()
    assert await broker.depth(queue) == 0


async def test_letting_go_leaves_nothing_and_has_nothing_pushed(make_broker: MakeBroker, queue: str) -> None:
    """As before a message on its last delivery, beside which nothing may be held."""
    broker, other = make_broker(), make_broker()
    await publish_numbers(broker, queue, range(2))
    async with holding(broker, queue) as held:
        await take_all(held, 1)
        held.backlog = 0
        await held.let_go()
        await publish_numbers(broker, queue, range(2, 6))
        assert await other.takers(queue) == 0
        assert await other.depth(queue) == 5


class Busy:
    """An app whose long task runs until it is told to end."""

    def __init__(self, url: str, queue: str) -> None:
        self.app = Celeriac("backlog", url, "rpc://", default_queue=queue, backlog=BACKLOG)
        self.end = threading.Event()
        self._begun = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.long = self.app.register("backlog.long", self._run)
        self.brief = self.app.register("backlog.brief", lambda ctx: ctx.worker, bind=True)

    def _run(self) -> None:
        self._loop.call_soon_threadsafe(self._begun.set)
        self.end.wait(60)

    async def begin(self) -> None:
        """Have a long task run."""
        await self.long.send()
        await soon(self._begun.wait())


async def test_an_idle_worker_runs_what_another_holds(rabbit_url: str, queue: str) -> None:
    busy = Busy(rabbit_url, queue)
    async with busy.app as app, app.worker(concurrency=1, name="busy@here"):
        await busy.begin()
        waiting = [await busy.brief.send() for _ in range(3)]
        async with app.worker(concurrency=1, name="idle@here"):
            assert [await result.wait(60) for result in waiting] == ["idle@here"] * 3
        busy.end.set()
