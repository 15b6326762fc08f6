"""Calls that children are given before they are free: none waits behind a long one, is lost, or runs twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Result
from celeriac.errors import TaskRevoked, TimeLimitExceeded, WorkerLost
from celeriac.worker.attempt import SPENT
from celeriac.worker.pools.processes import ahead
from celeriac.worker.pools.processes.launcher import PACKETS
from celeriac.worker.worker import Worker
from tests.worker import ahead_tasks as tasks
from tests.worker.ahead_times import LONG, WAIT, until

pytestmark = pytest.mark.skipif(not PACKETS, reason="this system's pipes have no packets")


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls go ahead however few processors this machine has."""
    monkeypatch.setattr(ahead, "MOST_CHILDREN", 8)


@asynccontextmanager
async def running(concurrency: int = 1, **options: Any) -> AsyncIterator[Worker]:
    """A worker whose latest calls were short, however long a busy machine took for them."""
    async with tasks.app, tasks.app.worker(pool="processes", concurrency=concurrency, **options) as worker:
        with pytest.MonkeyPatch.context() as patching:
            patching.setattr(ahead, "SHORT", LONG)
            for number in range(ahead.SHORT_CALLS + concurrency):
                assert (await (await tasks.double.send(number)).wait(WAIT))[0] == 2 * number
        yield worker


async def held(directory: Path) -> Result[int]:
    """Return the result of a task that runs until the file ``go`` is there."""
    directory.mkdir()  # noqa: ASYNC240 - it takes no time
    result = await tasks.holds.send(str(directory))
    await until((directory / "runs").exists)
    return result


async def placed(worker: Worker, count: int = 1) -> None:
    """Return once so many calls were placed behind others."""
    assert worker.slots is not None
    waiting = worker.slots.waiting
    await until(lambda: sum(one.call is not None and one.call.placed is not None for one in waiting) == count)


