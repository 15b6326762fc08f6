"""Revokes tasks that were sent.

Rules: the revocation is stored with the broker first, so that messages that are taken from then on do not run. Then the
results are set to REVOKED, so that a caller need not wait for a worker. The result of a task that a worker has reported
as running is left to that worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from celeriac.client.connections import Connections
from celeriac.clock import Clock, SystemClock
from celeriac.contracts.backend import Backend
from celeriac.errors import ResultMissing, TaskRevoked
from celeriac.quantities import SECONDS, require
from celeriac.wire.failure import describe
from celeriac.wire.result import PENDING, RECEIVED, RETRY, REVOKED, ResultRecord

KEEP = 86400.0
"""Seconds for which a revocation is kept, as long as results are by default."""

_NOT_RUNNING = frozenset({PENDING, RECEIVED, RETRY})


async def revoke(
    connections: Connections,
    ids: Sequence[str],
    *,
    roots: Sequence[str] = (),
    terminate: bool = False,
    keep: float = KEEP,
    clock: Clock = SystemClock(),  # noqa: B008 - it has no state
    tell: bool = True,
) -> None:
    """Revoke these tasks, so that they do not run any more.

    :param roots: ids of the first tasks of workflows: every task of those workflows is revoked.
    :param terminate: also kill the processes in which some of them run.
    :param tell: also tell Celery's workers, which do not read what is stored, by its remote control.
    :param keep: seconds for which workers remember this, counted from when the last parked task is due.

    Tasks that no worker has reported as running end as REVOKED at once, as with ``Control.revoke`` of Celery 5.7. Tasks
    of a workflow of which only the root is given end as REVOKED when a worker takes them. Raises ``BrokerError`` if the
    broker did not store the revocation, ``BackendError`` if only the results could not be written.
    """
    require("keep", keep, SECONDS)
    await connections.revocations.add(ids, roots=roots, terminate=terminate, keep=keep)
    if tell and ids and connections.requests is not None:
        await connections.requests.tell_revoked(ids, terminate=terminate)
    await end_waiting(connections.backend, ids, clock.now())


async def end_waiting(backend: Backend, ids: Sequence[str], now: float) -> None:
    """Have the results of these tasks say REVOKED, but of those that a worker has reported as running or ended.

    Without a result store nothing is done: no caller waits for a result. Raises ``BackendError``.
    """
    ids = list(dict.fromkeys(ids))
    with suppress(ResultMissing):
        records = await backend.load(ids) if ids else []
        known = [record or ResultRecord(task_id=id) for id, record in zip(ids, records, strict=True)]
        at = datetime.fromtimestamp(now, UTC)
        ended = [_revoked(record, at) for record in known if record.status in _NOT_RUNNING]
        await asyncio.gather(*[backend.store(backend.encode(record)) for record in ended])


def _revoked(record: ResultRecord, now: datetime) -> ResultRecord:
    failure = describe(TaskRevoked("revoked"))
    return msgspec.structs.replace(record, status=REVOKED, result=failure, traceback=None, date_done=now)
