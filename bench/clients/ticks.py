"""Ticks periodic tasks, and reads when their messages are in the queue: ``python -m bench.clients.ticks due 1000``."""

import argparse
import asyncio
import json
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from celeriac import Celeriac, crontab
from celeriac.beat.schedules import Schedules
from celeriac.client.periodic import SLOT_HEADER

AHEAD = 4.0
"""Seconds from the start of a ticking process to the first slot that is measured."""

CRONTABS = {
    "* * * * *": "UTC",
    "*/5 8-18 * * mon-fri": "Europe/Berlin",
    "30 7 * * *": "America/New_York",
    "0 0 1 * *": "Europe/Berlin",
    "0 0 29 2 *": "Europe/Berlin",
    "0 0 29 2 mon": "UTC",
    "0 12 13 * fri": "Australia/Lord_Howe",
    "0 0 31 12 sun": "Asia/Tokyo",
}
YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Arrivals(threading.Thread):
    """Takes messages as they come into a queue, and notes the moment and the slot of each."""

    def __init__(self, queue: str, count: int) -> None:
        super().__init__(daemon=True)
        self._queue = queue
        self._count = count
        self.late: list[float] = []
        self._raws: list[tuple[float, bytes]] = []

    def run(self) -> None:
        with redis.Redis.from_url(os.environ["CELERY_BROKER_URL"]) as client:
            while len(self._raws) < self._count:
                found = client.brpop([self._queue], timeout=30)
                if found is None:
                    break
                self._raws.append((time.time(), found[1]))
        self.late = [at - json.loads(raw)["headers"][SLOT_HEADER] for at, raw in self._raws]


def fresh_app() -> Celeriac:
    """Return an app whose entries and queue nobody has."""
    name = f"bench-{uuid.uuid4().hex}"
    return Celeriac(name, default_queue=name)


@asynccontextmanager
async def ticking(schedules: Schedules) -> AsyncIterator[None]:
    """Tick within the block."""
    ticker = schedules.ticker()
    running = asyncio.create_task(ticker.run())
    try:
        yield
    finally:
        ticker.stop()
        await running


async def start(count: int) -> dict[str, Any]:
    """Start a process whose entries are kept already, until it has ticked one that is late."""
    app = fresh_app()
    for number in range(count):
        app.schedule(f"entry {number}", "bench.tasks.add", 86400.0 + number, args=(2, 3))
    app.schedule("late", "bench.tasks.add", 0.01, args=(2, 3))
    async with app:
        await app.schedules.keep()
        await asyncio.sleep(0.05)
        began, used = time.perf_counter(), time.process_time()
        async with ticking(app.schedules):
            while not await app.connections().broker.depth(app.name):  # noqa: ASYNC110 - it is the measured thing
                await asyncio.sleep(0.01)
            took, used = time.perf_counter() - began, time.process_time() - used
    return {"seconds": took, "cpu_seconds": used}


async def due(count: int) -> dict[str, Any]:
    """Let so many entries be due in one moment."""
    app = fresh_app()
    at = datetime.now(UTC) + timedelta(seconds=AHEAD)
    for number in range(count):
        app.schedule(f"entry {number}", "bench.tasks.add", 3600.0, args=(2, 3), start=at)
    return await arrivals(app, count)


async def steady(count: int) -> dict[str, Any]:
    """Tick a hundred entries of each second, whose slots are spread over it."""
    app = fresh_app()
    begin = datetime.now(UTC) + timedelta(seconds=AHEAD)
    for number in range(100):
        at = begin + timedelta(seconds=number / 100)
        app.schedule(f"entry {number}", "bench.tasks.add", 1.0, args=(2, 3), start=at)
    return await arrivals(app, count)


async def arrivals(app: Celeriac, count: int) -> dict[str, Any]:
    """Tick until so many messages are in the queue; return how late each was."""
    reader = Arrivals(app.name, count)
    reader.start()
    async with app, ticking(app.schedules):
        await asyncio.to_thread(reader.join)
    assert len(reader.late) == count, f"{len(reader.late)} messages of {count} came"
    return {"late": reader.late}


async def crontabs(count: int) -> dict[str, Any]:
    """Look for the next slot from so many moments of a year; return the microseconds that one takes, by crontab."""
    told = {}
    for text, zone in CRONTABS.items():
        minute, hour, day, month, weekday = text.split()
        schedule = crontab(minute, hour, weekday, day, month, tz=zone)
        moments = [YEAR.timestamp() + number * 366 * 86400 / count for number in range(count)]
        began = time.perf_counter()
        for moment in moments:
            schedule.next(moment)
        told[f"{text} {zone}"] = (time.perf_counter() - began) / count * 1e6
    return {"microseconds": told}


COMMANDS: dict[str, Callable[[int], Awaitable[dict[str, Any]]]] = {
    "start": start,
    "due": due,
    "steady": steady,
    "crontabs": crontabs,
}


def main() -> None:
    """Do one of these and print what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("count", type=int)
    given = parser.parse_args()

    async def whole() -> dict[str, Any]:
        return await COMMANDS[given.command](given.count)

    print(json.dumps(asyncio.run(whole())))


if __name__ == "__main__":
    main()
