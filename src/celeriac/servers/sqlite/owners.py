"""Who holds the messages that were taken: one row a process, renewed for as long as the process lives.

Rules: a process of its own renews (``servers.keeper``), and only while something is held; a row whose time is up is
not believed before two looks, some time apart, found it so: after the file was locked or the disk was full every time
is up, and who lives must have time to say so. A look counts if the file could be written, as renewing it would have
been. A row that lasts for longer than its term was written before the machine's clock was put back, and its time is up
too; who lives writes it anew. Everything here runs in the transaction of its caller.
"""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path

from celeriac.clock import Clock, SystemClock
from celeriac.servers.keeper import Order
from celeriac.servers.sqlite.reading import column, scalar

_TERM = 1 / 2
_LOOK = 1 / 6
_RENEWAL = 1 / 10
"""Parts of a lease: how long a row lasts, the time between the looks of others, and between renewals."""

_LONGEST = 7 * 86400.0
"""Seconds that a row lasts at the most; one that lasts longer was made by none of us."""

_SLACK = 0.1
"""Seconds by which two looks at one clock may seem to differ."""

_LEAST_TIMEOUT = 1.0

_NEW = "INSERT INTO celeriac_owner (id, expires, term) VALUES (:self, :expires, :term)"
_RENEW = "UPDATE celeriac_owner SET expires = :expires WHERE id = :self"
_HOLDS = "SELECT 1 FROM celeriac_message WHERE owner = :self LIMIT 1"
_NEXT = "SELECT min(expires) FROM celeriac_owner WHERE id IS NOT :self AND expires BETWEEN :now AND :now + :longest"
_EXPIRED = """
    SELECT id FROM celeriac_owner
    WHERE id IS NOT :self AND
        (expires BETWEEN :now AND :now + :slack + min(coalesce(term, :longest), :longest)) IS NOT TRUE"""
_TOUCH = "UPDATE celeriac_owner SET expires = expires WHERE id = :id"
_DELETE = "DELETE FROM celeriac_owner WHERE id = :id"

_KEEP = """
UPDATE celeriac_owner SET expires = (julianday('now') - 2440587.5) * 86400.0 + :ahead + :term
WHERE id = :self AND expires NOT BETWEEN (julianday('now') - 2440587.5) * 86400.0 + :ahead + :term / 2
    AND (julianday('now') - 2440587.5) * 86400.0 + :ahead + :term + :slack
AND EXISTS (SELECT 1 FROM celeriac_message WHERE owner = :self)"""


class Owners:
    """The rows of a file's owners, as one process sees them.

    :param lease: seconds after which the messages of a process that died are others'.
    """

    def __init__(self, clock: Clock, lease: float) -> None:
        self._clock = clock
        self._lease = lease
        self._suspects: dict[int, float] = {}
        self.own: int | None = None
        self.term = lease * _TERM
        self.look = lease * _LOOK

    def hold(self, connection: sqlite3.Connection) -> int:
        """Renew our row, or make a new one: what the old one held is not ours any more once it was deleted."""
        expires = self._clock.now() + self.term
        if self.own is not None:
            renewed = connection.execute(_RENEW, {"self": self.own, "expires": expires})
            if renewed.rowcount:
                return self.own
        # A number that nobody else has, even when this transaction is rolled back.
        self.own = secrets.randbits(62)
        connection.execute(_NEW, {"self": self.own, "expires": expires, "term": self.term})
        return self.own

    def rest(self, connection: sqlite3.Connection) -> None:
        """Delete our row while it holds nothing."""
        if self.own is not None and connection.execute(_HOLDS, {"self": self.own}).fetchone() is None:
            self.let_go(connection)

    def let_go(self, connection: sqlite3.Connection) -> None:
        """Delete our row."""
        if self.own is not None:
            self.delete(connection, [self.own])
            self.own = None

    def find_dead(self, connection: sqlite3.Connection) -> list[int]:
        """Return the others that were not renewed in time and have had time to say that they live."""
        now = self._clock.monotonic()
        limits = {"self": self.own, "now": self._clock.now(), "longest": _LONGEST, "slack": _SLACK}
        expired = column(connection, _EXPIRED, limits)
        for owner in expired[:1]:
            connection.execute(_TOUCH, {"id": owner})
        self._suspects = {owner: self._suspects.get(owner, now) for owner in expired}
        return [owner for owner, since in self._suspects.items() if now - since >= self.look]

    def suspect_nobody(self) -> None:
        """Begin anew: the file could not be written in between, or not for long."""
        self._suspects = {}

    def delete(self, connection: sqlite3.Connection, owners: list[int]) -> None:
        """Delete these rows."""
        connection.executemany(_DELETE, [{"id": owner} for owner in owners])

    def next_look(self, connection: sqlite3.Connection) -> float | None:
        """Return when ``find_dead`` may find something, in seconds since the epoch."""
        now, monotonic = self._clock.now(), self._clock.monotonic()
        times = [now + since + self.look - monotonic for since in self._suspects.values()]
        limits = {"self": self.own, "now": now, "longest": _LONGEST}
        expiry = scalar(connection, _NEXT, limits)
        return min(times if expiry is None else [*times, expiry], default=None)

    def order(self, file: Path, owner: int) -> Order:
        """Return what keeps this owner's row."""
        place = {
            "kind": "sqlite",
            "path": f"{file.as_uri()}?mode=rw",
            "file": str(file),
            "timeout": max(_LEAST_TIMEOUT, self._lease * _RENEWAL),
        }
        values = {
            "self": owner,
            "term": self.term,
            "ahead": self._clock.now() - SystemClock.now(),
            "slack": _SLACK,
        }
        return Order(place, (_KEEP, values), self._lease * _RENEWAL)
