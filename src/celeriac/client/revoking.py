"""Takes back tasks that were sent.

Rules: the broker knows first, so that what is taken from then on does not run; then the result store, so that who
waits need not wait for a worker. What a worker reported of a running task is left to that worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import msgspec

from celeriac.backend import Backend
from celeriac.client.connections import Connections
from celeriac.clock import Clock, SystemClock
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
) -> None:
    """See to it that these tasks do not run any more.

    :param roots: ids of first tasks of workflows: all that came of them is meant.
    :param terminate: also kill the processes in which some of them run.
    :param keep: seconds for which workers are told, counted from when the last parked task is due.

    Tasks that nobody runs, as far as is known, end as REVOKED at once (Celery 5.7: ``Control.revoke`` does so too);
    members of a workflow known by its root alone end so when a worker takes them. Raises ``BrokerError`` when the
    broker did not store it, ``BackendError`` when only the results could not be written.
    """
    require("keep", keep, SECONDS)
    await connections.revocations.add(ids, roots=roots, terminate=terminate, keep=keep)
    with suppress(ResultMissing):  # no results are kept, so nobody waits for one
        await _tell(connections.backend, list(dict.fromkeys(ids)), datetime.fromtimestamp(clock.now(), UTC))


async def _tell(backend: Backend, ids: Sequence[str], now: datetime) -> None:
    records = await backend.load(ids) if ids else []
    known = [record or ResultRecord(task_id=id) for id, record in zip(ids, records, strict=True)]
    ended = [_revoked(record, now) for record in known if record.status in _NOT_RUNNING]
    await asyncio.gather(*[backend.store(backend.encode(record)) for record in ended])


def _revoked(record: ResultRecord, now: datetime) -> ResultRecord:
    failure = describe(TaskRevoked("revoked"))
    return msgspec.structs.replace(record, status=REVOKED, result=failure, traceback=None, date_done=now)
