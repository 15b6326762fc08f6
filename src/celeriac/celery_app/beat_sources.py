"""Periodic tasks that django-celery-beat and RedBeat keep, for apps whose ``beat_scheduler`` is one of theirs.

https://django-celery-beat.readthedocs.io, https://redbeat.readthedocs.io. Rules: their own code reads, in a thread, and
the entries stay theirs: only when a task last ran, how often, and that a task that runs once has run is written.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from celery import Celery

from celeriac.beat.entry import Entry
from celeriac.beat.source import Reading, Source, SourceTaken
from celeriac.celery_app.beat import entry_of, read_schedule
from celeriac.errors import CeleriacError, ConfigError
from celeriac.schedule.interval import Once
from celeriac.servers.offload import in_thread

logger = logging.getLogger("celeriac.beat")

_OWN = "celery.beat"
_PAUSE = 5.0


def source_of(celery: Celery) -> Source | None:
    """Return what the app's ``beat_scheduler`` keeps besides ``beat_schedule``.

    Raises ``ConfigError`` for a scheduler that celeriac does not know.
    """
    scheduler = celery.conf.beat_scheduler
    module = (
        scheduler.partition(":")[0] if isinstance(scheduler, str) else getattr(scheduler, "__module__", "")
    )
    if module == "django" or module.startswith("django_celery_beat."):
        return DjangoTables(celery)
    if module == "redbeat" or module.startswith("redbeat."):
        return RedBeatKeys(celery)
    if module == _OWN or module.startswith(f"{_OWN}."):
        return None
    raise ConfigError(
        f"the setting beat_scheduler is {scheduler!r}, of which celeriac knows nothing: keep its own beat running"
    )


def _pause_of(celery: Celery) -> float:
    """Return the seconds between two looks: as many as their own beat lets pass, which is a setting."""
    return min(_PAUSE, float(celery.conf.beat_max_loop_interval or _PAUSE))


class DjangoTables:
    """The tables of django-celery-beat. It has no lock: that its beat runs shows when it moves ``last_run_at``."""

    name = "django-celery-beat"

    def __init__(self, celery: Celery) -> None:
        self.every = _pause_of(celery)
        self._celery = celery
        self._change: Any = None
        self._reading: Reading | None = None

    async def read(self) -> Reading:
        """See ``celeriac.beat.source.Source``."""
        return await in_thread(self._read)

    async def ticked(self, slots: Mapping[str, float]) -> Mapping[str, float]:
        """See ``celeriac.beat.source.Source``."""
        return await in_thread(lambda: self._write(dict(slots)))

    def _read(self) -> Reading:
        from django.db import close_old_connections
        from django_celery_beat.models import PeriodicTask, PeriodicTasks

        close_old_connections()
        try:
            change = PeriodicTasks.last_change()
            if self._reading is None or change != self._change:
                related = ("interval", "crontab", "solar", "clocked")
                rows = list(PeriodicTask.objects.filter(enabled=True).select_related(*related))
                entries = {row.name: entry for row in rows if (entry := self._entry_or_say(row)) is not None}
                names = frozenset(PeriodicTask.objects.values_list("name", flat=True))
                self._reading, self._change = Reading(entries, {}, names), change
            ran = PeriodicTask.objects.filter(enabled=True, last_run_at__isnull=False)
            moments = {name: at.timestamp() for name, at in ran.values_list("name", "last_run_at")}
        finally:
            close_old_connections()
        return msgspec.structs.replace(self._reading, ran=moments)

    def _entry_or_say(self, row: Any) -> Entry | None:
        try:
            return self._entry(row)
        except (CeleriacError, ValueError, TypeError, AttributeError) as error:
            logger.error("periodic task %s of the database is not ticked: %s", row.name, error)
            return None

    def _entry(self, row: Any) -> Entry | None:
        fields: dict[str, Any] = {
            "task": row.task,
            "args": msgspec.json.decode(row.args or "[]"),
            "kwargs": msgspec.json.decode(row.kwargs or "{}"),
            "options": _options(row),
        }
        clocked = row.clocked.clocked_time.timestamp() if row.clocked is not None else None
        schedule = (
            Once(clocked) if clocked is not None else read_schedule(row.schedule, self._celery.timezone)
        )
        entry = entry_of(row.name, fields, schedule)
        since = (row.last_run_at or row.date_changed or datetime.now(UTC)).timestamp()
        start = None if row.start_time is None else row.start_time.timestamp()
        end = None if row.expires is None else row.expires.timestamp()
        if clocked is not None:
            since = min(since, clocked - 1e-3) if not row.total_run_count else clocked
        entry = msgspec.structs.replace(entry, since=since, start=start, end=end)
        if row.one_off and clocked is None:
            if row.total_run_count:
                return None
            entry = msgspec.structs.replace(entry, end=entry.next(since))
        return entry

    def _write(self, slots: dict[str, float]) -> dict[str, float]:
        from django.db import close_old_connections
        from django.db.models import F
        from django_celery_beat.models import PeriodicTask, PeriodicTasks

        try:
            ran = PeriodicTask.objects.filter(name__in=list(slots), last_run_at__isnull=False)
            before = {name: at.timestamp() for name, at in ran.values_list("name", "last_run_at")}
            for name, slot in slots.items():
                row = PeriodicTask.objects.filter(name=name)
                moment = datetime.fromtimestamp(slot, UTC)
                row.update(last_run_at=moment, total_run_count=F("total_run_count") + 1)
                if row.filter(one_off=True).update(enabled=False, total_run_count=0):
                    PeriodicTasks.update_changed()
        finally:
            close_old_connections()
        return before


def _options(row: Any) -> dict[str, Any]:
    options = {
        name: value
        for name in ("queue", "exchange", "routing_key", "priority")
        if (value := getattr(row, name)) is not None
    }
    if row.expires_ is not None:
        options["expires"] = row.expires_
    return {
        **options,
        "headers": {**msgspec.json.decode(row.headers or "{}"), "periodic_task_name": row.name},
    }


class RedBeatKeys:
    """The keys of RedBeat. Its beat holds a lock while it runs."""

    name = "redbeat"

    def __init__(self, celery: Celery) -> None:
        self.every = _pause_of(celery)
        self._celery = celery

    async def read(self) -> Reading:
        """See ``celeriac.beat.source.Source``."""
        return await in_thread(self._read)

    async def ticked(self, slots: Mapping[str, float]) -> Mapping[str, float]:
        """See ``celeriac.beat.source.Source``."""
        return await in_thread(lambda: self._write(dict(slots)))

    def _read(self) -> Reading:
        from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf, get_redis

        conf, client = ensure_conf(self._celery), get_redis(self._celery)
        if conf.lock_key and client.get(conf.lock_key):
            raise SourceTaken(
                f"RedBeat's lock {conf.lock_key} is held: stop celery beat, which would send each task a second time, "
                "and wait until the lock ends"
            )
        entries, ran = {}, {}
        for key in client.zrange(conf.schedule_key, 0, -1):
            try:
                kept = RedBeatSchedulerEntry.from_key(key, app=self._celery)
            except KeyError:
                continue
            if not kept.enabled:
                continue
            fields = {"task": kept.task, "args": kept.args, "kwargs": kept.kwargs, "options": kept.options}
            entry = entry_of(kept.name, fields, read_schedule(kept.schedule, self._celery.timezone))
            if kept.last_run_at is not None:
                ran[kept.name] = kept.last_run_at.timestamp()
                entry = msgspec.structs.replace(entry, since=ran[kept.name])
            entries[kept.name] = entry
        return Reading(entries, ran)

    def _write(self, slots: dict[str, float]) -> dict[str, float]:
        from redbeat.schedulers import RedBeatSchedulerEntry, ensure_conf

        prefix, before = ensure_conf(self._celery).key_prefix, {}
        for name, slot in slots.items():
            kept = RedBeatSchedulerEntry.from_key(prefix + name, app=self._celery)
            if kept.last_run_at is not None:
                before[name] = kept.last_run_at.timestamp()
            kept._next_instance(last_run_at=datetime.fromtimestamp(slot, UTC))  # noqa: SLF001 - what its beat calls
        return before
