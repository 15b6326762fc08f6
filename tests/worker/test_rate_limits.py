"""Rate limits: how often a worker starts a task, and what waits meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import monotonic

import pytest

from celeriac import Celeriac, ConfigError
from celeriac.client.task import TaskOptions
from celeriac.quantities import seconds_apart
from celeriac.wire.task import TaskMessage
from celeriac.worker.rate_limits import LEFT_BEHIND, RateLimits
from tests.servers import RabbitServer, RedisServer

PATIENCE = 80.0
COUNT = 12


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [("10/s", 0.1), ("10", 0.1), (10, 0.1), ("30/m", 2.0), ("0.5/s", 2.0), ("2/h", 1800.0), (0, None)],
)
def test_a_rate_is_read_as_celery_reads_it(rate: str | float, seconds: float | None) -> None:
    assert seconds_apart(rate) == seconds
    assert TaskOptions(rate_limit=rate).rate_limit == rate


@pytest.mark.parametrize("rate", ["x", "10/d", "10/s/m", "-1/s", -1, "nan", "inf/s", True, [], 1e-30])
def test_what_is_no_rate_is_refused(rate: object) -> None:
    with pytest.raises(ConfigError, match="rate_limit"):
        Celeriac("shop", "memory://", rate_limit=rate)


class Limited:
    """The limits of one worker that knows one task, ten a second."""

    def __init__(self) -> None:
        app = Celeriac("shop", "memory://")

        @app.task(name="limited", rate_limit=10)
        async def limited() -> None: ...

        self.limits = RateLimits(app.tasks, None)

    def turn(self, id: str, now: float) -> float | None:
        due = self.limits.turn(TaskMessage(id=id, task="limited"), now)
        return None if due is None else round(due, 3)


def test_turns_come_one_after_another() -> None:
    limited = Limited()
    assert [limited.turn(str(number), 5.0) for number in range(4)] == [None, 5.1, 5.2, 5.3]
    assert limited.turn("1", 5.1) is None
    assert limited.turn("3", 5.2) == 5.3  # it came back early
    assert limited.turn("new", 5.2) == 5.4
    assert [limited.turn("2", 5.2), limited.turn("3", 5.3), limited.turn("new", 5.4)] == [None, None, None]
    assert limited.turn("later", 60.0) is None


def test_a_turn_whose_message_went_elsewhere_goes_to_another() -> None:
    limited = Limited()
    assert [limited.turn(id, 5.0) for id in "abc"] == [None, 5.1, 5.2]
    later = 5.15 + LEFT_BEHIND
    for number in range(100):
        limited.turn(str(number), 5.2)
    assert limited.turn("stranger", later) is None
    assert limited.turn("another", later) == pytest.approx(15.3)


def test_a_changed_limit_holds_at_once() -> None:
    limited = Limited()
    limited.limits.set("limited", "1/m")
    assert [limited.turn(id, 5.0) for id in "ab"] == [None, 65.0]
    limited.limits.set("limited", 0)
    assert [limited.turn(id, 5.0) for id in "abcd"] == [None] * 4
    assert limited.limits.of("limited") is None


@pytest.fixture(params=["redis", "rabbitmq", "sqlite", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        redis: RedisServer = request.getfixturevalue("redis_server")
        return redis.url()
    if request.param == "rabbitmq":
        rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
        return rabbit.url()
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db"


@pytest.fixture
async def app(url: str, unique: Callable[[str], str]) -> AsyncIterator[Celeriac]:
    names = {name: unique(name) for name in ("default_queue", "control_exchange")}
    async with Celeriac("limits", url, "disabled://", ignore_result=True, **names) as app:
        yield app


async def test_a_worker_keeps_the_limit_and_delays_no_other_task(app: Celeriac) -> None:
    starts: list[float] = []
    free: list[float] = []
    all_ran = asyncio.Event()

    @app.task(rate_limit="10/s")
    async def limited(number: int) -> None:
        starts.append(monotonic())
        if len(starts) == COUNT:
            all_ran.set()

    @app.task
    async def unlimited() -> None:
        free.append(monotonic())

    await app.send_many([limited.call(number) for number in range(COUNT)])
    await app.send_many([unlimited.call() for _ in range(COUNT)])
    began = monotonic()
    async with app.worker(concurrency=1):
        await asyncio.wait_for(all_ran.wait(), PATIENCE)
    # Each has a turn of its own, a tenth of a second after the one before, and none begins before its turn.
    assert all(start - began > number * 0.1 - 0.02 for number, start in enumerate(sorted(starts)))
    # They were first in the queue, and the only slot was free for others meanwhile.
    assert min(free) < max(starts)


async def test_the_limit_is_changed_while_the_worker_runs(app: Celeriac) -> None:
    ran: list[int] = []
    eight = asyncio.Event()

    @app.task(name="task")
    async def task(number: int) -> None:
        ran.append(number)
        if len(ran) == 8:
            eight.set()

    async with app.worker(name="one@here"):

        async def change(rate: object, name: str = "task") -> object:
            arguments = {"task_name": name, "rate_limit": rate}
            asked = await app.control.ask("rate_limit", arguments, destination=["one@here"], timeout=PATIENCE)
            return asked.by_node["one@here"]

        assert await change("1/h") == {"ok": "new rate limit set successfully"}
        assert await change("1/h", "nosuch") == {"error": "unknown task"}
        wrong = await change("often")
        assert isinstance(wrong, dict)
        assert wrong["error"].startswith("Invalid rate limit string: ValueError(")
        asked = await app.control.ask(
            "registered", {"taskinfoitems": ["rate_limit"]}, destination=["one@here"], timeout=PATIENCE
        )
        assert asked.by_node["one@here"] == ["task [rate_limit=1/h]"]
        await app.send_many([task.call(number) for number in range(5)])
        schedule = app.connections().broker.schedule
        async with asyncio.timeout(PATIENCE):
            while await schedule.count() < 4:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        assert len(ran) == 1
        assert await change(0) == {"ok": "rate limit disabled successfully"}
        await app.send_many([task.call(number) for number in range(5, 12)])
        await asyncio.wait_for(eight.wait(), PATIENCE)
        mine = [one.id for one in await schedule.list(10_000) if one.queue == app.settings.default_queue]
        assert await schedule.delete(mine) == 4
