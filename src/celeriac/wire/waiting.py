"""Since when a message waits, by its own headers.

Rules: a time that is no number is not believed. A task that was to wait until its ETA waits from then on.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.task_headers import SENT_HEADER

SENTRY_HEADER = "sentry-task-enqueued-time"
"""Sentry's time of sending, in seconds since the epoch."""

LATEST = 1e12
"""Seconds since the epoch; a larger number is not read as a time."""


def waits_since(envelope: Envelope | Unreadable) -> float | None:
    """Return since when a message waits to be taken, in seconds since the epoch, as far as it says so."""
    if isinstance(envelope, Unreadable):
        return None
    headers = envelope.headers
    value: Any = headers.get(SENT_HEADER)
    if value is None:
        value = headers.get(SENTRY_HEADER)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST:
        return None
    return max(float(value), eta_of(headers.get("eta")))


def eta_of(value: Any) -> float:
    """Return the time of a header or event ``eta``, in seconds since the epoch; 0 where it says none."""
    if not isinstance(value, str):
        return 0.0
    try:
        eta = datetime.fromisoformat(value)
    except ValueError:
        return 0.0
    return (eta if eta.tzinfo is not None else eta.replace(tzinfo=UTC)).timestamp()
