"""The periodic tasks of a Celery app, as its users write them: read, ticked, and run by Celery's own worker."""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery import Celery, schedules
from celery.beat import BeatLazyFunc

from celeriac.celery_app.app import CeleryApp
from celeriac.celery_app.beat import read_schedule
from celeriac.errors import ConfigError
from celeriac.schedule.crontab import crontab
from celeriac.schedule.interval import interval
from tests.lines import whole_lines
from tests.servers import LoggedProcess

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0


def app_with(beat_schedule, **conf):
    app = Celery("periodic", set_as_current=False, broker="memory://")
    app.conf.update(beat_schedule=beat_schedule, timezone="Europe/Berlin", **conf)
    return CeleryApp(app, "nowhere")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (30, interval(30, tz="UTC")),
        (timedelta(minutes=5), interval(300, tz="UTC")),
        (schedules.schedule(10.0, relative=True), interval(10, relative=True, tz="UTC")),
        (schedules.crontab(), crontab(tz="UTC")),
        (
            schedules.crontab("*/5", 7, "mon", "1,15", {3, 4}),
            crontab("*/5", 7, "mon", "1,15", "3,4", tz="UTC"),
        ),
        (schedules.crontab(minute=[0, 30]), crontab("0,30", tz="UTC")),
    ],
)
def test_each_of_celerys_schedules_has_one_of_ours(theirs, ours):
    assert read_schedule(theirs, UTC) == ours


def test_the_entries_of_an_app_with_all_that_they_may_say():
    app = app_with(
        {
            "plain": {"task": "shop.add", "schedule": 30, "args": (1, datetime(2026, 1, 1, tzinfo=UTC))},
            "daily": {
                "task": "shop.add",
                "schedule": schedules.crontab(minute=30, hour=7),
                "kwargs": {"a": 1},
                "options": {"queue": "slow", "expires": timedelta(minutes=1), "retry": False, "priority": 3},
            },
            "relative": {"task": "shop.add", "schedule": timedelta(hours=1), "relative": True},
            "lazy": {"task": "shop.add", "schedule": 30, "args": (BeatLazyFunc(lambda: 7), 8)},
        },
        beat_cron_starting_deadline=60,
    )
    read = app.schedules
    assert not read.by_default
    entries = {name: declaration.entry for name, declaration in read.declared.items()}
    assert set(entries) == {"plain", "daily", "relative", "lazy"}
    assert entries["plain"].call() == ([1, datetime(2026, 1, 1, tzinfo=UTC)], {})
    assert (entries["daily"].schedule.tz, entries["daily"].window) == ("Europe/Berlin", 60)
    assert '"expires":60.0' in entries["daily"].options.replace(" ", "")
    assert "retry" not in entries["daily"].options
    assert entries["relative"].schedule.relative
    assert entries["lazy"].lazy
    assert read.declared["lazy"].arguments() == ([7, 8], {})


def test_what_is_added_by_add_periodic_task_is_there():
    app = app_with({})
    app.celery.add_periodic_task(10.0, app.celery.signature("shop.add", (1, 2)), name="added")
    assert "added" in app.schedules.declared


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"task": "shop.add"}, "with task and schedule"),
        ({"task": "shop.add", "schedule": "daily"}, "no schedule that celeriac knows"),
        ({"task": "shop.add", "schedule": 0}, "give seconds"),
    ],
)
def test_an_entry_that_cannot_be_read_is_named(entry, said):
    with pytest.raises(ConfigError, match=rf"beat_schedule\['bad'\].*{said}"):
        _ = app_with({"bad": entry}).schedules


def test_a_scheduler_that_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match=r"shop\.scheduler:Own"):
        _ = app_with({}, beat_scheduler="shop.scheduler:Own").schedules


async def test_celerys_worker_runs_what_celeriac_ticks(redis_url, unique, tmp_path):
    """Both read the same unmodified module."""
    environment = {
        **os.environ,
        "PERIODIC_BROKER": redis_url,
        "PERIODIC_QUEUE": unique("periodic"),
        "PERIODIC_NOTES": str(tmp_path / "notes"),
    }
    celerys = [sys.executable, "-m", "celery", "-A", "tests.celery_app.periodic", "worker", "-P", "solo"]
    ours = [sys.executable, "-m", "celeriac", "-A", "tests.celery_app.periodic", "beat"]
    processes = [
        LoggedProcess([*celerys, "--without-gossip", "--without-mingle"], env=environment, cwd=ROOT),
        LoggedProcess(ours, env=environment, cwd=ROOT),
    ]
    try:
        notes = tmp_path / "notes"
        async with asyncio.timeout(PATIENCE):
            while len(lines := [line.split() for line in whole_lines(notes)]) < 6:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
        ids = [line[1] for line in lines]
        assert len(ids) == len(set(ids))  # each slot once
        assert {line[0] for line in lines} == {"often", "lazy"}
        assert {line[2] for line in lines} == {"True"}  # the header of Celery's beat
        assert "stop it first" in processes[1].output
    finally:
        for process in processes:
            process.kill()
