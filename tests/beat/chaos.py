"""The long form of ``test_kills``: three processes that tick, one of them killed, stopped or cut off every 20 s."""

from __future__ import annotations

import asyncio
import tempfile
import uuid
from argparse import Namespace

from tests.beat.fleet import Fleet
from tests.beat.places import Place
from tests.servers import PostgresServer, RabbitServer, RedisServer

LEASE = 5.0
EVERY = 20.0
"""Seconds from one mishap to the next, at the most."""

LONG = 40.0
"""Seconds for which a process stands still or is cut off."""

SHOWN = 20
KINDS = ("sqlite", "redis", "postgres", "rabbitmq")


def run(given: Namespace) -> int:
    """Let a fleet tick on each kind of broker while its processes are in trouble; print what went wrong."""
    wrong = 0
    with (
        RedisServer() as redis,
        RabbitServer() as rabbit,
        PostgresServer() as postgres,
        tempfile.TemporaryDirectory() as directory,
    ):
        file = f"sqlite:///{directory}/beat.db"
        kinds = {
            "sqlite": (file, file),
            "redis": (redis.url(0), redis.url(0)),
            "postgres": (postgres.url(), postgres.url()),
            "rabbitmq": (rabbit.url(), redis.url(1)),
        }
        for kind in [given.broker] if given.broker else KINDS:
            found = asyncio.run(_run_on(kinds[kind], given.seconds or 180.0, given.seed, given.entries))
            print(f"periodic tasks on {kind}:", *found[-1:], sep="\n  ")
            print(f"  {len(found) - 1} problems", *found[:-1][:SHOWN], sep="\n  ", flush=True)
            wrong += len(found) - 1
    return 1 if wrong else 0


async def _run_on(urls: tuple[str, str], seconds: float, seed: int, entries: int) -> list[str]:
    """Return what went wrong, and last what was done."""
    place = Place(f"beat-{uuid.uuid4().hex}", *urls)
    async with Fleet(place, *urls, entries=entries, every=1.0, lease=LEASE) as fleet:
        for _ in range(3):
            await fleet.start()
        async with place.app() as app:
            await place.until(app, entries)
        await fleet.trouble(seconds, seed, pause=min(EVERY, seconds / 4), long=min(LONG, seconds / 2))
        await asyncio.sleep(3 * LEASE)
        await fleet.kill_all()
        return [*await fleet.problems(copies=urls[0].startswith("amqp")), fleet.summary()]
