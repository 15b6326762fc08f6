"""Brings back what is parked and was revoked meanwhile, so that a worker declines it now and not when it is due.

The message is queued again, not deleted: with its task may end a chord or an errback, which the worker sees to that
declines it.
"""

from __future__ import annotations

from celeriac.client.revocations import Revoked
from celeriac.contracts.broker import Broker, Parked
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope, Route
from celeriac.wire.task import TaskMessage, decode

MOST = 1000
"""Parked messages above which none is brought back: each is declined when it is due. Reading so many takes about 10 ms,
in every worker."""


async def recall(broker: Broker, revoked: Revoked, codecs: Codecs) -> int:
    """Queue what is parked and revoked; return how many messages. Raises ``BrokerError``."""
    schedule = broker.schedule
    if not 0 < await schedule.count() <= MOST:
        return 0
    found = [parked for parked in await schedule.list(MOST) if _is_revoked(parked, revoked, codecs)]
    for parked in found:
        assert isinstance(parked.envelope, Envelope)
        # Every worker of the broker does this at the same time; one of them queues it.
        await broker.publish_once(
            f"recalled.{parked.id}.{parked.due}", [(parked.envelope, Route(parked.queue))]
        )
        await schedule.delete([parked.id])
    return len(found)


def _is_revoked(parked: Parked, revoked: Revoked, codecs: Codecs) -> bool:
    if not isinstance(parked.envelope, Envelope):
        return False
    message = decode(parked.envelope, codecs)
    return isinstance(message, TaskMessage) and revoked.names(message)
