"""Cron monitors of Sentry: one check-in for each slot of a periodic task, as Sentry's integration of Celery has them.

Rules: the id of a check-in follows from the slot, so that several processes that report a run report the same check-in.
A run that is tried again goes on. A schedule that Sentry does not know has no monitor, and the log says so once.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sentry_sdk
from sentry_sdk.crons import MonitorStatus, capture_checkin

from celeriac.client.send_listeners import Tick
from celeriac.schedule.crontab import Crontab
from celeriac.schedule.interval import Interval
from celeriac.schedule.slots import Schedule
from celeriac.wire.result import FAILURE, REVOKED, SUCCESS

logger = logging.getLogger("celeriac.sentry")

SLUG, CONFIG, CHECK_IN, BEGAN = (
    "sentry-monitor-slug",
    "sentry-monitor-config",
    "sentry-monitor-check-in-id",
    "sentry-monitor-start-timestamp-s",
)
"""Sentry's headers of a message that is for a monitored slot."""

UNITS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60}
"""Sentry's units of an interval, in seconds, the longest first."""

LONGEST = 1e9
"""Seconds that no run takes: what a header says beyond is not believed."""

_STATUS = {SUCCESS: MonitorStatus.OK, FAILURE: MonitorStatus.ERROR, REVOKED: MonitorStatus.ERROR}


class Monitors:
    """The monitors of the periodic tasks of one app.

    :param exclude: regular expressions of names that have none.
    """

    def __init__(self, exclude: Sequence[str] = ()) -> None:
        self._exclude = [re.compile(pattern) for pattern in exclude]
        self._told: set[str] = set()

    def headers(self, tick: Tick) -> Mapping[str, Any] | None:
        """Return the headers by which the worker that runs the slot, of whichever kind, ends its check-in."""
        config = self._config(tick)
        if config is None:
            return None
        headers = {SLUG: tick.entry, CONFIG: config, CHECK_IN: _id_of(tick), BEGAN: f"{time.time():.9f}"}
        return {**headers, "headers": headers}

    def begin(self, tick: Tick) -> None:
        """Tell that the run of a slot is under way."""
        if (config := self._config(tick)) is not None:
            _check_in(tick.entry, _id_of(tick), MonitorStatus.IN_PROGRESS, None, config)

    def _config(self, tick: Tick) -> dict[str, Any] | None:
        if not sentry_sdk.get_client().is_active() or any(one.search(tick.entry) for one in self._exclude):
            return None
        schedule = _as_sentry_says(tick.schedule)
        if schedule is None:
            if tick.entry not in self._told:
                self._told.add(tick.entry)
                logger.warning(
                    "%s has no monitor: Sentry knows crontabs, and intervals of whole minutes, and not: %s; "
                    "name it in exclude_beat_tasks",
                    tick.entry,
                    tick.schedule,
                )
            return None
        return {"schedule": schedule, "timezone": getattr(tick.schedule, "tz", None) or "UTC"}


def end_run(headers: Mapping[str, Any], state: str | None) -> None:
    """Tell how the run of a message ended, if it is for a monitored slot and has ended."""
    nested = headers.get("headers")
    told = headers if SLUG in headers or not isinstance(nested, dict) else nested
    slug, check_in, config, status = (
        told.get(SLUG),
        told.get(CHECK_IN),
        told.get(CONFIG),
        _STATUS.get(state or ""),
    )
    if not isinstance(slug, str) or not isinstance(check_in, str) or status is None:
        return
    duration = _seconds_since(told.get(BEGAN))
    _check_in(slug, check_in, status, duration, config if isinstance(config, dict) else None)


def _check_in(
    slug: str, check_in: str, status: str, duration: float | None, config: dict[str, Any] | None
) -> None:
    capture_checkin(slug, check_in, status, duration, config)  # type: ignore[arg-type]


def _seconds_since(began: object) -> float | None:
    """Return the seconds since a time that a header says."""
    if not isinstance(began, str | int | float):
        return None
    try:
        passed = time.time() - float(began)
    except (ValueError, OverflowError):
        return None
    return passed if 0 <= passed < LONGEST else None


def _id_of(tick: Tick) -> str:
    return tick.run.replace("-", "")


def _as_sentry_says(schedule: Schedule) -> dict[str, Any] | None:
    """Return a schedule in the words of Sentry, ``None`` where it has none."""
    if isinstance(schedule, Crontab):
        day = (schedule.day_of_month, schedule.month_of_year, schedule.day_of_week)
        return {"type": "crontab", "value": " ".join((schedule.minute, schedule.hour, *day))}
    if isinstance(schedule, Interval):
        for unit, seconds in UNITS.items():
            if schedule.every >= seconds and schedule.every % seconds == 0:
                return {"type": "interval", "value": int(schedule.every // seconds), "unit": unit}
    return None
