"""A worker that kills itself at a point of its chord, and that chord's tasks.

Takes BROKER, BACKEND, QUEUE, RECORD, POINT, WHEN.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from celeriac import Celeriac
from celeriac.settings import Settings
from celeriac.testing.faults import Faults, FaultyBackend, FaultyBroker
from tests.faults.opened import open_both

LEASE = 1.0

Places = tuple[str, str]
"""The URLs of broker and result store."""


@asynccontextmanager
async def opened(places: Places, queue: str, record: Path, faults: Faults) -> AsyncIterator[Celeriac]:
    """An app on a real broker and result store with faults."""
    settings = Settings(default_queue=queue, lease=LEASE)
    real_broker, real_backend = open_both(*places, settings)
    broker, backend = FaultyBroker(real_broker, faults), FaultyBackend(real_backend, faults)
    try:
        async with Celeriac("once", broker=broker, backend=backend, settings=settings) as app:
            yield with_tasks(app, record)
    finally:
        await broker.close()
        await backend.close()


def with_tasks(app: Celeriac, record: Path) -> Celeriac:
    """The app with tasks; bodies and errbacks leave a line each in ``record``."""

    def note(what: str) -> None:
        with record.open("a") as file:
            file.write(what + "\n")

    @app.task(name="same")
    async def same(value: int) -> int:
        return value

    @app.task(name="fail")
    async def fail(value: int) -> None:
        raise ValueError("spoiled")

    @app.task(name="body")
    async def body(values: list[int]) -> list[int]:
        note("body")
        return values

    @app.task(name="errback")
    async def errback(task_id: str) -> None:
        note(f"errback of {task_id}")

    return app


async def main(url: str, results: str, queue: str, record: str, point: str, when: str) -> None:
    faults = Faults().kill_at(point, when)  # type: ignore[arg-type]
    async with opened((url, results), queue, Path(record), faults) as app, app.worker(concurrency=1):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
