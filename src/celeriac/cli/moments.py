"""Moments as they are typed."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click

from celeriac.client.app import App


def moment_of(app: App, text: str) -> datetime:
    """Return the moment that a text names; in the app's time zone where it names none. Raises ``UsageError``."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no time: give one such as 2026-03-01T06:00") from None
    zone = ZoneInfo(app.settings.timezone) if app.settings.timezone != "UTC" else UTC
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
