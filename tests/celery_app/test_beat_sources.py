"""What django-celery-beat's tables and RedBeat's keys hold is ticked, and never beside their own beat."""

import asyncio
import os
import sqlite3
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from celery import Celery
from redbeat import RedBeatSchedulerEntry

from celeriac import Celeriac
from celeriac.beat.source import SourceTaken
from celeriac.celery_app.app import CeleryApp
from tests.servers import LoggedProcess

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


def started(environment, *command):
    return LoggedProcess([sys.executable, "-m", *command], env={**os.environ, **environment}, cwd=ROOT)


async def sent(url, queue):
    """The tasks that wait in the queue, with their numbers."""
    async with Celeriac("looking", url) as app:
        return Counter(one.headers["task"] for one in await app.connections().broker.peek(queue, 10_000))


async def until(holds, what):
    async with asyncio.timeout(PATIENCE):
        while not (found := await holds()):  # noqa: ASYNC110 - neither tells anybody
            await asyncio.sleep(0.1)
    assert found, what
    return found


async def test_the_tables_of_django_celery_beat(redis_url, unique, tmp_path):
    queue, database = unique("django"), tmp_path / "db.sqlite3"
    environment = {"DATABASE": str(database), "PERIODIC_BROKER": redis_url, "PERIODIC_QUEUE": queue}
    beat = started(environment, "celeriac", "-A", "tests.celery_app.django_periodic", "beat", "-S", "django")
    try:

        async def three():
            tasks = await sent(redis_url, queue)
            return tasks if tasks["shop.often"] >= 3 and tasks["shop.soon"] and tasks["shop.once"] else None

        tasks = await until(three, beat.output)
        # Neither what is off, nor what has expired, nor what begins tomorrow.
        assert set(tasks) == {"shop.often", "shop.soon", "shop.once"}
        assert (tasks["shop.soon"], tasks["shop.once"]) == (1, 1)
        with sqlite3.connect(database) as connection:
            rows = connection.execute(
                "SELECT name, enabled, total_run_count, last_run_at FROM django_celery_beat_periodictask"
            ).fetchall()
        told = {name: (enabled, count, at) for name, enabled, count, at in rows}
        assert told["often"][1] >= 2
        assert told["often"][2] is not None
        assert (told["soon"][0], told["once"][0], told["later"][2]) == (0, 0, None)
        # Its own beat, which has no lock, notes when it has sent a task: ours then ends.
        with sqlite3.connect(database) as connection:
            connection.execute(
                "UPDATE django_celery_beat_periodictask SET last_run_at = ? WHERE name = 'often'",
                [str(datetime.now(UTC).replace(tzinfo=None))],
            )
        assert await asyncio.to_thread(beat.wait, timeout=PATIENCE) == 1
        assert "stop celery beat" in beat.output
    finally:
        if beat.running:
            beat.kill()


async def test_the_keys_of_redbeat(redis_server, unique):
    url, name = redis_server.url(), unique("redbeat")
    app = Celery(name, broker=url, set_as_current=False)
    app.conf.update(
        {
            "task_default_queue": name,
            "beat_scheduler": "redbeat.RedBeatScheduler",
            "redbeat_redis_url": url,
            "redbeat_key_prefix": f"{name}:",
            "beat_max_loop_interval": 1,
        }
    )
    entry = RedBeatSchedulerEntry("often", "shop.often", 0.5, args=[1], app=app)
    entry.save()
    RedBeatSchedulerEntry("off", "shop.off", 1, enabled=False, app=app).save()
    async with CeleryApp(app, "nowhere") as ours:
        ticking = asyncio.create_task(ours.schedules.ticker().run())

        async def three():
            tasks = await sent(url, name)
            return tasks if tasks["shop.often"] >= 3 else None

        tasks = await until(three, "three of them are sent")
        assert set(tasks) == {"shop.often"}

        async def told():
            return RedBeatSchedulerEntry.from_key(entry.key, app=app).last_run_at

        await until(told, "it is told when it ran")
        with redis_server.client() as client:
            client.set(f"{name}::lock", "theirs", ex=60)
        with pytest.raises(SourceTaken, match="stop celery beat"):
            await asyncio.wait_for(ticking, PATIENCE)
