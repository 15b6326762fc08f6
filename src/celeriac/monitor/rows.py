"""What the monitor knows of a task, an attempt, a group of errors, a minute, and an action."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

ENDED = frozenset({"SUCCESS", "FAILURE", "REVOKED", "REJECTED"})
"""States after which nothing more is to come of a task."""


class TaskRow(msgspec.Struct):
    """One task, as its events describe it.

    All times are seconds since the epoch, ``runtime`` is seconds. ``args``, ``kwargs``, ``result`` and ``error`` are
    text, as its worker described them; text is cut there, so it need not be complete.

    :param changed: when the state was last reported, by the clock of the reporting process.
    :param progress: JSON of ``{"progress", "total", "message"}``.
    """

    id: str
    name: str = ""
    state: str = "PENDING"
    queue: str = ""
    worker: str = ""
    args: str = ""
    kwargs: str = ""
    result: str = ""
    error: str = ""
    retries: int = 0
    sent: float | None = None
    received: float | None = None
    started: float | None = None
    ended: float | None = None
    runtime: float | None = None
    eta: str = ""
    expires: str = ""
    root: str = ""
    parent: str = ""
    progress: str = ""
    changed: float = 0.0

    @property
    def wait(self) -> float | None:
        """Seconds from when it was sent, or seen first, to its start."""
        since = self.sent if self.sent is not None else self.received
        return None if since is None or self.started is None else max(0.0, self.started - since)


class AttemptRow(NamedTuple):
    """One attempt of a task that raised.

    :param group: the fingerprint of its error.
    """

    task: str
    retries: int
    at: float
    worker: str
    state: str
    error: str
    traceback: str
    group: str


class ErrorGroup(NamedTuple):
    """Errors of one task, of one class, from one place in the user's code."""

    group: str
    name: str
    error: str
    place: str
    first: float
    last: float
    times: int
    example: str


class MinuteRow(NamedTuple):
    """What ended in one minute.

    :param minute: minutes since the epoch.
    :param tasks: how many.
    :param runtime: seconds of all together.
    :param longest: seconds of the longest.
    """

    minute: int
    name: str
    queue: str
    state: str
    tasks: int
    runtime: float
    longest: float
    wait: float


class ActionRow(NamedTuple):
    """Something that a person did by the dashboard."""

    at: float
    who: str
    what: str
    outcome: str
