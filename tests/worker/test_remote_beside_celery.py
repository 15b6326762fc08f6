"""Remote control in a fleet of Celery's workers and ours: greetings, elections, revocations; clients that die."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack

import celery
import pytest

from celeriac import Celeriac
from celeriac.contracts.fanout import Binding, Exchange
from celeriac.errors import TaskRevoked
from celeriac.wire.event import read_events
from tests.interop.celery_worker import CeleryWorker
from tests.servers import RedisServer

PATIENCE = 50.0

ASKERS = """
import os, sys, celery, kombu.transport.redis
url, node = sys.argv[1:]
app = celery.Celery("asker", broker=url)
app.finalize()
for _ in range(10):
    if os.fork() == 0:
        app.control.broadcast("active", destination=[node], reply=True, timeout=60)
        os._exit(0)
for _ in range(10):
    os.wait()
"""
"""A program of ten clients that wait for the answer of one worker."""


@pytest.fixture(scope="module")
def alone() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
async def ours(alone: RedisServer) -> AsyncIterator[list[Celeriac]]:
    """Four workers of ours, each an app of its own as in a process of its own."""
    url = alone.url()
    apps = [Celeriac("ours", url, url, default_queue=f"ours-{number}") for number in range(4)]
    async with AsyncExitStack() as stack:
        for number, app in enumerate(apps):
            await stack.enter_async_context(app)
            await stack.enter_async_context(app.worker(name=f"ours-{number}@here"))
        yield apps


async def test_a_fleet_of_both(alone: RedisServer, ours: list[Celeriac]) -> None:
    url, app = alone.url(), ours[0]
    client = celery.Celery("client", broker=url, backend=url)
    with ExitStack() as stack:
        theirs = [CeleryWorker(url, sociable=True), CeleryWorker(url, sociable=True)]
        await asyncio.gather(*[asyncio.to_thread(stack.enter_context, worker) for worker in theirs])
        names = [*(worker.name for worker in theirs), *(f"ours-{number}@here" for number in range(4))]

        # They greeted ours when they started, and found nothing to complain of.
        for worker in theirs:
            greeted = next(line for line in worker.process.lines if "mingle: sync with" in line)
            assert int(greeted.split("sync with ")[1].split()[0]) >= 4
            assert "Traceback" not in worker.process.output
            assert "drift" not in worker.process.output

        # Ours asks them all, and is back as soon as all have answered. Celery's call themselves ready too early.
        async with asyncio.timeout(PATIENCE):
            while set((await app.control.ask("ping", timeout=PATIENCE)).by_node) != set(names):
                pass

        # An election ends though most of the nodes that beat are ours. First each must have heard of all.
        await hear_all_beat(app, set(names))
        options = {"task_id": "elected", "queue": theirs[0].queue}
        action = {"task": "interop.add", "args": [1, 2], "kwargs": {}, "options": options}
        await asyncio.to_thread(client.control.election, "the-election", "task", action)
        assert await app.result("elected").wait(PATIENCE) == 3
        won = [line for worker in theirs for line in worker.process.lines if "I won the election" in line]
        assert len(won) == 1

        # What ours revokes, they know, and end where it runs.
        running = (
            await app.signature("interop.report", alone.url(2), "never").set(queue=theirs[0].queue).send()
        )
        async with asyncio.timeout(PATIENCE):
            while (await running.info()).status != "PROGRESS":  # noqa: ASYNC110 - a look at the state in between
                await asyncio.sleep(0.05)
        await running.cancel(terminate=True)
        with pytest.raises(TaskRevoked):
            await running.wait(PATIENCE)
        known = (await app.control.ask("revoked", destination=[theirs[0].name], timeout=PATIENCE)).by_node
        assert running.id in known[theirs[0].name]
        for worker in theirs:
            assert worker.process.running
            assert "Traceback" not in worker.process.output
    client.close()


async def hear_all_beat(app: Celeriac, nodes: set[str]) -> None:
    fanout = app.connections().broker.fanout
    assert fanout is not None
    beats = Binding(exchange=Exchange("celeryev", by_key=True), key="worker.heartbeat")
    async with asyncio.timeout(PATIENCE), fanout.listen([beats]) as heard:
        left = set(nodes)
        async for message in heard:
            left -= {event.node for event in read_events(message, app.codecs)}
            if not left:
                return


def kill_ten_who_ask(server: RedisServer, channel: str, database: int, node: str) -> list[bytes]:
    """Start ten clients of Celery that ask, kill them while they wait, and return their requests."""
    with server.client() as client, client.pubsub() as heard:
        heard.subscribe(channel)
        command = [sys.executable, "-c", ASKERS, server.url(database), node]
        askers = subprocess.Popen(command, start_new_session=True)
        try:
            requests, end = list[bytes](), time.monotonic() + PATIENCE
            while len(requests) < 10 and time.monotonic() < end:
                if message := heard.get_message(ignore_subscribe_messages=True, timeout=1):
                    requests.append(message["data"])
        finally:
            os.killpg(askers.pid, signal.SIGKILL)
            askers.wait()
            while client.info("clients")["blocked_clients"]:  # one that is dying still takes its answer
                time.sleep(0.01)
    return requests


async def test_clients_that_die_leave_no_key_for_ever(alone: RedisServer) -> None:
    url, channel, node = alone.url(3), "/3.celery.pidbox", "late@here"
    requests = await asyncio.to_thread(kill_ten_who_ask, alone, channel, 3, node)
    assert len(requests) == 10
    # A worker that is so late that they are dead when it answers.
    async with Celeriac("late", url, url) as app, app.worker(name=node):
        left: set[bytes] = set()
        with alone.client(3) as client:
            async with asyncio.timeout(PATIENCE):
                for request in requests:
                    # A worker does not wait long for its remote control; what nobody hears is gone.
                    while not client.publish(channel, request):  # noqa: ASYNC110
                        await asyncio.sleep(0.01)
                while len(left) < 10:
                    keys = [
                        key for key in client.scan_iter("*.reply.celery.pidbox") if not key.startswith(b"_")
                    ]
                    assert all(client.pttl(key) in (-2, *range(10_001)) for key in keys)
                    left.update(keys)
                    await asyncio.sleep(0.01)
