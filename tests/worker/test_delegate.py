"""Messages of tasks that run at most once, acknowledged by the child that comes to them: none is lost or run twice."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from celeriac import Result
from celeriac.errors import WorkerLost
from celeriac.worker.attempt import SPENT
from celeriac.worker.pools.processes import ahead
from celeriac.worker.pools.processes.launcher import PACKETS
from celeriac.worker.worker import Worker
from tests.servers import LoggedProcess, RedisServer
from tests.worker import delegate_tasks as tasks
from tests.worker.ahead_times import WAIT, until

CHILDREN = 2
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(not PACKETS, reason="this system's pipes have no packets"),
    pytest.mark.usefixtures("patient"),
]


@pytest.fixture
def redis(own_redis: RedisServer) -> Iterator[RedisServer]:
    """A Redis where the app's queue and results are."""
    tasks.app.connect_to(own_redis.url(), own_redis.url())
    yield own_redis
    tasks.app.connect_to("memory://", "memory://")


@asynccontextmanager
async def running() -> AsyncIterator[Worker]:
    """A worker of one child whose latest calls were short."""
    async with tasks.app, tasks.app.worker(pool="processes", concurrency=1) as worker:
        for number in range(ahead.SHORT_CALLS + 1):
            assert await (await tasks.double.send(number)).wait(WAIT) == 2 * number
        yield worker


@asynccontextmanager
async def behind(directory: Path, worker: Worker) -> AsyncIterator[None]:
    """Let what is sent in the block be ahead of the child when a long task ends."""
    directory.mkdir()  # noqa: ASYNC240 - it takes no time
    long = await tasks.holds.send(str(directory))
    await until((directory / "runs").exists)
    yield
    assert worker.slots is not None
    waiting = worker.slots.waiting
    await until(lambda: any(one.call is not None and one.call.placed is not None for one in waiting))
    (directory / "go").touch()
    await long.wait(WAIT)


def runs(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


async def test_the_child_acknowledges_when_it_comes_to_a_call(redis: RedisServer, tmp_path: Path) -> None:
    async with running() as worker:
        assert worker.slots is not None
        before = redis.client().client_list(_type="normal")
        async with behind(tmp_path / "long", worker):
            short: Result[str] = await tasks.noted.send(str(tmp_path / "short"))
            waiting = worker.slots.waiting
            await until(lambda: any(one.call is not None and one.call.placed is not None for one in waiting))
            (attempt,) = waiting
            assert attempt.receipt is not SPENT
            assert redis.client().hlen("unacked") == 1, "only what waits is with the worker"
            assert not runs(tmp_path / "short")
        assert await short.wait(WAIT) == "ran"
        assert attempt.receipt is SPENT
        assert redis.client().hlen("unacked") == 0
        assert len(redis.client().client_list(_type="normal")) == len(before) + 1, "the child's own"
    assert runs(tmp_path / "short") == ["ran"]


async def test_its_endings_are_the_same(redis: RedisServer, tmp_path: Path) -> None:
    async with running() as worker:
        async with behind(tmp_path / "first", worker):
            failing = await tasks.fails.send(str(tmp_path / "fails"))
        with pytest.raises(ValueError, match="so it is meant"):
            await failing.wait(WAIT)
        async with behind(tmp_path / "second", worker):
            dying = await tasks.dies.send(str(tmp_path / "dies"))
        with pytest.raises(WorkerLost):
            await dying.wait(WAIT)
        assert await (await tasks.double.send(1)).wait(WAIT) == 2
    assert redis.client().hlen("unacked") == 0
    assert runs(tmp_path / "fails") == runs(tmp_path / "dies") == ["ran"]


async def test_a_message_that_is_lost_meanwhile_does_not_run(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as worker:
        async with behind(tmp_path / "long", worker):
            await tasks.noted.send(str(tmp_path / "short"))
            await until(lambda: redis.client().hlen("unacked") == 1)
            redis.client().delete("unacked", "unacked_index")
        assert await (await tasks.double.send(1)).wait(WAIT) == 2
    assert "is not ours any more" in caplog.text
    assert not runs(tmp_path / "short")


async def test_where_the_child_cannot_acknowledge_the_worker_does(
    redis: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = redis.client()
    async with running() as worker:
        async with behind(tmp_path / "long", worker):
            short: Result[str] = await tasks.noted.send(str(tmp_path / "short"))
            # The worker's connections stand; the child is refused when it opens its own.
            client.config_set("maxclients", 1)
        assert await short.wait(WAIT) == "ran"
        client.config_set("maxclients", 10000)
    assert runs(tmp_path / "short") == ["ran"]
    assert "could not acknowledge the message of" in caplog.text
    assert redis.client().hlen("unacked") == 0


async def test_a_killed_worker_loses_what_its_children_ran_and_repeats_nothing(
    redis: RedisServer, tmp_path: Path
) -> None:
    file, count, kills = tmp_path / "runs", 4000, 0
    client = redis.client()

    def is_over() -> bool:
        return client.llen("celery") == client.hlen("unacked") == 0

    async with tasks.app:
        results = await asyncio.gather(*(tasks.noted.send(str(file), number) for number in range(count)))
        while not is_over():
            enough = len(runs(file)) + 800
            await run_some(redis, lambda enough=enough: is_over() or len(runs(file)) > enough)
            kills += 1
        found = await asyncio.gather(*(result.info() for result in results))
    ran = Counter(runs(file))
    assert kills >= 4
    assert max(ran.values()) == 1, "repeated"
    assert count - len(ran) <= kills * CHILDREN, "acknowledged, and not begun"
    without = sum(one.status != "SUCCESS" for one in found)
    # What a child ended in the milliseconds before the kill is on its way to the record: three or four, measured.
    assert without <= kills * CHILDREN * 6, "acknowledged, and without a result"


async def run_some(redis: RedisServer, is_enough: Callable[[], bool]) -> None:
    """Let a worker run tasks until it is enough, and kill it."""
    places = ("-b", redis.url(), "--result-backend", redis.url())
    options = ("-A", "tests.worker.delegate_tasks", *places, "-P", "processes", "-c", str(CHILDREN))
    process = LoggedProcess((sys.executable, "-m", "celeriac", "worker", *options), cwd=ROOT)
    try:
        await until(is_enough)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.kill()
