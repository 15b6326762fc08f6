"""A worker inside a test."""

import asyncio

import pytest

from celeriac import BackendUnavailable, Celeriac, ConfigError, Context, Retry, TaskRevoked
from celeriac.testing.clock import ManualClock
from celeriac.testing.faults import Faults
from celeriac.testing.worker import running


@pytest.fixture
def app() -> Celeriac:
    """An app of a user's, whose broker nobody can reach."""
    return Celeriac("user", broker="redis://127.0.0.1:1", backend="redis://127.0.0.1:1")


async def test_tasks_run_and_what_was_sent_is_on_record(app: Celeriac):
    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(queue="other")
    async def start(x: int) -> str:
        return (await add.send(x, y=2)).id

    async with running(app) as worker:
        started = await start.send(1)
        child = app.result(await started)
        await worker.drain()
        assert await child == 3
        assert [(sent.task, sent.queue) for sent in worker.sent] == [
            (start.name, "other"),
            (add.name, "celery"),
        ]
        assert (worker.sent[1].args, worker.sent[1].kwargs) == ([1], {"y": 2})
        assert worker.sent[1].message.parent_id == started.id


async def test_leaving_the_block_runs_what_was_sent(app: Celeriac):
    ran = []

    @app.task
    async def note(number: int) -> None:
        await asyncio.sleep(0.01)
        ran.append(number)

    async with running(app, concurrency=2):
        await app.send_many([note.call(number) for number in range(10)])
    assert sorted(ran) == list(range(10))


async def test_waits_can_be_skipped(app: Celeriac):
    ran = []

    @app.task(retry=Retry(on=(OSError,), max_attempts=3, backoff=600))
    async def flaky(ctx: Context) -> int:
        ran.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError
        return ctx.attempt

    async with running(app) as worker:
        result = await flaky.using(countdown=3600).send()
        await worker.drain()
        assert ran == []
        for attempt in (1, 2, 3):
            assert await worker.skip_waits() == 1
            await worker.drain()
            assert ran[-1] == attempt
        assert await worker.skip_waits() == 0
        assert await result.wait(1) == 3


async def test_an_app_with_a_clock_of_the_test(celeriac_app: Celeriac, celeriac_clock: ManualClock):
    @celeriac_app.task
    async def late() -> None: ...

    async with running(celeriac_app) as worker:
        result = await late.using(countdown=60, expires=90).send()
        celeriac_clock.advance(100)
        await worker.skip_waits()
        with pytest.raises(TaskRevoked, match="expired"):
            await result.wait(5)


async def test_faults_happen_to_the_worker(celeriac_app: Celeriac, celeriac_faults: Faults):
    ran = []

    @celeriac_app.task
    async def once() -> str:
        ran.append(1)
        return "done"

    celeriac_faults.fail("store", times=2, error=BackendUnavailable("away")).fail("ack", "after")
    async with running(celeriac_app, faults=celeriac_faults):
        assert await (await once.send()).wait(5) == "done"
    assert ran == [1]
    assert celeriac_faults.passed["store", "before"] == 3


async def test_what_does_not_end_is_an_error(app: Celeriac):
    @app.task
    async def endless() -> None:
        await asyncio.Event().wait()

    async with running(app) as worker:
        result = await endless.send()
        with pytest.raises(TimeoutError):
            await worker.drain(timeout=0.1)
        await app.connections().revocations.add([result.id])


async def test_a_failing_block_is_left_at_once(app: Celeriac):
    @app.task
    async def wait() -> None:
        await asyncio.sleep(0.2)

    async def fail_in_the_block() -> None:
        async with running(app):
            await wait.send()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_the_block()


async def test_afterwards_the_app_is_where_it_was(celeriac_app: Celeriac):
    url = celeriac_app.broker_url
    async with running(celeriac_app):
        assert celeriac_app.broker_url != url
    assert celeriac_app.broker_url == url
    async with celeriac_app:
        assert await celeriac_app.connections().broker.queues() == []


async def test_sending_by_another_loop_says_what_to_do(app: Celeriac):
    @app.task
    def sends() -> None:
        app.delay("anything")

    async with running(app):
        result = await sends.send()
        with pytest.raises(ConfigError, match="delay"):
            await result.wait(5)


def test_a_file_serves_blocking_code(celeriac_file_app: Celeriac):
    @celeriac_file_app.task
    def add(x: int, y: int) -> int:
        return x + y

    worker = celeriac_file_app.worker(concurrency=2)
    worker.start()
    try:
        assert add.delay(2, 3).get(timeout=60) == 5
    finally:
        worker.stop()
