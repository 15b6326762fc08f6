"""A task whose worker lives runs once, though RabbitMQ takes it back when the worker's connection is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from celeriac import Celeriac
from celeriac.contracts.broker import Broker
from celeriac.errors import BrokerUnavailable
from celeriac.servers.rabbitmq import AmqpBroker
from celeriac.servers.rabbitmq.orphans import NoticeTimes
from celeriac.servers.rabbitmq.rerouting import Rerouting
from celeriac.testing.steps import soon
from tests.amqp.conftest import MakeBroker
from tests.amqp.proxy import Proxy

PATIENCE = 60.0
QUICK = pytest.mark.parametrize("times", [NoticeTimes(term=1.5, grace=1.0)], indirect=True, ids=["quick"])


class Crew:
    """Two workers of one slot each, behind one line; the first is busy with a task until ``hold`` is set."""

    def __init__(
        self, proxy: Proxy, redis_url: str, queue: str, make_broker: MakeBroker, times: NoticeTimes
    ) -> None:
        self.proxy = proxy
        self._make_broker = partial(make_broker, proxy.url(), notices=times)
        self.observer: Broker = make_broker()
        self.hold = asyncio.Event()
        self.started: list[str] = []
        self.has_started = asyncio.Event()
        self.apps = [self._app(name, redis_url, queue) for name in ("first", "second")]

    def _app(self, name: str, redis_url: str, queue: str) -> Celeriac:
        app = Celeriac(name, broker=self._make_broker(), backend=redis_url, default_queue=queue)

        async def wait() -> str:
            self.started.append(name)
            self.has_started.set()
            await self.hold.wait()
            return name

        app.register("wait", wait)
        return app

    async def lose_the_line(self) -> None:
        """Cut it for all, for a moment."""
        self.proxy.refuse()
        await asyncio.sleep(0.3)
        self.proxy.accept()

    async def is_set_by(self, queue: str) -> None:
        """Return when the worker that took the message has put it off."""
        while not await self._parked(queue):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)

    async def is_over(self, queue: str) -> None:
        """Return when no message is left."""
        while await self._parked(queue) or await self.observer.depth(queue):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)

    async def _parked(self, queue: str) -> int:
        """Return how many of the queue's own messages are parked: other tests park theirs on the same server."""
        return sum(parked.queue == queue for parked in await self.observer.schedule.list(limit=10_000))


@pytest.fixture
def times(request: pytest.FixtureRequest) -> NoticeTimes:
    return getattr(request, "param", NoticeTimes())


@pytest.fixture
async def crew(
    proxy: Proxy, redis_url: str, queue: str, make_broker: MakeBroker, times: NoticeTimes
) -> AsyncIterator[Crew]:
    crew = Crew(proxy, redis_url, queue, make_broker, times)
    async with AsyncExitStack() as stack:
        for app in crew.apps:
            await stack.enter_async_context(app)
        yield crew


@QUICK
async def test_another_worker_leaves_it_to_who_works_on_it(crew: Crew, queue: str) -> None:
    first, second = crew.apps
    async with first.worker(concurrency=1):
        result = await first.send_task("wait")
        await soon(crew.has_started.wait())
        async with second.worker(concurrency=1):
            await crew.lose_the_line()
            async with asyncio.timeout(PATIENCE):
                await crew.is_set_by(queue)
                crew.hold.set()
                assert await result.wait() == "first"
                await crew.is_over(queue)
    assert crew.started == ["first"]


@QUICK
async def test_another_worker_runs_it_when_who_held_it_has_died(crew: Crew, queue: str) -> None:
    first, second = crew.apps
    async with first.worker(concurrency=1, grace=0), second.worker(concurrency=1):
        result = await second.send_task("wait")
        await soon(crew.has_started.wait())
        (dead,) = (app for app in crew.apps if app.name == crew.started[0])
        await crew.lose_the_line()
        async with asyncio.timeout(PATIENCE):
            await crew.is_set_by(queue)
            broker = dead.connections().broker
            assert isinstance(broker, AmqpBroker)
            await broker._orphans.close()  # it says no more that it holds anything
            crew.hold.clear()
            while len(crew.started) < 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
            crew.hold.set()
            assert await result.wait() in {"first", "second"}
            await crew.is_over(queue)
    assert len(set(crew.started)) == 2


@QUICK
async def test_what_cannot_be_put_off_at_once_is_not_run_for_that(
    crew: Crew, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart RabbitMQ may be too busy to make the queues of delays in time."""
    delay, refused = Rerouting.delay, asyncio.Event()

    async def delay_later(self: Rerouting, *given: Any, **named: Any) -> bool:
        if not refused.is_set():
            refused.set()
            raise BrokerUnavailable("no answer within 5 s")
        return await delay(self, *given, **named)

    monkeypatch.setattr(Rerouting, "delay", delay_later)
    first, second = crew.apps
    async with first.worker(concurrency=1):
        result = await first.send_task("wait")
        await soon(crew.has_started.wait())
        async with second.worker(concurrency=1), asyncio.timeout(PATIENCE):
            await crew.lose_the_line()
            await refused.wait()
            await crew.is_set_by(queue)
            crew.hold.set()
            assert await result.wait() == "first"
            await crew.is_over(queue)
    assert crew.started == ["first"]


@QUICK
async def test_who_held_it_and_stops_lets_another_run_it(crew: Crew, queue: str) -> None:
    first, second = crew.apps
    async with first.worker(concurrency=1, grace=0):
        result = await first.send_task("wait")
        await soon(crew.has_started.wait())
        await crew.lose_the_line()
    crew.hold.set()
    async with second.worker(concurrency=1), asyncio.timeout(PATIENCE):
        assert await result.wait() == "second"
        await crew.is_over(queue)
    assert crew.started == ["first", "second"]


@pytest.mark.parametrize("times", [NoticeTimes(term=3.0, grace=1.0, news=2.0)], indirect=True, ids=["news"])
async def test_a_worker_that_alone_was_cut_off_has_a_moment_to_give_notice(
    crew: Crew, queue: str, redis_url: str, make_broker: MakeBroker, times: NoticeTimes
) -> None:
    """The message is handed to the other one at once, whose own line stands: it has seen no outage."""
    first, _ = crew.apps
    second = Celeriac("near", broker=make_broker(notices=times), backend=redis_url, default_queue=queue)

    async def wait() -> str:
        crew.started.append("near")
        return "near"

    second.register("wait", wait)
    async with first.worker(concurrency=1), second:
        result = await first.send_task("wait")
        await soon(crew.has_started.wait())
        async with second.worker(concurrency=1), asyncio.timeout(PATIENCE):
            crew.proxy.cut()
            await crew.is_set_by(queue)
            crew.hold.set()
            assert await result.wait() == "first"
            await crew.is_over(queue)
    assert crew.started == ["first"]


async def test_it_goes_on_in_the_same_worker_under_the_new_delivery(crew: Crew, queue: str) -> None:
    first, _ = crew.apps
    async with first.worker(concurrency=2):
        result = await first.send_task("wait")
        await soon(crew.has_started.wait())
        for _ in range(3):
            await crew.lose_the_line()
            async with asyncio.timeout(PATIENCE):
                while crew.proxy.open_lines < 1 or await crew.observer.depth(queue):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        crew.hold.set()
        assert await result.wait(timeout=PATIENCE) == "first"
    assert await crew.observer.depth(queue) == 0
    assert crew.started == ["first"]
