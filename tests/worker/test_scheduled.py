"""Remote control's `scheduled`: a message for later is told of from the moment at which it was sent."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest

from celeriac import Celeriac, Settings
from celeriac.contracts.backend import Backend
from celeriac.contracts.broker import Broker, Delivery
from celeriac.testing.faults import Faults, FaultyBroker, Pause
from celeriac.wire.envelope import Envelope, Route
from celeriac.worker.attempt import SPENT
from tests.faults.opened import open_both
from tests.servers import RedisServer

NODE = "ours@here"
PATIENCE = 60.0
LATER = timedelta(minutes=10)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[tuple[Broker, Backend]]:
    """A broker that parks what a worker tells it to; that on Redis does so by itself."""
    url = f"sqlite:///{tmp_path}/tasks.db"
    broker, backend = open_both(url, url, Settings())
    yield broker, backend
    await broker.close()
    await backend.close()


def with_task(app: Celeriac) -> Celeriac:
    @app.task(name="task")
    async def task() -> None: ...

    return app


def message(task_id: str, wait: timedelta | None = None) -> Envelope:
    """A message as Celery's clients send it: one for later waits in the queue itself."""
    eta = (datetime.now(UTC) + wait).isoformat() if wait else None
    headers = {"task": "task", "id": task_id, "eta": eta}
    return Envelope(
        body=b"[[], {}, {}]", content_type="application/json", content_encoding="utf-8", headers=headers
    )


async def send(broker: Broker, envelope: Envelope) -> None:
    await broker.publish(envelope, Route("celery", "", "celery"))


async def ask(app: Celeriac, method: str, **arguments: Any) -> Any:
    asked = await app.control.ask(method, arguments, destination=[NODE], timeout=PATIENCE)
    return asked.by_node[NODE]


async def scheduled(app: Celeriac) -> list[str]:
    """Return the ids of what is told of as scheduled."""
    return [entry["request"]["id"] for entry in await ask(app, "scheduled")]


async def reached(pause: Pause) -> None:
    async with asyncio.timeout(PATIENCE):
        await pause.reached.wait()


async def test_a_message_is_told_of_while_it_is_parked(servers: tuple[Broker, Backend]) -> None:
    broker, backend = servers
    faults = Faults()
    parking = faults.pause("park")

    async def both_are_parked() -> bool:
        return faults.passed["park", "after"] == 2

    async with (
        with_task(Celeriac("parking", FaultyBroker(broker, faults), backend)) as app,
        app.worker(name=NODE),
    ):
        await send(broker, message("second", LATER * 2))
        await reached(parking)
        await send(broker, message("first", LATER))
        assert await scheduled(app) == ["first", "second"]
        assert (await ask(app, "query_task", ids="first"))["first"][0] == "scheduled"
        parking.resume()
        async with asyncio.timeout(PATIENCE):
            await faults.until(both_are_parked)
        assert await scheduled(app) == ["first", "second"]


async def test_of_what_is_held_without_a_slot_some_is_scheduled_and_some_reserved(
    servers: tuple[Broker, Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with with_task(Celeriac("held", *servers)) as app, app.worker(name=NODE) as worker:
        assert worker._consumer is not None
        sent = message("now"), message("later", LATER)
        held = [Delivery(envelope, "celery", SPENT) for envelope in sent]
        monkeypatch.setattr(worker._consumer.intake, "held", lambda: held)
        assert await scheduled(app) == ["later"]
        assert [entry["id"] for entry in await ask(app, "reserved")] == ["now"]


class AskedFirst(FaultyBroker):
    """A broker that hands out nothing until it was asked how much there is."""

    def __init__(self, broker: Broker) -> None:
        faults = Faults()
        self.pause = faults.pause("take")
        super().__init__(broker, faults)

    async def depth(self, queue: str) -> int:
        found = await super().depth(queue)
        self.pause.resume()
        return found


async def test_a_message_is_told_of_that_the_worker_is_about_to_take(own_redis: RedisServer) -> None:
    url = own_redis.url()
    broker, backend = open_both(url, url, Settings())
    slow = AskedFirst(broker)
    client = celery.Celery("client", broker=url, backend=url)
    async with with_task(Celeriac("taking", slow, backend)) as app, app.worker(name=NODE):
        await reached(slow.pause)
        sent = await asyncio.to_thread(client.send_task, "task", countdown=LATER.total_seconds())
        assert await scheduled(app) == [sent.id]
    await broker.close()
    await backend.close()
    client.close()
