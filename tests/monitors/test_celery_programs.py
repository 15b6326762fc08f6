"""Celery's own programs look at a worker of ours in another time zone: `celery events`, as lines and as a screen."""

import asyncio
import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from celeriac import Celeriac
from tests.interop.celery_worker import CeleryWorker
from tests.servers import LoggedProcess, RedisServer

ROOT = Path(__file__).resolve().parents[2]
NODE, OTHER = "ours@tokyo", "other@tokyo"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="module")
def workers(server: RedisServer) -> Iterator[Sequence[LoggedProcess]]:
    """Two workers of ours, whose local time is nine hours ahead of UTC."""
    started = []
    for node in (NODE, OTHER):
        command = [sys.executable, "-m", "celeriac", "worker", "-A", "tests.monitors.tasks", "-n", node, "-E"]
        environment = os.environ | {"MONITORED": server.url(), "TZ": "Asia/Tokyo"}
        started.append(LoggedProcess([*command, "-Q", node], env=environment, cwd=ROOT))
    for worker in started:
        worker.wait_for(" ready", timeout=PATIENCE)
    yield started
    for worker in started:
        worker.kill()


@pytest.fixture
async def app(server: RedisServer) -> AsyncIterator[Celeriac]:
    async with Celeriac("sender", server.url(), server.url(), default_queue=NODE) as app:
        yield app


def celery_events(server: RedisServer, *options: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-m", "celery", "-b", server.url(), "events", *options]


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("workers")
async def test_its_dump_has_every_task_from_received_to_its_end(server: RedisServer, app: Celeriac) -> None:
    dump = LoggedProcess(
        celery_events(server, "--dump"), env=os.environ | {"PYTHONUNBUFFERED": "1"}, cwd=ROOT
    )
    try:
        await asyncio.to_thread(dump.wait_for, "heartbeat", timeout=PATIENCE)
        added = await app.send_many([app.call("tasks.add", [number, 1]) for number in range(50)])
        failed = await app.send_task("tasks.fail")
        wanted = {result.id: ["received", "started", "succeeded"] for result in added}
        wanted[failed.id] = ["received", "started", "failed"]
        end = time.monotonic() + PATIENCE
        while (found := kinds_by_id(dump.lines)) != wanted:
            assert time.monotonic() < end, found
            await asyncio.sleep(0.1)
    finally:
        dump.kill()


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("workers")
async def test_both_dumps_have_the_same_lines(server: RedisServer, app: Celeriac) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    ours = [sys.executable, "-m", "celeriac", "-b", server.url(), "events"]
    dumps = [
        LoggedProcess(command, env=environment, cwd=ROOT)
        for command in (ours, celery_events(server, "--dump"))
    ]
    try:
        for dump in dumps:
            await asyncio.to_thread(dump.wait_for, "heartbeat", timeout=PATIENCE)
        first = await app.send_task("tasks.add", [1, 2])
        await first.wait(PATIENCE)
        for name in ("tasks.fail", "tasks.climb"):
            with suppress(ValueError):
                await (await app.send_task(name)).wait(PATIENCE)
        last = await app.send_task("tasks.add", [3, 4])
        found = []
        for dump in dumps:
            await asyncio.to_thread(dump.wait_for, f"succeeded: tasks.add({last.id})", timeout=PATIENCE)
            found.append(between(dump.lines, f"received: tasks.add({first.id})", f"tasks.add({last.id})"))
    finally:
        for dump in dumps:
            dump.kill()
    assert found[0] == found[1]
    kinds = {kind for of_task in kinds_by_id(found[0]).values() for kind in of_task}
    assert kinds == {"received", "started", "succeeded", "failed", "progress"}


def between(lines: Sequence[str], first: str, last: str) -> list[str]:
    """The lines from the first that has one text to the last that has the other, but for when the reader had them."""
    begin = next(place for place, line in enumerate(lines) if first in line)
    end = max(place for place, line in enumerate(lines) if last in line)
    return [re.sub(r"local_received=[\d.]+", "", line) for line in lines[begin : end + 1]]


def kinds_by_id(lines: Sequence[str]) -> dict[str, list[str]]:
    """What a dump tells of each task, in its order."""
    found: dict[str, list[str]] = {}
    for line in lines:
        if told := re.search(r"\] task (\w+): [\w.]+\(([\w-]+)\)", line):
            found.setdefault(told[2], []).append(told[1])
    return found


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("workers")
async def test_its_screen_starts_and_lists_what_runs(server: RedisServer, app: Celeriac) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ |= {"TERM": "xterm", "COLUMNS": "200", "LINES": "50"}
        os.execv(sys.executable, celery_events(server))
    shown, end = b"", time.monotonic() + PATIENCE
    try:
        while b"tasks.add" not in shown:
            assert time.monotonic() < end, shown
            await app.send_task("tasks.add", [1, 2])  # it hears what comes after its start
            while select.select([terminal], [], [], 0.2)[0]:
                shown += os.read(terminal, 65536)
        assert NODE.encode() in shown
    finally:
        os.kill(pid, signal.SIGKILL)
        await asyncio.to_thread(os.waitpid, pid, 0)
        os.close(terminal)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("workers")
async def test_celerys_worker_sees_no_drift_of_one_in_another_time_zone(
    server: RedisServer, app: Celeriac, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    with CeleryWorker(server.url(), arguments=["-l", "DEBUG"], sociable=True) as celery:
        async with asyncio.timeout(PATIENCE), app.events.listen("worker.#") as events:
            beats = 0
            async for event in events:
                beats += event.node == NODE and event.type == "worker-heartbeat"
                if beats == 3:
                    break
        assert "mingle: sync with 2 nodes" in celery.process.output
        assert "drift" not in celery.process.output


async def test_one_that_hangs_is_waited_for_no_longer_than_was_said(
    workers: Sequence[LoggedProcess], app: Celeriac
) -> None:
    workers[1].send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        asked = await app.control.ask("ping", timeout=1.0)
        assert time.monotonic() - began < PATIENCE / 2
    finally:
        workers[1].send_signal(signal.SIGCONT)
    assert (list(asked.by_node), asked.listeners) == ([NODE], 2)
