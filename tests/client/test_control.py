"""The asking side of remote control: ``app.control``."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.errors import ConfigError
from celeriac.worker.worker import Worker
from tests.servers import RabbitServer, RedisServer

NODES = ["one@here", "two@there"]
PATIENCE = 60.0
"""Seconds to wait for an answer, which a test that passes never waits."""


@dataclass(frozen=True)
class Place:
    """A broker with two workers, who share their exchange with no other test.

    :param counts: whether the broker tells how many hear a question.
    """

    app: Celeriac
    workers: list[Worker]
    counts: bool


@pytest.fixture(scope="module")
def alone() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["redis", "rabbitmq", "sqlite", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("alone")
        return server.url()
    if request.param == "rabbitmq":
        rabbit: RabbitServer = request.getfixturevalue("rabbit_server")
        return rabbit.url()
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db"


@pytest.fixture
async def place(url: str, unique: Callable[[str], str]) -> AsyncIterator[Place]:
    def make() -> Celeriac:
        return Celeriac(
            "asking",
            url,
            "disabled://",
            default_queue=queue,
            control_exchange=exchange,
            remote_control=True,
        )

    queue, exchange = unique("queue"), unique("control")
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(make())
        # A broker in memory is its app's alone.
        apps = [app if url == "memory://" else await stack.enter_async_context(make()) for _ in NODES]
        workers = [one.worker(name=name) for one, name in zip(apps, NODES, strict=True)]
        for worker in workers:
            await stack.enter_async_context(worker)
        yield Place(app, workers, counts=not url.startswith("amqp"))


async def test_workers_are_asked(place: Place) -> None:
    control, began = place.app.control, time.monotonic()
    for _ in range(10):
        asked = await control.ask("ping", destination=NODES, timeout=PATIENCE)
        assert asked.by_node == {name: {"ok": "pong"} for name in NODES}
        assert asked.complete
    if place.counts:
        asked = await control.ask("ping", timeout=PATIENCE)
        assert (sorted(asked.by_node), asked.listeners, asked.complete) == (NODES, 2, True)
    one = await control.ask("ping", destination=NODES[:1], timeout=PATIENCE)
    assert list(one.by_node) == NODES[:1]
    wrong = await control.ask("nosuch", destination=NODES[:1], timeout=PATIENCE)
    assert wrong.by_node == {NODES[0]: {"error": "KeyError('nosuch')"}}
    assert time.monotonic() - began < PATIENCE / 2

    some = await control.ask("ping", pattern="two@*", timeout=1.0)
    assert (list(some.by_node), some.complete) == (NODES[1:], False)
    some = await control.ask("ping", pattern="o.e@", matcher="pcre", timeout=1.0)
    assert list(some.by_node) == NODES[:1]
    nobody = await control.ask("ping", destination=["nobody@here"], timeout=0.1)
    assert (nobody.by_node, nobody.complete) == ({}, False)


async def test_workers_are_steered(place: Place, queue: str) -> None:
    control, (one, two) = place.app.control, place.workers
    heard = await control.tell("add_consumer", {"queue": queue}, destination=NODES[:1])
    assert heard == (2 if place.counts else None)
    async with asyncio.timeout(PATIENCE):
        while queue not in one.queues:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    assert queue not in two.queues


async def test_code_without_a_loop_asks(alone: RedisServer, unique: Callable[[str], str]) -> None:
    app = Celeriac("asking", alone.url(), control_exchange=unique("control"), remote_control=True)
    async with app, app.worker(name=NODES[0]):
        control = app.control
        asked = await asyncio.to_thread(control.broadcast, "ping", timeout=PATIENCE)
        assert asked.by_node == {NODES[0]: {"ok": "pong"}}


async def test_where_nobody_is_the_answer_comes_at_once(url: str, unique: Callable[[str], str]) -> None:
    async with Celeriac("asking", url, "disabled://", control_exchange=unique("control")) as app:
        began = time.monotonic()
        asked = await app.control.ask("ping", timeout=PATIENCE)
        assert (asked.answers, asked.listeners, asked.complete) == ((), 0, True)
        assert await app.control.tell("ping") == 0
        assert time.monotonic() - began < PATIENCE / 2


async def test_what_cannot_be_asked_is_refused(unique: Callable[[str], str]) -> None:
    async with Celeriac("asking", "memory://") as app:
        with pytest.raises(ConfigError, match="list of names"):
            await app.control.ask("ping", destination="one@here")
        with pytest.raises(ConfigError, match="timeout"):
            await app.control.ask("ping", timeout=-1)
