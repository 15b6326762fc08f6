"""Apps on each kind of broker, and what their tickers have sent."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager

from celeriac import Celeriac
from celeriac.client.periodic import SLOT_HEADER
from celeriac.clock import SystemClock
from celeriac.contracts.board import Tenure

PATIENCE = 60.0

KINDS = ("memory", "sqlite", "redis", "postgres", "rabbitmq+redis", "rabbitmq+rpc")
SHARED = ("sqlite", "redis", "rabbitmq+redis")


class ShiftedClock(SystemClock):
    """The machine's clock, some seconds off."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return SystemClock.now() + self.seconds


class Place:
    """A broker and result store, a name for the app, and a queue of its own."""

    def __init__(self, name: str, broker: object, backend: object) -> None:
        self.name = name
        self.queue = f"{name}.queue"
        self._broker = broker
        self._backend = backend

    @property
    def urls(self) -> tuple[str, str]:
        """Broker and result store, for a process of its own."""
        assert isinstance(self._broker, str)
        assert isinstance(self._backend, str)
        return self._broker, self._backend

    def app(self, shift: float = 0.0, *, lease: float = 1.0, **settings: object) -> Celeriac:
        """Return an app as a process of its own would make it."""
        settings = {"default_queue": self.queue, "lease": lease, **settings}
        return Celeriac(self.name, self._broker, self._backend, clock=ShiftedClock(shift), **settings)

    async def slots(self, app: Celeriac, limit: int = 5000) -> Counter[tuple[str, float]]:
        """Return the task and slot of each message that was sent and not taken."""
        waiting = await app.connections().broker.peek(self.queue, limit)
        return Counter((one.headers["task"], one.headers.get(SLOT_HEADER)) for one in waiting)

    async def depth(self, app: Celeriac) -> int:
        """Return how many messages were sent and not taken."""
        return await app.connections().broker.depth(self.queue)

    async def until(self, app: Celeriac, count: int, task: str | None = None) -> Counter[tuple[str, float]]:
        """Return as ``slots``, when there are so many messages, of this task."""
        async with asyncio.timeout(PATIENCE):
            while True:
                found = await self.slots(app)
                if sum(times for (name, _), times in found.items() if task in (None, name)) >= count:
                    return found
                await asyncio.sleep(0.05)


@asynccontextmanager
async def ticking(app: Celeriac):
    """Run the app's ticker within the block."""
    ticker = app.schedules.ticker()
    running = asyncio.create_task(ticker.run())
    try:
        yield ticker
    finally:
        ticker.stop()
        await asyncio.wait_for(running, PATIENCE)


@contextmanager
def everybody_leads(monkeypatch, places) -> Iterator[None]:
    """Let each ticker of these apps have the lease."""

    async def hold(self, name: str, holder: str, seconds: float) -> Tenure:
        return Tenure(held=True)

    for leases in places:
        monkeypatch.setattr(type(leases), "hold", hold)
    yield
