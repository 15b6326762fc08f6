"""A fleet on RabbitMQ, two workers of ours and one of Celery's, seen and steered by both command lines."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest

from celeriac import Celeriac
from celeriac.errors import TaskRevoked
from tests.interop.celery_worker import CeleryWorker
from tests.servers import RabbitServer

PATIENCE = 60.0

ENDED = {"task-received", "task-started", "task-succeeded"}


class Fleet:
    """Two workers of ours, each an app of its own as in a process of its own, and one of Celery's."""

    def __init__(self, url: str, ours: dict[str, Celeriac], theirs: CeleryWorker) -> None:
        self.url = url
        self.ours = ours
        self.theirs = theirs
        self.app = next(iter(ours.values()))
        self.nodes = sorted([*ours, theirs.name])
        self.queues = {theirs.name: theirs.queue} | {
            node: app.settings.default_queue for node, app in ours.items()
        }

    def command(self, program: str, *line: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours or of Celery's for all nodes, with JSON as output."""
        given = [*line, "-d", ",".join(self.nodes), "-t", "20", "-j"]
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-m", program, "-b", self.url, *given],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )


@pytest.fixture
def url(rabbit_server: RabbitServer, unique: Callable[[str], str]) -> str:
    """A vhost of this test alone."""
    name = unique("fleet")
    rabbit_server.add_vhosts([name])
    return rabbit_server.url(name)


@pytest.fixture
async def fleet(url: str, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        theirs = CeleryWorker(url, "cache+memory://", ["-E"], sociable=True)
        await asyncio.to_thread(theirs.__enter__)
        stack.push_async_callback(asyncio.to_thread, theirs.__exit__, None, None, None)
        ours = {}
        for number in range(2):
            app = Celeriac(
                "ours",
                url,
                f"sqlite:///{tmp_path}/results.db",
                default_queue=f"ours-{number}",
                remote_control=True,
                send_events=True,
                publish_timeout=30,
            )

            @app.task(name="fleet.double")
            async def double(number: int) -> int:
                return 2 * number

            node = f"ours-{number}@here"
            await stack.enter_async_context(app)
            await stack.enter_async_context(app.worker(name=node))
            ours[node] = app
        yield Fleet(url, ours, theirs)


async def all_answer(fleet: Fleet) -> None:
    """Return when the workers hear requests; Celery's calls itself ready before."""
    async with asyncio.timeout(PATIENCE):
        while not (await fleet.app.control.ask("ping", destination=fleet.nodes, timeout=5)).complete:
            pass


@pytest.mark.timeout(240)
async def test_both_command_lines_see_all_and_a_revocation_reaches_all(fleet: Fleet) -> None:
    await all_answer(fleet)
    for line in (["status"], ["inspect", "active_queues"], ["inspect", "stats"]):  # `status` pings
        ours, theirs = await asyncio.gather(
            asyncio.to_thread(fleet.command, "celeriac", *line),
            asyncio.to_thread(fleet.command, "celery", *line),
        )
        assert (ours.returncode, theirs.returncode) == (0, 0), (line, ours.stderr, theirs.stderr)
        told = [json.loads(ended.stdout.splitlines()[0]) for ended in (ours, theirs)]
        assert [sorted(one) for one in told] == [fleet.nodes, fleet.nodes], line
        if line[-1] == "active_queues":
            for one in told:
                assert {node: queue["name"] for node, [queue] in one.items()} == fleet.queues
        elif line[-1] != "stats":
            assert told[0] == told[1]
    await revoke_both_ways(fleet)


async def revoke_both_ways(fleet: Fleet) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    waiting = await fleet.app.signature("fleet.double", 1).set(eta=later).send()
    client = celery.Celery("client", broker=fleet.url)
    await asyncio.to_thread(client.control.revoke, [waiting.id], reply=True, timeout=20)
    client.close()
    with pytest.raises(TaskRevoked):
        await waiting.wait(PATIENCE)
    await fleet.app.cancel("chosen-by-us")
    async with asyncio.timeout(PATIENCE):
        while True:
            asked = await fleet.app.control.ask("revoked", destination=fleet.nodes, timeout=20)
            if all("chosen-by-us" in asked.by_node[node] for node in fleet.nodes):
                break


@pytest.mark.timeout(240)
async def test_the_events_of_all_are_heard_and_all_are_shut_down(fleet: Fleet) -> None:
    await all_answer(fleet)
    heard: list[Any] = []
    async with fleet.app.events.listen() as events:
        for node, queue in fleet.queues.items():
            name = "interop.add" if node == fleet.theirs.name else "fleet.double"
            arguments = [1, 2] if node == fleet.theirs.name else [3]
            await fleet.app.send_task(name, arguments, queue=queue)

        def of(node: str) -> set[str]:
            return {event.type for event in heard if event.node == node}

        async def until(holds: Callable[[], bool]) -> None:
            async with asyncio.timeout(PATIENCE):
                while not holds():
                    heard.append(await anext(events))

        await until(lambda: all(of(node) >= ENDED | {"worker-heartbeat"} for node in fleet.nodes))
        for node in fleet.nodes:
            kinds = [event.type for event in heard if event.node == node and event.type.startswith("task-")]
            assert kinds == ["task-received", "task-started", "task-succeeded"], node
        ended = await asyncio.to_thread(fleet.command, "celeriac", "control", "shutdown")
        assert ended.returncode == 0, ended.stderr
        assert sorted(node for one in json.loads(ended.stdout) for node in one) == fleet.nodes
        await until(lambda: "worker-offline" in of(fleet.theirs.name))  # ours end with their blocks
    assert await asyncio.to_thread(fleet.theirs.process.wait) == 0
