"""What comes back from a child process is what a thread would have given."""

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from celeriac import Celeriac
from celeriac.client.task import Task
from celeriac.errors import EncodeError
from celeriac.wire.result import ResultRecord
from tests.worker import crossing_tasks as tasks

WAIT = 60.0


@pytest.fixture(params=["threads", "processes"])
async def app(request: pytest.FixtureRequest) -> AsyncIterator[Celeriac]:
    async with tasks.app, tasks.app.worker(pool=request.param, concurrency=1):
        yield tasks.app


async def ended(task: Task[[], object]) -> ResultRecord:
    result = await task.send()
    with suppress(Exception):
        await result.wait(WAIT)
    return await result.info()


async def test_retries_go_by_the_class_of_the_exception(app: Celeriac):
    for task in (
        tasks.asks_for_a_retry,
        tasks.retried_on_its_class,
        tasks.retried_on_a_class_above,
        tasks.retried_on_a_group,
    ):
        assert await (await task.send()).wait(WAIT) == 2, task.name
    for task in (tasks.never_retried, tasks.asks_once):
        record = await ended(task)
        assert (record.status, record.retries) == ("FAILURE", 0), task.name
        assert record.result.exc_type == "StatusError"
        assert 'raise StatusError("busy", status=503)' in record.traceback


@pytest.mark.parametrize("kind", tasks.UNPICKLABLE)
async def test_an_exception_that_no_pickle_takes_ends_nothing_but_its_task(app: Celeriac, kind: str):
    assert await (await tasks.retried_on_what_no_pickle_takes.send(kind)).wait(WAIT) == 2
    result = await tasks.fails_with_what_no_pickle_takes.send(kind)
    with pytest.raises(Exception, match=kind):
        await result.wait(WAIT)
    record = await result.info()
    assert record.result.exc_type == type(tasks.UNPICKLABLE[kind]()).__name__


async def test_the_exception_says_what_it_said(app: Celeriac):
    record = await ended(tasks.fails_doubled)
    assert record.result.exc_type == "Doubled"
    assert record.traceback.rstrip().endswith("Doubled: code 7")
    assert record.traceback.count("code 7") < 3
    assert "code code" not in record.traceback


async def test_a_value_that_cannot_come_back_is_the_tasks_failure(app: Celeriac):
    before = await (await tasks.pid.send()).wait(WAIT)
    for task in (
        tasks.returns_what_cannot_be_unpickled,
        tasks.returns_what_exits_when_it_is_unpickled,
        tasks.returns_a_generator,
    ):
        with pytest.raises(EncodeError):
            await (await task.send()).wait(WAIT)
    assert await (await tasks.pid.send()).wait(WAIT) == before


async def test_a_program_that_a_task_starts_can_be_terminated(app: Celeriac):
    assert await (await tasks.ends_a_program.send()).wait(WAIT) == -15
