"""Tasks whose time is yet to come wait with the broker, whatever becomes of the workers."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import psutil
import pytest

from celeriac import Celeriac
from tests.lines import whole_lines
from tests.servers import LoggedProcess

FOLDER = Path(__file__).parent
MANY = 3000
BUSY = 5.0
"""Seconds that a single one may be late where other programs have the processor; mostly it is less than one."""

Start = Callable[[], LoggedProcess]


@pytest.fixture
def prefix(unique: Callable[[str], str]) -> str:
    return unique("later") + ":"


@pytest.fixture
def start(place: str, prefix: str, tmp_path: Path) -> Iterator[Start]:
    """Start workers of ``later_tasks``; they are killed at the end."""
    environment = {
        **os.environ,
        "LATER_URL": place,
        "LATER_PREFIX": prefix,
        "LATER_RUNS": str(tmp_path / "runs"),
    }
    workers: list[LoggedProcess] = []

    def start() -> LoggedProcess:
        command = [sys.executable, "-c", "from later_tasks import run; run()"]
        workers.append(LoggedProcess(command, env=environment, cwd=FOLDER))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.running:
            worker.kill()


@pytest.fixture
def app(place: str, prefix: str) -> Celeriac:
    return Celeriac("later", broker=place, backend=place, key_prefix=prefix)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again: brokers do not tell who only looks."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


async def answer(app: Celeriac) -> int:
    """Have a worker run a task at once; return the worker's process id."""
    process_id: int = await (await app.send_task("later.pid")).wait(60)
    return process_id


async def start_up(app: Celeriac, start: Start) -> float:
    """Return the seconds that a worker takes from its start to its first answer; none is left."""
    began = time.monotonic()
    worker = start()
    assert await answer(app) == worker.pid
    took = time.monotonic() - began
    worker.kill()
    return took


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
async def test_they_survive_the_death_of_every_worker_and_run_once_in_time(
    app: Celeriac, start: Start, tmp_path: Path
):
    async with app:
        schedule = app.connections().broker.schedule
        due = time.time() + 3 + 3 * await start_up(app, start)  # a busy machine must have parked them by then
        eta = datetime.fromtimestamp(due, UTC)
        calls = [app.call("later.note", [number, due], eta=eta) for number in range(300)]
        await app.send_many(calls[:150])  # before any worker: on Redis it is a worker that parks them
        first = start()
        assert await answer(app) == first.pid
        await app.send_many(calls[150:])

        async def all_are_parked() -> bool:
            return await schedule.count() == 300

        await until(all_are_parked)
        first.kill()
        second = start()
        assert await answer(app) == second.pid
        back = time.time()

        async def all_ran() -> bool:
            return len(runs(tmp_path)) >= 300

        await until(all_ran)
        assert await answer(app) == second.pid
        assert await schedule.count() == 0
    ran = runs(tmp_path)
    assert sorted(number for number, _ in ran) == list(range(300))
    took = max(0.0, back - due)
    lates = [late for _, late in ran]
    assert min(lates) >= 0
    assert median(lates) < 1 + took
    assert max(lates) < BUSY + took


def runs(tmp_path: Path) -> list[tuple[int, float]]:
    lines = whole_lines(tmp_path / "runs")
    return [(int(number), float(late)) for number, late in map(str.split, lines)]


@pytest.mark.parametrize("place", ["sqlite", "redis"], indirect=True)
async def test_many_for_tomorrow_cost_a_worker_nothing_and_hold_up_nobody(app: Celeriac, start: Start):
    async with app:
        worker = psutil.Process(start().pid)
        assert await answer(app) == worker.pid
        memory = worker.memory_info().rss
        await app.send_many([app.call("later.note", [n, 0.0], countdown=86400) for n in range(MANY)])
        waits = []
        for _ in range(5):
            began = time.monotonic()
            assert await answer(app) == worker.pid
            waits.append(time.monotonic() - began)
        assert min(waits) < 1, "a busy machine holds up some of them"
        assert worker.memory_info().rss < memory + 2_000_000
        assert await app.connections().broker.schedule.count() == MANY
