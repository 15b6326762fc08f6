"""Plain functions in child processes."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from celeriac import Celeriac, RemoteError
from celeriac.errors import ConfigError, EncodeError, TaskAborted, TimeLimitExceeded, WorkerLost
from tests.worker import process_tasks as tasks

WAIT = 30.0


@pytest.fixture
async def app() -> AsyncIterator[Celeriac]:
    async with tasks.app, tasks.app.worker(pool="processes", concurrency=2):
        yield tasks.app


async def test_values_exceptions_and_context_cross_the_border(app: Celeriac):
    value, pid = await (await tasks.square.send(7)).wait(WAIT)
    assert value == 49
    assert pid != os.getpid()
    with pytest.raises(KeyError, match="here"):
        await (await tasks.fails.send()).wait(WAIT)
    with pytest.raises((RemoteError, tasks.Custom)):
        await (await tasks.fails_unpicklably.send()).wait(WAIT)
    with pytest.raises(EncodeError):
        await (await tasks.unpicklable.send()).wait(WAIT)
    result = await tasks.tell.send()
    assert await result.wait(WAIT) == [result.id, 1, "celery"]
    assert await (await tasks.again.send()).wait(WAIT) == 2
    assert await (await tasks.on_loop.send()).wait(WAIT) == os.getpid()


async def test_a_plain_wrapper_of_a_coroutine_function_runs_to_its_end_in_the_child(app: Celeriac):
    value, pid = await (await tasks.awaited.send(3)).wait(WAIT)
    assert value == 4
    assert pid != os.getpid()


async def test_the_traceback_is_the_functions_own(app: Celeriac):
    failed = await tasks.fails.send()
    with pytest.raises(KeyError):
        await failed.wait(WAIT)
    record = await failed.info()
    assert record.traceback.count('process_tasks.py", line') == 1
    assert "celeriac" not in record.traceback.replace(tasks.__file__, "")
    aborted = await tasks.leaves.send()
    with pytest.raises(TaskAborted, match=r"SystemExit\(3,\)"):
        await aborted.wait(WAIT)


async def test_a_child_that_dies_hangs_or_leaves_takes_only_its_own_task_with_it(app: Celeriac):
    dying, hanging, leaving = await app.send_many(
        [tasks.dies.call(), tasks.hangs.call(), tasks.leaves.call()]
    )
    with pytest.raises(WorkerLost, match="exit code"):
        await dying.wait(WAIT)
    with pytest.raises(TimeLimitExceeded):
        await hanging.wait(WAIT)
    with pytest.raises(TaskAborted):
        await leaving.wait(WAIT)
    with pytest.raises(WorkerLost, match="exit code 0"):
        await (await tasks.vanishes.send()).wait(WAIT)
    value, _ = await (await tasks.square.send(3)).wait(WAIT)
    assert value == 9


async def test_a_child_that_is_killed_while_it_is_idle_is_replaced(app: Celeriac):
    _, idle = await (await tasks.square.send(3)).wait(WAIT)
    os.kill(idle, signal.SIGKILL)
    value = None
    while value is None:
        with suppress(WorkerLost):  # called in the moment of its death
            value, pid = await (await tasks.square.send(3)).wait(WAIT)
    assert value == 9
    assert pid != idle


async def test_a_task_that_a_child_cannot_import_is_refused_at_the_start():
    app = Celeriac("local", broker="memory://", backend="memory://")

    @app.task
    def local() -> None: ...

    with pytest.raises(ConfigError, match="local"):
        async with app.worker(pool="processes"):
            pass


async def test_the_soft_limit_is_raised_in_the_child_even_in_a_blocking_call(app: Celeriac):
    assert await (await tasks.sleeps.send()).wait(WAIT) == "told"


async def test_children_are_replaced_after_so_many_tasks_and_so_much_memory():
    async with tasks.app:
        async with tasks.app.worker(pool="processes", concurrency=1, max_tasks_per_child=2):
            pids = [(await (await tasks.square.send(1)).wait(WAIT))[1] for _ in range(4)]
            assert pids[0] == pids[1] != pids[2] == pids[3]
        async with tasks.app.worker(pool="processes", concurrency=1, max_memory_per_child=150_000):
            small = await (await tasks.grows.send(1)).wait(WAIT)
            assert await (await tasks.grows.send(200)).wait(WAIT) == small
            assert await (await tasks.grows.send(1)).wait(WAIT) != small


async def test_revoking_with_terminate_kills_the_running_process(app: Celeriac):
    result = await tasks.waits.send()
    async for record in result.watch():
        if record.status == "STARTED":
            await app.connections().broker.revocations.add([result.id], terminate=True)
    assert record.status == "REVOKED"
