"""A worker is killed between the last part of a chord and its body: who takes over sends what is missing, once."""

import asyncio
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

import redis
from celeriac import ChordError, chord
from celeriac.testing.faults import Faults
from tests.faults.conftest import ROOT
from tests.faults.published_once import Places, opened
from tests.servers import LoggedProcess

TIMEOUT = 60.0

DEATHS = [("same", "count", "after"), ("same", "publish", "after"), ("fail", "publish", "after")]
"""The member of the header, and where the worker dies."""


@pytest.fixture(params=["redis", "sqlite", "rabbitmq and redis", "rabbitmq and sqlite"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """The URLs of broker and result store."""
    known = {"redis": "redis_url", "rabbitmq": "rabbit_url"}
    urls = [
        f"sqlite:///{tmp_path}/{name}.db" if name == "sqlite" else request.getfixturevalue(known[name])
        for name in request.param.split(" and ")
    ]
    return urls[0], urls[-1]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The file that bodies and errbacks leave their lines in."""
    return tmp_path / "lines"


@pytest.mark.parametrize(("member", "point", "when"), DEATHS)
async def test_who_takes_over_a_chord_sends_what_is_missing_once(
    places: Places, queue: str, lines: Path, member: str, point: str, when: str
):
    faults = Faults()
    async with opened(places, queue, lines, faults) as app:
        # On a queue of its own, so that the worker that dies cannot run it before.
        later = f"{queue}.later"
        errback = app.signature("errback").set(queue=later)
        body = app.signature("body").set(queue=later).link_error(errback)
        result = await chord([app.signature(member, 1)], body).send()
        await die(places, queue, lines, point, when)
        end_claim(places[1], result.parent.id)
        async with app.worker(queues=[queue, later], concurrency=1):
            # The part, and the body or its errback. A second one would be in the queue before the part is acknowledged.
            await acknowledged(faults, 3 if comes_again(places) and point == "publish" else 2)
            if member == "same":
                assert await result.wait(TIMEOUT) == [1]
            else:
                with pytest.raises(ChordError):
                    await result.wait(TIMEOUT)
            assert await app.connections().broker.depth(later) == 0
    assert told(lines) == ["body" if member == "same" else f"errback of {result.id}"]


async def test_an_errback_is_sent_once_whoever_dies_after_sending_it(places: Places, queue: str, lines: Path):
    faults = Faults()
    async with opened(places, queue, lines, faults) as app:
        later = f"{queue}.later"
        result = await app.signature("fail", 1).link_error(app.signature("errback").set(queue=later)).send()
        await die(places, queue, lines, "publish", "after")
        async with app.worker(queues=[queue, later], concurrency=1):
            # In one step the message of the failed task is acknowledged with the sending; else it comes again.
            await acknowledged(faults, 3 if comes_again(places) else 1)
            assert await app.connections().broker.depth(later) == 0
    assert told(lines) == [f"errback of {result.id}"]


def comes_again(places: Places) -> bool:
    """Whether what was published by the dead is published again by who takes over, and dropped by who takes it."""
    return places[0].startswith("amqp")


def told(lines: Path) -> list[str]:
    return lines.read_text().splitlines()


async def acknowledged(faults: Faults, times: int) -> None:
    async def holds() -> bool:
        return faults.passed["ack", "after"] >= times

    async with asyncio.timeout(TIMEOUT):
        await faults.until(holds)


async def die(places: Places, queue: str, lines: Path, point: str, when: str) -> None:
    """Let a worker work until it has killed itself."""
    command = [sys.executable, "-m", "tests.faults.published_once", *places, queue, str(lines), point, when]
    worker = LoggedProcess(command, cwd=ROOT)
    assert await asyncio.to_thread(worker.wait, timeout=TIMEOUT) == -signal.SIGKILL


def end_claim(url: str, chord_id: str) -> None:
    """Make short what is left of the claim that the dead worker held."""
    if url.startswith("redis"):
        with closing(redis.Redis.from_url(url)) as client:
            key = f"celery-taskset-meta-{chord_id}.c"
            if client.get(key) != b"done":
                client.pexpire(key, 100)
    else:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            file.execute("UPDATE celeriac_chord SET claimed_until = 0")
            file.commit()
