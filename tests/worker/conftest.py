"""Whole workers on every broker."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.worker import slots
from celeriac.worker.pools.processes import ahead
from tests.worker.ahead_times import LONG
from tests.worker.letters import letters_of


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave calls ahead behind a long one for as long as a test needs."""
    monkeypatch.setattr(ahead, "LONGEST", LONG)
    monkeypatch.setattr(ahead, "SHORT", LONG)
    monkeypatch.setattr(slots, "LONGEST", LONG)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a broker and result store."""
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        return url
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db"


@pytest.fixture(params=["memory", "sqlite", "redis", "rabbitmq"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of a broker, and of a result store: on the same server, but for RabbitMQ, whose results are in Redis."""
    if request.param == "rabbitmq":
        return request.getfixturevalue("rabbit_url"), request.getfixturevalue("redis_url")
    if request.param == "redis":
        return (request.getfixturevalue("redis_url"),) * 2
    return ("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/tasks.db",) * 2


@pytest.fixture
async def app(places: tuple[str, str], unique: Callable[[str], str]) -> AsyncIterator[Celeriac]:
    """An app with a default queue, and key prefix, of its own."""
    prefix = unique("test")
    async with Celeriac("worker-test", *places, default_queue=prefix, key_prefix=f"{prefix}:") as made:
        yield made
        if places[0].startswith("amqp"):
            await _leave_nothing(made)


async def _leave_nothing(app: Celeriac) -> None:
    """Delete what is set aside or parked of the app's queue: other tests count all there is on the server."""
    broker, queue = app.connections().broker, app.settings.default_queue
    await broker.dead.delete([letter.id for letter in await letters_of(app)])
    parked = await broker.schedule.list(10_000)
    await broker.schedule.delete([entry.id for entry in parked if entry.queue == queue])
