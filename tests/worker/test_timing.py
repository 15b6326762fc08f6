"""When tasks run, how long they may, and how a worker stops, on every broker."""

import asyncio
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac import (
    Celeriac,
    Context,
    Retry,
    TaskRevoked,
)
from celeriac.errors import BrokerError, SoftTimeLimitExceeded, TimeLimitExceeded
from celeriac.wire.envelope import Envelope
from celeriac.worker.consumer import StopTimes
from celeriac.worker.worker import Worker
from tests.servers import RedisServer

WAIT = 60.0


async def test_a_declared_policy_runs_the_task_again_under_the_same_id(app: Celeriac):
    seen: list[tuple[str, int]] = []

    @app.task(retry=Retry(on=(OSError,), max_attempts=3, backoff=0.01))
    def flaky(ctx: Context) -> int:
        seen.append((ctx.id, ctx.attempt))
        if ctx.attempt < 3:
            raise OSError("net")
        return ctx.attempt

    async with app.worker():
        result = await flaky.send()
        assert await result.wait(WAIT) == 3
    assert seen == [(result.id, 1), (result.id, 2), (result.id, 3)]


async def test_an_explicit_retry_and_its_end(app: Celeriac):
    @app.task
    async def never(ctx: Context) -> None:
        try:
            raise ValueError(f"attempt {ctx.attempt}")
        except ValueError:
            ctx.retry(countdown=0.01, max_attempts=2)

    async with app.worker():
        with pytest.raises(ValueError, match="attempt 2"):
            await (await never.send()).wait(WAIT)


async def test_a_countdown_is_waited_for_and_does_not_hold_up_others(app: Celeriac):
    @app.task
    async def now() -> float:
        return datetime.now(UTC).timestamp()

    async with app.worker(concurrency=1):
        sent = datetime.now(UTC).timestamp()
        later = await now.using(countdown=0.6).send()
        at_once = await now.send()
        assert await at_once.wait(WAIT) < sent + 0.6
        assert await later.wait(WAIT) >= sent + 0.6


async def test_an_expired_task_is_revoked(app: Celeriac):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    result = await add.using(expires=datetime.now(UTC) - timedelta(seconds=1)).send(1, 2)
    async with app.worker():
        with pytest.raises(TaskRevoked, match="expired"):
            await result.wait(WAIT)


async def test_at_most_once_acknowledges_before_the_run(app: Celeriac):
    inside, release = asyncio.Event(), asyncio.Event()

    @app.task(delivery="at_most_once")
    async def once() -> int:
        inside.set()
        await release.wait()
        return 1

    worker = app.worker(grace=0.0)
    async with worker:
        await once.send()
        await inside.wait()
    assert await app.connections().broker.depth(app.settings.default_queue) == 0


async def test_what_does_not_end_in_time_goes_back_with_its_id(app: Celeriac):
    inside = asyncio.Event()

    @app.task(name="stuck")
    async def stuck() -> str:
        inside.set()
        await asyncio.Event().wait()
        return "never"

    async with app.worker(grace=0.0):
        result = await stuck.send()
        await inside.wait()
    broker, queue = app.connections().broker, app.settings.default_queue
    assert await broker.depth(queue) == 1
    [envelope] = await broker.peek(queue)
    assert isinstance(envelope, Envelope)
    assert envelope.headers["id"] == result.id

    successor = Celeriac(broker=broker, backend=app.connections().backend, default_queue=queue)

    @successor.task(name="stuck")
    async def unstuck(ctx: Context) -> str:
        return f"redelivered {ctx.redelivered}"

    async with successor.worker():
        assert await result.wait(WAIT) == "redelivered True"


async def test_stopping_waits_for_what_runs(app: Celeriac):
    inside, release = asyncio.Event(), asyncio.Event()

    @app.task
    async def slow() -> str:
        inside.set()
        await release.wait()
        return "ended"

    async with app.worker(grace=WAIT):
        result = await slow.send()
        await inside.wait()
        asyncio.get_running_loop().call_later(0.05, release.set)
    assert await result.wait(WAIT) == "ended"


async def test_the_soft_limit_lets_a_coroutine_clean_up(app: Celeriac):
    cleaned = asyncio.Event()

    @app.task(soft_timeout=0.05, timeout=10)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with app.worker():
        with pytest.raises(SoftTimeLimitExceeded, match=r"the soft time limit of 0\.05 s passed"):
            await (await slow.send()).wait(WAIT)
    assert cleaned.is_set()


async def test_what_a_coroutine_or_a_function_returns_at_the_soft_limit_is_its_value(app: Celeriac):
    @app.task(soft_timeout=0.05, timeout=60)
    async def coroutine() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "part"
        return "all"

    @app.task(soft_timeout=0.05, timeout=60)
    def function() -> str:
        try:
            while True:
                time.sleep(0.001)
        except SoftTimeLimitExceeded:
            return "part"

    async with app.worker():
        for task in (coroutine, function):
            assert await (await task.send()).wait(WAIT) == "part"


