"""What a worker owes to whoever sends sound messages, whatever else is in its queue."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from celeriac import Celeriac

HOLDER = str(Path(__file__).with_name("holder.py"))


def make_app(broker: str, queue: str, backend: str = "memory://") -> Celeriac:
    """Return an app whose only task is ``ok``, and whose dead peers are found soon."""
    app = Celeriac("hostile", broker=broker, backend=backend, default_queue=queue, lease=0.4)

    @app.task(name="ok")
    async def ok(number: int) -> int:
        return number

    return app


async def die_holding(broker: str, queue: str, count: int) -> None:
    """Have a process take so many messages, and die with them in its hands."""
    process = await asyncio.create_subprocess_exec(sys.executable, HOLDER, broker, queue, str(count))
    assert await process.wait() == 9


async def until(holds: Callable[[], Awaitable[object]], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - no broker tells of this
            await asyncio.sleep(0.02)


async def runs(app: Celeriac, number: int = 7) -> bool:
    """Whether a task that is sent now is run."""
    return bool(await (await app.send_task("ok", [number])).wait(timeout=60) == number)


async def count_dead(app: Celeriac, queue: str) -> int:
    letters = await app.connections().broker.dead.list(limit=10_000)
    return sum(letter.queue == queue for letter in letters)


async def outlive(app: Celeriac, broker: str, queue: str, count: int) -> None:
    """Check that what killed its worker's process kills no other, and ends as dead letters."""
    await die_holding(broker, queue, count)
    async with app, app.worker(queues=[queue]):
        assert await runs(app)

        async def all_are_dead() -> bool:
            return await count_dead(app, queue) == count

        await until(all_are_dead)
        assert await runs(app, 8)
