"""Remote control in a fleet of Celery's workers and ours: greetings, elections, revocations; clients that die."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack

import celery
import pytest
from celery.worker.control import Panel

from celeriac import Celeriac
from celeriac.contracts.fanout import Binding, Exchange
from celeriac.errors import TaskRevoked
from celeriac.wire.event import read_events
from tests.interop.celery_worker import CeleryWorker
from tests.servers import RedisServer

PATIENCE = 50.0

PREFORKS = {"writes"}
"""What only Celery's pool of processes has to tell of."""

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
        elected = f"elected-{uuid.uuid4()}"
        options = {"task_id": elected, "queue": theirs[0].queue}
        action = {"task": "interop.add", "args": [1, 2], "kwargs": {}, "options": options}
        await asyncio.to_thread(client.control.election, f"for-{elected}", "task", action)
        assert await app.result(elected).wait(PATIENCE) == 3
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


async def test_each_method_answers_with_what_celerys_has(alone: RedisServer) -> None:
    url = alone.url(4)
    client = celery.Celery("client", broker=url, backend=url)
    with CeleryWorker(url) as theirs:
        async with (
            Celeriac("ours", url, url, default_queue="ours-4") as app,
            app.worker(name="ours-4@here"),
        ):
            app.task(name="interop.add")(lambda x, y: x + y)
            for queue in (theirs.queue, "ours-4"):
                await app.signature("interop.add", 1, 2).set(queue=queue, countdown=600).send()
            nodes = [theirs.name, "ours-4@here"]

            async def ask(method: str, **arguments: object) -> list[object]:
                told = await app.control.ask(method, arguments, destination=nodes, timeout=PATIENCE)
                return [told.by_node[node] for node in nodes]

            async with asyncio.timeout(PATIENCE):
                while not all(await ask("scheduled")):
                    pass
            for method in Panel.meta:
                if Panel.meta[method].type == "inspect" and method != "conf":  # each has its own settings
                    arguments = {"query_task": {"ids": ["nosuch"]}, "hello": {"from_node": "nosuch@here"}}
                    celerys, ours = await ask(method, **arguments.get(method, {}))
                    assert lacking(celerys, ours) == [], (method, celerys, ours)
    client.close()


def lacking(celerys: object, ours: object, path: str = "") -> list[str]:
    """The places where an answer of ours lacks what Celery's has, or has it as another type."""
    if celerys is None or ours is None:
        return []
    if isinstance(celerys, dict) and isinstance(ours, dict):
        found = [f"{path}.{key}" for key in celerys if key not in {*ours, *PREFORKS}]
        return [
            *found,
            *(
                place
                for key in celerys
                if key in ours
                for place in lacking(celerys[key], ours[key], f"{path}.{key}")
            ),
        ]
    if isinstance(celerys, list) and isinstance(ours, list):
        return lacking(celerys[0], ours[0], f"{path}[]") if celerys and ours else []
    alike = type(celerys) is type(ours) or {type(celerys), type(ours)} <= {int, float}
    return [] if alike else [f"{path}: {type(celerys).__name__} {type(ours).__name__}"]


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