async def test_the_hard_limit_frees_the_slot_whatever_the_body_does(
    app: Celeriac, caplog: pytest.LogCaptureFixture
):
    end = asyncio.Event()

    @app.task(soft_timeout=0.05, timeout=0.1)
    async def stubborn() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    @app.task
    async def next_one() -> int:
        return 1

    async with app.worker(concurrency=1):
        with pytest.raises(TimeLimitExceeded):
            await (await stubborn.send()).wait(WAIT)
        assert await (await next_one.send()).wait(WAIT) == 1
        end.set()


async def test_the_hard_limit_of_a_function_frees_the_slot(app: Celeriac):
    end = threading.Event()

    @app.task(timeout=0.05)
    def slow() -> None:
        end.wait()

    @app.task
    def next_one() -> int:
        return 1

    async with app.worker(concurrency=1):
        with pytest.raises(TimeLimitExceeded, match=r"the time limit of 0\.05 s passed"):
            await (await slow.send()).wait(WAIT)
        assert await (await next_one.send()).wait(WAIT) == 1
        end.set()


async def test_no_more_than_concurrency_run_at_once(app: Celeriac):
    running, most = 0, 0

    @app.task
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1

    async with app.worker(concurrency=3):
        results = await app.send_many([count.call() for _ in range(60)])
        for result in results:
            await result.wait(WAIT)
    assert most == 3


async def test_tasks_of_one_queue_start_in_the_order_they_were_sent(app: Celeriac):
    order: list[int] = []

    @app.task
    async def note(x: int) -> None:
        order.append(x)

    results = [await note.send(x) for x in range(50)]
    async with app.worker(concurrency=1):
        for result in results:
            await result.wait(WAIT)
    assert order == list(range(50))


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)  # memory is one loop's alone
async def test_a_worker_in_a_program_without_a_loop(place: str, unique: Any):
    prefix = unique("thread")
    app = Celeriac("thread", broker=place, backend=place, default_queue=prefix, key_prefix=prefix)

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    def program() -> int:
        worker = app.worker(concurrency=2)
        worker.start()
        try:
            return add.delay(2, 3).get(timeout=WAIT)
        finally:
            worker.stop()

    assert await asyncio.to_thread(program) == 5


def test_a_worker_in_a_thread_starts_and_stops_while_its_broker_is_away():
    worker = Celeriac("away", "redis://127.0.0.1:1", publish_timeout=0.05).worker()
    worker.start()
    worker.stop()


def test_a_worker_in_a_thread_tells_that_its_broker_refuses_it(secured_redis: RedisServer):
    worker = Celeriac("refused", f"redis://:wrong@127.0.0.1:{secured_redis.port}").worker()
    with pytest.raises(BrokerError, match="refused the login"):
        worker.start()


def test_a_coroutine_that_refuses_to_end_does_not_hold_up_a_program(
    celeriac_file_app: Celeriac,
):
    stays, released = threading.Event(), threading.Event()

    @celeriac_file_app.task
    async def stay() -> None:
        stays.set()
        while not released.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    worker = Worker(celeriac_file_app, grace=0.0, stop_times=StopTimes(landing=0.1, cancel=0.1))
    worker.start()
    stay.delay()
    assert stays.wait(WAIT)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == worker.name]
    worker.stop()
    assert thread.is_alive()
    released.set()
    thread.join(WAIT)
    assert not thread.is_alive()


async def test_the_soft_limit_is_raised_in_a_function_between_two_bytecodes(app: Celeriac):
    @app.task(soft_timeout=0.05)
    def busy() -> str:
        try:
            while True:
                pass
        except SoftTimeLimitExceeded:
            return "told"

    @app.task(soft_timeout=5)
    def quick(x: int) -> int:
        return x

    async with app.worker(concurrency=1):
        told = await busy.send()
        after = [await quick.send(x) for x in range(5)]
        assert await told.wait(WAIT) == "told"
        assert [await result.wait(WAIT) for result in after] == list(range(5))


async def test_the_context_knows_when_its_time_is_up(app: Celeriac):
    @app.task(soft_timeout=50, timeout=60)
    async def limited(ctx: Context) -> float:
        assert ctx.deadline is not None
        return ctx.deadline - time.monotonic()

    @app.task
    async def unlimited(ctx: Context) -> bool:
        return ctx.deadline is None

    async with app.worker():
        assert 45 < await (await limited.send()).wait(WAIT) <= 50
        assert await (await unlimited.send()).wait(WAIT)


async def test_a_broker_that_is_closed_under_a_worker_does_not_make_it_spin(app: Celeriac):
    async with app.worker() as worker:
        await worker.ready()
        await app.connections().broker.close()
        for _ in range(20):
            await asyncio.sleep(0)  # the loop still turns
