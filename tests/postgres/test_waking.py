"""A sleeping worker is woken within milliseconds by a notification, and nobody is notified while none sleeps."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import psycopg
import pytest

from celeriac import Celeriac
from celeriac.servers.postgres.sleeping import LOOKS, PULSE
from tests.servers import PostgresServer

AT_BEST = 0.05
"""Seconds from a commit to the run that one of the trials needs at most."""

MOSTLY = 0.4
"""Seconds that most need at most; without a notification a worker looks that much later at the earliest."""

TRIALS = 5
PAST_THE_LOOKS = LOOKS[-1] + 0.2
"""Seconds for which a worker has slept when something is sent: it looks again only after ``PULSE``."""

assert PAST_THE_LOOKS + MOSTLY < PULSE

Send = Callable[[], Awaitable[float]]
"""Sends the task; returns when the commit began."""


class Sleeper:
    """A worker that has nothing to do but one task.

    :param app: its app.
    :ivar began: when the task ran.
    """

    def __init__(self, app: Celeriac) -> None:
        self.app = app
        self.began: asyncio.Queue[float] = asyncio.Queue()
        app.register("note", self._note)

    async def _note(self) -> None:
        self.began.put_nowait(time.perf_counter())

    async def times(self, send: Send) -> list[float]:
        """Return the seconds from commits to runs, the shortest first."""
        times = []
        for _ in range(TRIALS):
            await asyncio.sleep(PAST_THE_LOOKS)  # nobody tells how long it has slept
            committed = await send()
            async with asyncio.timeout(60):
                times.append(await self.began.get() - committed)
        return sorted(times)


@pytest.fixture
async def sleeper(postgres_url: str) -> AsyncIterator[Sleeper]:
    async with Celeriac("shop", postgres_url) as app:
        sleeper = Sleeper(app)
        async with app.worker(concurrency=1):
            yield sleeper


@pytest.fixture
async def sender(postgres_url: str) -> AsyncIterator[Celeriac]:
    """An app with connections of its own, as in another process."""
    async with Celeriac("shop", postgres_url) as app:
        app.register("note", lambda: None)
        await app.connections().broker.ping()
        yield app


async def test_a_message_wakes_a_sleeping_worker(sleeper: Sleeper, sender: Celeriac):
    async def send() -> float:
        began = time.perf_counter()
        await sender.tasks["note"].send()
        return began

    times = await sleeper.times(send)
    assert times[0] < AT_BEST
    assert times[TRIALS // 2] < MOSTLY


async def test_a_commit_of_the_callers_wakes_a_sleeping_worker(
    sleeper: Sleeper, sender: Celeriac, postgres_server: PostgresServer
):
    async with await psycopg.AsyncConnection.connect(postgres_server.url()) as connection:

        async def send() -> float:
            await sender.using(connection).send(sender.tasks["note"])
            began = time.perf_counter()
            await connection.commit()
            return began

        times = await sleeper.times(send)
    assert times[0] < AT_BEST
    assert times[TRIALS // 2] < MOSTLY


async def test_while_every_worker_is_busy_nobody_is_notified(
    sender: Celeriac, postgres_url: str, postgres_server: PostgresServer, postgres_schema: str
):
    begun, done = asyncio.Event(), asyncio.Event()

    async def note() -> None:
        begun.set()
        await done.wait()

    async with Celeriac("shop", postgres_url) as app:
        app.register("note", note)
        async with app.worker(concurrency=1):
            with postgres_server.client(postgres_schema) as connection:
                asleep = "SELECT channel, until - extract(epoch FROM clock_timestamp()) FROM celeriac_sleeper"
                async with asyncio.timeout(60):
                    while not connection.execute(asleep).fetchall():  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(0.02)
                await sender.tasks["note"].send()
                await begun.wait()
                ((channel, seconds),) = connection.execute(asleep).fetchall()
                await asyncio.sleep(
                    float(seconds) + 0.05
                )  # until then it may have fallen asleep a moment ago
                connection.execute(f'LISTEN "{channel}"')
                await sender.tasks["note"].send()
                await sender.send_many([sender.tasks["note"].call() for _ in range(10)])
                assert list(connection.notifies(timeout=0.2)) == []
            done.set()
