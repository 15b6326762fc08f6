"""A worker whose clock goes wrong: times in messages are judged by the broker's clock."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from celeriac import Celeriac, Context
from celeriac.clock import SystemClock, seconds_ahead
from celeriac.errors import TaskRevoked

SOON = 0.3


class Shifted(SystemClock):
    """The machine's clock as it would be if it were wrong by so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return time.time() + self.seconds


MakeApp = Callable[..., Celeriac]


@pytest.fixture
def make_app(redis_url: str, unique: Callable[[str], str]) -> MakeApp:
    """Make apps on one queue; ``clock`` is a worker's."""
    queue, prefix = unique("queue"), unique("prefix") + ":"

    def make(clock: SystemClock | None = None, broker: str = redis_url) -> Celeriac:
        options = {"default_queue": queue, "key_prefix": prefix}
        app = Celeriac("clocks", broker=broker, backend=redis_url, clock=clock, **options)

        @app.task(name="now")
        async def now() -> float:
            return time.time()

        @app.task(name="again")
        async def again(ctx: Context) -> float:
            if ctx.retries == 0:
                raise ctx.retry(countdown=SOON)
            return time.time()

        return app

    return make


@pytest.mark.parametrize("seconds", [-3, -0.05, 3600])
async def test_a_countdown_ends_by_the_brokers_clock_and_once(
    make_app: MakeApp, seconds: float, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO", "celeriac")
    worker, sender = make_app(Shifted(seconds)), make_app()
    async with sender, worker, worker.worker():
        due = time.time() + SOON
        ran = await (await sender.send_task("now", countdown=SOON)).wait(timeout=60)
    assert ran > due - 0.1
    assert caplog.text.count("is due at") <= 1, "it is parked once at the most"


@pytest.mark.parametrize("seconds", [-3600, -0.05])
async def test_what_rabbitmq_released_as_due_is_run(make_app: MakeApp, rabbit_url: str, seconds: float):
    """Its delays under a second are exact; longer ones are whole seconds, of which the worker keeps the rest."""
    worker, sender = make_app(Shifted(seconds), rabbit_url), make_app(broker=rabbit_url)
    async with sender, worker, worker.worker() as running:
        await running.ready()
        begun = time.time()
        sent = [
            await sender.send_task("now", countdown=0.3),
            await sender.send_task("now", countdown=1.2),
            await sender.send_task("now", countdown=1.2, expires=1.1),
        ]
        assert await sent[0].wait(timeout=60) > begun + 0.2
        assert await sent[1].wait(timeout=60) > begun + 1.1
        with pytest.raises(TaskRevoked):
            await sent[2].wait(timeout=60)


@pytest.mark.parametrize("seconds", [-3600, 3600])
async def test_expiry_goes_by_the_brokers_clock(make_app: MakeApp, seconds: float):
    worker, sender = make_app(Shifted(seconds)), make_app()
    async with sender, worker:
        expired = await sender.send_task("now", expires=datetime.now(UTC) + timedelta(seconds=0.2))
        fresh = await sender.send_task("now", expires=datetime.now(UTC) + timedelta(seconds=600))
        await asyncio.sleep(0.3)
        async with worker.worker():
            assert await fresh.wait(timeout=60)
            with pytest.raises(TaskRevoked):
                await expired.wait(timeout=60)


async def test_a_retry_waits_as_long_as_it_said(make_app: MakeApp):
    app, sender = make_app(Shifted(-3600)), make_app()
    async with sender, app, app.worker():
        began = time.time()
        ran = await (await sender.send_task("again")).wait(timeout=60)
    assert ran >= began + SOON - 0.1


@pytest.mark.parametrize("jump", [-3600, 3600])
async def test_a_clock_that_jumps_changes_nothing(make_app: MakeApp, jump: float):
    clock = Shifted(0)
    worker, sender = make_app(clock), make_app()
    async with sender, worker, worker.worker():
        due = time.time() + SOON
        waiting = await sender.send_task("now", countdown=SOON)
        clock.seconds = jump
        assert await (await sender.send_task("now")).wait(timeout=60)
        assert await waiting.wait(timeout=60) > due - 0.1


@pytest.mark.parametrize("server", ["redis_url", "postgres_url"])
async def test_the_time_that_an_answer_takes_is_no_difference_of_clocks(
    request: pytest.FixtureRequest, make_app: MakeApp, server: str
):
    """A task would seem to have ended before it began: a worker notes its end by the broker's clock."""
    app = make_app(broker=request.getfixturevalue(server))
    async with app:
        await app.send_task("now")
        queue = app.settings.default_queue
        async with app.connections().broker.subscribe([queue]) as subscription:
            (delivery,) = await subscription.take(1)
            assert subscription.ahead == 0
            await delivery.receipt.ack()


@pytest.mark.parametrize(("told", "ahead"), [(9.0, -1.0), (10.0, 0.0), (11.0, 0.0), (12.0, 0.0), (15.0, 3.0)])
def test_another_clock_is_ahead_by_what_the_answers_way_does_not_explain(told: float, ahead: float):
    assert seconds_ahead(told, asked=10.0, answered=12.0) == ahead
