"""The periodic tasks of a Celery app, read from its ``beat_schedule`` as ``celery beat`` reads it.

https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html. Rules: what cannot be read is refused by the entry's
name. The app's own code writes the messages. Options that Celery's clients take and that say nothing about the message
are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta, tzinfo
from functools import partial
from typing import Any

import msgspec
from celery import Celery
from celery import schedules as celerys
from celery.beat import BeatLazyFunc, ScheduleEntry

from celeriac.beat.declaring import Declaration
from celeriac.beat.entry import Entry
from celeriac.beat.schedules import Schedules
from celeriac.client.app import App
from celeriac.errors import ConfigError, EncodeError
from celeriac.schedule.crontab import Crontab, crontab
from celeriac.schedule.days import zone_name
from celeriac.schedule.interval import interval
from celeriac.schedule.slots import Schedule
from celeriac.schedule.solar import solar
from celeriac.wire.extended_json import encode_json

_KEPT = frozenset(
    {
        "queue", "exchange", "routing_key", "priority", "countdown", "expires", "headers", "serializer", "compression",
        "time_limit", "soft_time_limit", "shadow", "link", "link_error",
    }
)  # fmt: skip
_CLEANUP = "celery.backend_cleanup"


def read_schedules(app: App, celery: Celery) -> Schedules:
    """Return the periodic tasks of a Celery app. Raises ``ConfigError`` for an entry that cannot be read."""
    conf = celery.conf
    schedules = Schedules(app, by_default=False)
    entries: dict[str, Any] = {**_default_entries(celery), **(conf.beat_schedule or {})}
    for name, given in entries.items():
        fields = dict(given) if isinstance(given, Mapping | ScheduleEntry) else given
        if not isinstance(fields, dict) or "task" not in fields or "schedule" not in fields:
            raise ConfigError(f"beat_schedule[{name!r}]: give a mapping with task and schedule")
        schedules.declared[str(name)] = _declaration(str(name), fields, celery)
    return schedules


def read_schedule(given: Any, zone: tzinfo, *, relative: bool = False) -> Schedule:
    """Return one of Celery's schedules as one of ours. Raises ``ConfigError`` for one of a class that is not known."""
    if isinstance(given, celerys.crontab):
        fields = (given.minute, given.hour, given.day_of_week, given.day_of_month, given.month_of_year)
        texts = tuple(getattr(given, f"_orig_{unit}") for unit in _UNITS)
        asked = (text if isinstance(text, str) else found for text, found in zip(texts, fields, strict=True))
        return crontab(*asked, tz=zone_name(vars(given).get("tz", zone)))
    if isinstance(given, celerys.solar):
        return solar(given.event, given.lat, given.lon)
    if isinstance(given, celerys.schedule):
        return interval(given.run_every, relative=bool(given.relative), tz=zone_name(zone))
    if isinstance(given, int | float | timedelta):
        return interval(given, relative=relative, tz=zone_name(zone))
    raise ConfigError(
        f"{given!r:.100} is no schedule that celeriac knows: crontab, solar, timedelta or seconds"
    )


_UNITS = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")


def entry_of(name: str, given: Mapping[str, Any], schedule: Schedule) -> Entry:
    """Return the entry of a task with ``args``, ``kwargs`` and ``options``, as Celery's entries have them.

    Raises ``EncodeError`` for options that are no JSON.
    """
    options = dict(given.get("options") or {})
    text, lazy = _arguments(given.get("args") or (), given.get("kwargs") or {})
    return Entry(
        name=name,
        task=given["task"],
        schedule=schedule,
        arguments=text,
        options=encode_json({key: _plain(options[key]) for key in sorted(_KEPT & options.keys())}).decode(),
        lazy=lazy,
        ignore_result=options.get("ignore_result"),
    )


def _declaration(name: str, given: dict[str, Any], celery: Celery) -> Declaration:
    try:
        schedule = read_schedule(given["schedule"], celery.timezone, relative=bool(given.get("relative")))
        entry = entry_of(name, given, schedule)
        if isinstance(schedule, Crontab):
            entry = msgspec.structs.replace(entry, window=celery.conf.beat_cron_starting_deadline)
    except (ConfigError, EncodeError, TypeError, ValueError) as error:
        raise ConfigError(f"beat_schedule[{name!r}]: {error}") from error
    args, kwargs = given.get("args") or (), given.get("kwargs") or {}
    return Declaration(entry, partial(_evaluated, args, kwargs) if entry.lazy else None)


def _arguments(args: Any, kwargs: Any) -> tuple[str, bool]:
    """Return arguments as JSON; or that each tick must ask for them, since some are made anew or are no JSON."""
    if not any(isinstance(value, BeatLazyFunc) for value in (*args, *kwargs.values())):
        try:
            return encode_json([list(args), dict(kwargs)]).decode(), False
        except EncodeError:
            pass
    return "[[],{}]", True


def _evaluated(args: Any, kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    return [_value(value) for value in args], {name: _value(value) for name, value in kwargs.items()}


def _value(given: Any) -> Any:
    return given() if isinstance(given, BeatLazyFunc) else given


def _plain(value: Any) -> Any:
    """Return the value of an option as JSON has it."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return getattr(value, "name", value)  # of a queue or exchange object of kombu's


def _default_entries(celery: Celery) -> dict[str, Any]:
    """Return the entry that Celery adds where its result store does not expire by itself."""
    conf = celery.conf
    try:
        if not conf.result_expires or not conf.result_backend or celery.backend.supports_autoexpire:
            return {}
    except Exception as error:
        raise ConfigError(f"result_backend: {type(error).__name__}: {error}") from error
    daily = celerys.crontab("0", "4", "*")
    return {_CLEANUP: {"task": _CLEANUP, "schedule": daily, "options": {"expires": 12 * 3600}}}
