"""``python -m tests.beat``: three processes that tick, of which one dies or stands still again and again."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from argparse import ArgumentParser

from tests.beat.fleet import Fleet
from tests.beat.places import Place
from tests.servers import PostgresServer, RabbitServer, RedisServer

SHOWN = 20


async def run(place: Place, urls: tuple[str, str], seconds: float, seed: int, entries: int) -> list[str]:
    """Return what went wrong."""
    fleet = Fleet(place, *urls, entries=entries, every=1.0, lease=5.0)
    try:
        for _ in range(3):
            fleet.start()
        async with place.app() as app:
            await place.until(app, entries)
        await fleet.trouble(seconds, seed, pause=min(20.0, seconds / 4))
        await asyncio.sleep(12)
        for process in fleet.processes:
            process.running and process.kill()
        return await fleet.problems(copies=urls[0].startswith("amqp"))
    finally:
        fleet.end()


def main() -> int:
    """Let a fleet tick on each kind of broker while its processes die; print what was doubled or left out."""
    parser = ArgumentParser(prog="python -m tests.beat", description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--entries", type=int, default=200)
    chosen = parser.parse_args()
    wrong = 0
    with (
        RedisServer() as redis,
        RabbitServer() as rabbit,
        PostgresServer() as postgres,
        tempfile.TemporaryDirectory() as directory,
    ):
        file = f"sqlite:///{directory}/beat.db"
        for kind, urls in {
            "SQLite": (file, file),
            "Redis": (redis.url(0), redis.url(0)),
            "PostgreSQL": (postgres.url(), postgres.url()),
            "RabbitMQ": (rabbit.url(), redis.url(1)),
        }.items():
            place = Place(f"beat-{uuid.uuid4().hex}", *urls)
            found = asyncio.run(run(place, urls, chosen.seconds, chosen.seed, chosen.entries))
            print(f"{kind}: {len(found)} problems", *found[:SHOWN], sep="\n  ", flush=True)
            wrong += len(found)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