def runs(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


async def until_in_queue() -> None:
    """Return once a message waits in the queue."""
    broker, queue = tasks.app.connections().broker, tasks.app.settings.default_queue
    async with asyncio.timeout(WAIT):
        while not await broker.depth(queue):  # noqa: ASYNC110 - a queue tells only who takes
            await asyncio.sleep(0.002)


def nobody_waits(worker: Worker) -> bool:
    """Whether no message waits in the worker for a slot."""
    assert worker.slots is not None
    return not worker.slots.waiting


@pytest.mark.usefixtures("patient")
async def test_a_child_goes_on_with_the_call_that_is_ahead(tmp_path: Path):
    async with running() as worker:
        long = await held(tmp_path / "long")
        short = await tasks.noted.send(str(tmp_path / "short"))
        await placed(worker)
        assert not runs(tmp_path / "short")
        (tmp_path / "long" / "go").touch()
        assert await short.wait(WAIT) == await long.wait(WAIT)


async def test_every_call_gets_its_own_answer():
    async with running(concurrency=3):
        results = [await tasks.double.send(number) for number in range(1500)]
        found = await asyncio.gather(*(result.wait(WAIT) for result in results))
    assert [value for value, _ in found] == [2 * number for number in range(1500)]
    assert len({child for _, child in found}) <= 3


@pytest.mark.parametrize("in_the_pipe", [True, False])
async def test_what_is_behind_a_long_one_goes_back_to_its_queue_within_half_a_second(
    in_the_pipe: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    if in_the_pipe:
        monkeypatch.setattr(ahead, "SHORT", LONG)  # else what runs is known to be long by then
    seconds: list[float] = []
    while not seconds or seconds[-1] >= 0.5:
        assert len(seconds) < 5, seconds  # a busy machine holds up some of them
        seconds.append(await until_given_back(tmp_path / str(len(seconds))))


async def until_given_back(directory: Path) -> float:
    """Return the seconds until a call behind a long one is in its queue again; both run to their end."""
    directory.mkdir()  # noqa: ASYNC240 - it takes no time
    async with running() as worker:
        long = await held(directory / "long")
        clock = asyncio.get_running_loop().time
        sent = clock()
        short = await tasks.noted.send(str(directory / "short"))
        await placed(worker)
        await until_in_queue()
        seconds = clock() - sent
        await asyncio.sleep(3 * ahead.LONGEST)
        assert nobody_waits(worker), "the worker took again what it gave back"
        (directory / "long" / "go").touch()
        await short.wait(WAIT)
        await long.wait(WAIT)
    assert len(runs(directory / "short")) == 1
    return seconds


@pytest.mark.usefixtures("patient")
async def test_a_message_is_not_acknowledged_early_before_a_child_is_free(tmp_path: Path):
    async with running() as worker:
        assert worker.slots is not None
        waiting = worker.slots.waiting
        long = await held(tmp_path / "long")
        once = await tasks.once.send(str(tmp_path / "once"))
        await until(lambda: any(attempt.task is not None for attempt in waiting))
        (attempt,) = waiting
        assert (attempt.call, attempt.receipt is SPENT) == (None, False)
        (tmp_path / "long" / "go").touch()
        await once.wait(WAIT)
        await long.wait(WAIT)
    assert len(runs(tmp_path / "once")) == 1


@pytest.mark.usefixtures("patient")
async def test_a_child_that_is_free_takes_what_is_ahead_in_another(tmp_path: Path):
    async with running(concurrency=2) as worker:
        first, second = await held(tmp_path / "first"), await held(tmp_path / "second")
        short = [await tasks.noted.send(str(tmp_path / "short")) for _ in range(4)]
        await placed(worker, 4)
        (tmp_path / "first" / "go").touch()
        assert {await one.wait(WAIT) for one in short} == {await first.wait(WAIT)}
        (tmp_path / "second" / "go").touch()
        await second.wait(WAIT)


@pytest.mark.usefixtures("patient")
async def test_what_is_placed_counts_as_reserved_and_not_as_running(tmp_path: Path):
    async with running() as worker:
        long = await held(tmp_path / "long")
        short = await tasks.noted.send(str(tmp_path / "short"))
        await placed(worker)
        [reserved] = (await tasks.app.control.ask("reserved", destination=[worker.name])).by_node[worker.name]
        [active] = (await tasks.app.control.ask("active", destination=[worker.name])).by_node[worker.name]
        assert (reserved["id"], active["id"]) == (short.id, long.id)
        (tmp_path / "long" / "go").touch()
        await short.wait(WAIT)


@pytest.mark.usefixtures("patient")
async def test_what_is_placed_and_revoked_never_runs(tmp_path: Path):
    async with running() as worker:
        long = await held(tmp_path / "long")
        short = await tasks.noted.send(str(tmp_path / "short"))
        await placed(worker)
        await short.cancel()
        await until(lambda: nobody_waits(worker))
        (tmp_path / "long" / "go").touch()
        await long.wait(WAIT)
        with pytest.raises(TaskRevoked):
            await short.wait(WAIT)
    assert not runs(tmp_path / "short")


@pytest.mark.usefixtures("patient")
async def test_a_worker_that_stops_gives_back_what_is_placed(tmp_path: Path):
    async with running() as worker:
        long = await held(tmp_path / "long")
        await tasks.noted.send(str(tmp_path / "short"))
        await placed(worker)
        stopping = asyncio.create_task(worker.__aexit__(None, None, None))
        await until_in_queue()
        (tmp_path / "long" / "go").touch()
        await long.wait(WAIT)
        await stopping
        assert not runs(tmp_path / "short")
        await tasks.app.connections().broker.purge(tasks.app.settings.default_queue)


@pytest.mark.usefixtures("patient")
async def test_the_death_of_a_child_costs_nothing_that_was_ahead(tmp_path: Path):
    async with running() as worker:
        (tmp_path / "dies").mkdir()
        dying = await tasks.dies.send(str(tmp_path / "dies"))
        await until((tmp_path / "dies" / "runs").exists)
        short = await tasks.noted.send(str(tmp_path / "short"))
        await placed(worker)
        (tmp_path / "dies" / "go").touch()
        with pytest.raises(WorkerLost):
            await dying.wait(WAIT)
        await short.wait(WAIT)
    assert len(runs(tmp_path / "short")) == 1


@pytest.mark.usefixtures("patient")
async def test_a_kill_for_a_time_limit_costs_nothing_that_was_ahead(tmp_path: Path):
    async with running() as worker:
        (tmp_path / "long").mkdir()
        long = await tasks.holds.using(time_limit=1.0).send(str(tmp_path / "long"))
        await until((tmp_path / "long" / "runs").exists)
        short = await tasks.noted.send(str(tmp_path / "short"))
        await placed(worker)
        with pytest.raises(TimeLimitExceeded):
            await long.wait(WAIT)
        await short.wait(WAIT)
    assert len(runs(tmp_path / "short")) == 1


@pytest.mark.usefixtures("patient")
async def test_a_smaller_pool_gives_back_what_is_placed(tmp_path: Path):
    async with running(concurrency=2) as worker:
        first, second = await held(tmp_path / "first"), await held(tmp_path / "second")
        short = await tasks.noted.send(str(tmp_path / "short"))
        await placed(worker)
        assert await worker.shrink() == 1
        await until(lambda: nobody_waits(worker))
        (tmp_path / "first" / "go").touch()
        (tmp_path / "second" / "go").touch()
        await asyncio.gather(first.wait(WAIT), second.wait(WAIT), short.wait(WAIT))
        assert len({(await (await tasks.double.send(1)).wait(WAIT))[1] for _ in range(5)}) == 1
    assert len(runs(tmp_path / "short")) == 1


async def test_no_child_runs_more_calls_than_it_may(tmp_path: Path):
    async with running(concurrency=2, max_tasks_per_child=5):
        results = [await tasks.double.send(number) for number in range(200)]
        found = await asyncio.gather(*(result.wait(WAIT) for result in results))
    assert [value for value, _ in found] == [2 * number for number in range(200)]
    children = [child for _, child in found]
    assert max(children.count(child) for child in children) <= 5


async def test_coroutines_wait_for_slots_beside_what_is_placed(tmp_path: Path):
    async with running(concurrency=2):
        results = [
            await (tasks.on_loop.send(number) if number % 2 else tasks.double.send(number))
            for number in range(300)
        ]
        found = await asyncio.gather(*(result.wait(WAIT) for result in results))
    assert [one if isinstance(one, int) else one[0] // 2 for one in found] == list(range(300))


@pytest.mark.usefixtures("patient")
async def test_nothing_is_placed_without_prefetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tasks.app, "settings", replace(tasks.app.settings, prefetch=0))
    async with running() as worker:
        long = await held(tmp_path / "long")
        short = await tasks.noted.send(str(tmp_path / "short"))
        await asyncio.sleep(0.05)
        assert nobody_waits(worker)
        assert await tasks.app.connections().broker.depth(tasks.app.settings.default_queue) == 1
        (tmp_path / "long" / "go").touch()
        await asyncio.gather(long.wait(WAIT), short.wait(WAIT))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("ends", ["dies", "is over its time limit"])
async def test_the_end_of_a_child_costs_none_of_many_that_were_ahead(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ahead, "STOCK", LONG)
    monkeypatch.setattr(ahead, "SHORT", LONG)
    async with running() as worker:
        burst = [await tasks.double.send(number) for number in range(50)]  # so that some go ahead
        await asyncio.gather(*(one.wait(WAIT) for one in burst))
        directory = tmp_path / "first"
        directory.mkdir()
        first = await (
            tasks.dies.send(str(directory))
            if ends == "dies"
            else tasks.holds.using(time_limit=1.0).send(str(directory))
        )
        await until((directory / "runs").exists)
        short = [await tasks.noted.send(str(tmp_path / "short")) for _ in range(8)]
        await placed(worker, 8)
        if ends == "dies":
            (directory / "go").touch()
        with pytest.raises(WorkerLost if ends == "dies" else TimeLimitExceeded):
            await first.wait(WAIT)
        for one in short:
            await one.wait(WAIT)
    assert len(runs(tmp_path / "short")) == 8
