"""What a fleet leaves on RabbitMQ: after many starts, and after one that was killed, no more than after the first."""

import asyncio
import operator
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from celeriac import Celeriac
from tests.servers import LoggedProcess, RabbitServer

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0
NODES = ["one@here", "two@here"]

LOOKS: Mapping[str, Sequence[str]] = {
    "connections": ["list_connections", "vhost"],
    "queues": ["list_queues", "-p", "{vhost}", "exclusive", "name"],
    "exchanges": ["list_exchanges", "-p", "{vhost}", "name"],
    "bindings": ["list_bindings", "-p", "{vhost}", "source_name", "destination_name", "routing_key"],
}


@pytest.mark.timeout(240)
async def test_many_starts_leave_no_more_than_the_first(
    rabbit_server: RabbitServer, bare_vhost: str, queue: str
) -> None:
    def kept() -> dict[str, list[str]]:
        """What is there now, by its kind; connections alone where there are any."""
        found: dict[str, list[str]] = {}
        for kind, look in LOOKS.items():
            lines = rabbit_server.control(*(word.format(vhost=bare_vhost) for word in look)).splitlines()
            found[kind] = sorted(line for line in lines[1:] if kind != "connections" or line == bare_vhost)
            if found["connections"]:
                break
        return found

    async def until_nobody_is_there() -> dict[str, list[str]]:
        """What is there when all connections and their own queues are gone, which RabbitMQ tells nobody."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await asyncio.to_thread(kept)
                if not found["connections"] and not any(line.startswith("true") for line in found["queues"]):
                    return found

    url = rabbit_server.url(bare_vhost)
    await live(url, queue)
    first = await until_nobody_is_there()
    assert len(first["queues"]) > 30
    for _ in range(4):
        await live(url, queue)
    await be_killed(url, queue)
    async with asyncio.timeout(PATIENCE):
        while await until_nobody_is_there() != first:
            pass


async def live(url: str, queue: str) -> None:
    """Two workers, a monitor and what asks begin, do what they do, and end."""
    app = Celeriac("fleet", url, "rpc://", default_queue=queue, remote_control=True, send_events=True)
    add = app.register("fleet.add", operator.add)
    async with app, app.worker(name=NODES[0]), app.worker(name=NODES[1]), app.events.listen() as events:
        later = await add.using(countdown=0.2).send(40, 2)
        assert await (await add.send(1, 2)).wait(PATIENCE) == 3
        assert await later.wait(PATIENCE) == 42
        asked = await app.control.ask("ping", destination=NODES, timeout=PATIENCE)
        assert sorted(asked.by_node) == NODES
        async with asyncio.timeout(PATIENCE):
            async for event in events:
                if event.type == "task-succeeded":
                    break


async def be_killed(url: str, queue: str) -> None:
    """A worker in a process of its own begins, and is killed."""
    command = [sys.executable, "-m", "celeriac", "worker", "-A", "tests.monitors.tasks", "-n", NODES[0], "-E"]
    environment = os.environ | {"MONITORED": url, "MONITORED_RESULTS": "rpc://"}
    worker = LoggedProcess([*command, "-Q", queue], env=environment, cwd=ROOT)
    try:
        await asyncio.to_thread(worker.wait_for, " ready", timeout=PATIENCE)
    finally:
        worker.kill()
