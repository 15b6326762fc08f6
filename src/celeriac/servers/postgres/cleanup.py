"""Deletes expired results, in batches, as Celery's ``celery.backend_cleanup`` does in one.

Rules: several times within the life of a result, one process at a time; a process that cannot delete now leaves it to
the next.
"""

from __future__ import annotations

import asyncio
import logging

from celeriac.clock import Clock
from celeriac.errors import BackendError
from celeriac.servers.postgres.connections import Connection
from celeriac.servers.postgres.link import PostgresLink

_log = logging.getLogger("celeriac.backend.postgres")

_CLEANUPS = 24.0
"""How often, within the life of a result, expired rows are deleted."""

_ROWS = 10_000
"""Rows that are deleted in one transaction."""

_ALONE = "SELECT pg_try_advisory_xact_lock(hashtext('celeriac cleanup'), hashtext(current_schema()))"
_DELETE = """
    DELETE FROM {} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {} WHERE date_done < LOCALTIMESTAMP - make_interval(secs => $1) LIMIT $2))"""
_TABLES = ("celery_taskmeta", "celery_tasksetmeta")
_DELETE_WAITING = "DELETE FROM celeriac_waiting WHERE since < now() - interval '1 day'"


class Cleanup:
    """Deletes what has expired.

    :param expires: seconds for which a result is kept; ``None`` keeps it.
    """

    def __init__(self, link: PostgresLink, expires: float | None, clock: Clock) -> None:
        self._link = link
        self._expires = expires
        self._clock = clock
        self._next = 0.0
        self._running: asyncio.Task[None] | None = None

    def start_if_due(self) -> None:
        """Begin to delete, if the last time was a while ago."""
        now = self._clock.monotonic()
        if self._expires is None or now < self._next or self._running is not None:
            return
        self._next = now + self._expires / _CLEANUPS
        self._running = asyncio.create_task(self._run(self._expires), name="celeriac-postgres-cleanup")

    async def close(self) -> None:
        """End what is under way."""
        running = self._running
        if running is not None:
            running.cancel()
            await asyncio.wait([running])

    async def _run(self, expires: float) -> None:
        try:
            await self._link.fetch(_DELETE_WAITING)
            for table in _TABLES:
                while await self._delete(table, expires) == _ROWS:
                    pass
        except BackendError as error:
            _log.debug("expired results could not be deleted, which is tried again: %s", error)
        finally:
            self._running = None

    async def _delete(self, table: str, expires: float) -> int:
        """Delete a batch; return how many rows it had, 0 where another process deletes."""

        async def delete(connection: Connection) -> int:
            if not await connection.fetchval(_ALONE):
                return 0
            status: str = await connection.execute(_DELETE.format(table, table), expires, _ROWS)
            return int(status.rpartition(" ")[2])

        return await self._link.transact(delete)
