"""What a failed task held in its variables is freed when the task is over, without the collector of cyclic garbage."""

import asyncio
import gc
import logging
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import pytest

from celeriac import Celeriac, Context, Retry, SoftTimeLimitExceeded
from celeriac.client.task import Task
from celeriac.errors import TimeLimitExceeded
from tests.worker import process_tasks

WAIT = 60.0


class Ballast(bytearray):
    """Something large that can be looked for."""


class Tasks:
    """Tasks that hold something large while they fail."""

    def __init__(self) -> None:
        self.loads = 0
        self.freed = 0
        self._loop = asyncio.get_running_loop()
        self._all_freed = asyncio.Event()

    async def until_all_freed(self) -> None:
        """Return when nothing is held: the caller may know the result before the worker has done with the task."""
        self._look()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._all_freed.wait(), WAIT)
        assert self.freed == self.loads

    def plain(self) -> None:
        data = self._load()
        raise ValueError(len(data))

    async def coroutine(self) -> None:
        data = self._load()
        await asyncio.sleep(0)
        raise ValueError(len(data))

    def keeps_its_error(self) -> None:
        data = self._load()
        try:
            raise ValueError(len(data))
        except ValueError as error:
            last = error
        try:
            raise KeyError
        except KeyError as error:
            raise last from error

    async def several_errors(self) -> None:
        data = self._load()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.coroutine())
            group.create_task(self.coroutine())
        del data

    def asks_for_another_run(self, ctx: Context) -> None:
        data = self._load()
        try:
            raise ValueError(len(data))
        except ValueError as error:
            ctx.retry(countdown=0, max_attempts=2, cause=error)

    def leaves(self) -> None:
        data = self._load()
        raise SystemExit(len(data))

    def returns_what_cannot_be_written(self) -> object:
        return (self._load(), object())

    async def waits_for(self, task: Task[[], None]) -> None:
        data = self._load()
        await (await task.send()).wait(WAIT)
        del data

    async def sleeps(self) -> None:
        data = self._load()
        await asyncio.sleep(60)
        del data

    def turns(self) -> None:
        data = self._load()
        while data is not None:
            time.sleep(0.01)

    def fails_too_late(self) -> None:
        data = self._load()
        time.sleep(0.3)
        raise ValueError(len(data))

    def _load(self) -> Ballast:
        data = Ballast()
        self.loads += 1
        weakref.finalize(data, self._free)
        return data

    def _free(self) -> None:
        with suppress(RuntimeError):  # the loop of a test that failed
            self._loop.call_soon_threadsafe(self._count)

    def _count(self) -> None:
        self.freed += 1
        self._look()

    def _look(self) -> None:
        (self._all_freed.set if self.freed == self.loads else self._all_freed.clear)()


@pytest.fixture(autouse=True)
def no_collector(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.CRITICAL, "celeriac")  # pytest keeps the errors of what is logged
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def app() -> AsyncIterator[Celeriac]:
    async with Celeriac("frames", broker="memory://", backend="memory://") as made:
        yield made


@pytest.fixture
async def tasks() -> Tasks:
    return Tasks()


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_plain_functions_and_coroutines(app: Celeriac, tasks: Tasks, pool: str):
    for body in (
        tasks.plain,
        tasks.coroutine,
        tasks.keeps_its_error,
        tasks.several_errors,
        tasks.asks_for_another_run,
        tasks.leaves,
        tasks.returns_what_cannot_be_written,
    ):
        app.register(body.__name__, body)
    app.register("tried_again", tasks.plain, retry=Retry(on=(ValueError,), max_attempts=2, backoff=0))
    async with app.worker(pool=pool):
        for task in app.tasks.values():
            with suppress(Exception):
                await (await task.send()).wait(WAIT)
            await tasks.until_all_freed()
    assert tasks.loads == 12


async def test_tasks_that_reach_a_time_limit(app: Celeriac, tasks: Tasks):
    soft_coroutine = app.register("sleeps", tasks.sleeps, soft_timeout=0.05)
    soft = app.register("turns", tasks.turns, soft_timeout=0.05)
    hard = app.register("fails_too_late", tasks.fails_too_late, timeout=0.05)
    async with app.worker():
        for task in (soft_coroutine, soft, hard):
            result = await task.send()
            with pytest.raises((SoftTimeLimitExceeded, TimeLimitExceeded)):
                await result.wait(WAIT)
            await tasks.until_all_freed()


async def test_a_function_in_a_child_process():
    async with process_tasks.app, process_tasks.app.worker(pool="processes", concurrency=1):
        for task in (process_tasks.fails_with_ballast, process_tasks.fails_with_an_error_of_its_own):
            for _ in range(2):
                with pytest.raises(Exception, match="ballast"):
                    await (await task.send()).wait(WAIT)
        assert await (await process_tasks.count_ballast.send()).wait(WAIT) == (4, 0)


async def test_who_waits_for_a_failed_task_keeps_nothing_of_its_own(app: Celeriac, tasks: Tasks):
    fails = app.register("plain", tasks.plain)

    async with app.worker():
        with suppress(ValueError):
            await tasks.waits_for(fails)
        await tasks.until_all_freed()
