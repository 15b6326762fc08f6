"""procrastinate: ``python -m bench.peers.procrastinate fill 1000``, and ``work`` until it is told to end."""

import asyncio
import os
import sys

from procrastinate import App, PsycopgConnector

AT_ONCE = 20
"""Jobs that it runs at once; each is fetched alone."""


def make_app() -> App:
    """An app with one task, which does next to nothing."""
    app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_POSTGRES"]))

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    return app


async def fill(app: App, count: int) -> None:
    """Make the tables, and send that many jobs."""
    await app.schema_manager.apply_schema_async()
    await app.tasks["add"].batch_defer_async(*[{"x": 2, "y": 3}] * count)


async def work(app: App, _: int) -> None:
    """Run jobs, whose rows are deleted then, until SIGTERM."""
    await app.run_worker_async(concurrency=AT_ONCE, delete_jobs="always")


async def main(command: str, count: int = 0) -> None:
    """Run one of the above."""
    app = make_app()
    async with app.open_async():
        await {"fill": fill, "work": work}[command](app, count)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
