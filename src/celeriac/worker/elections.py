"""Takes part in the elections of Celery's workers (Celery: gossip, ``app.control.election``).

Celery counts every node that sends heartbeats, and an election ends when as many have acknowledged each candidate. So
this worker acknowledges, or an election would never end beside it. It is no candidate itself.
"""

from __future__ import annotations

import logging
import os

from celeriac.broker import Binding, Exchange, Fanout
from celeriac.clock import Clock
from celeriac.errors import BrokerError
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.event import Event, EventWriter, WorkerElectAck, read_events
from celeriac.worker.logical_clock import LogicalClock

logger = logging.getLogger("celeriac.worker")

ELECT, ACKNOWLEDGE = "worker.elect", "worker.elect.ack"
"""The routing keys of a candidate's event, and of what answers it."""

_LONGEST_ID = 200


class Elections:
    """Acknowledges the candidates of elections.

    :param node: the worker's name.
    :param exchange: of events.
    :param utcoffset: as for ``EventWriter``.
    """

    def __init__(
        self,
        fanout: Fanout,
        node: str,
        exchange: str,
        codecs: Codecs,
        clock: LogicalClock,
        time: Clock,
        utcoffset: float,
    ) -> None:
        self._fanout = fanout
        self._codecs = codecs
        self._clock = clock
        self._time = time
        self._writer = EventWriter(node, os.getpid(), utcoffset)
        self.exchange = Exchange(exchange, by_key=True)

    @property
    def binding(self) -> Binding:
        """What to listen to."""
        return Binding(exchange=self.exchange, key=ELECT, message_ttl=5.0, expires=60.0)

    async def acknowledge(self, message: Envelope) -> None:
        """Answer the event of a candidate; what is no such event is ignored."""
        for election in [
            event.fields["id"] for event in read_events(message, self._codecs) if _is_candidate(event)
        ]:
            answer = WorkerElectAck(self._clock.forward(), self._time.now(), election)
            try:
                await self._fanout.publish(self.exchange, self._writer.single(answer), ACKNOWLEDGE)
            except BrokerError as error:
                logger.debug("an election could not be answered: %s", error)


def _is_candidate(event: Event) -> bool:
    id = event.fields.get("id")
    return event.type == "worker-elect" and isinstance(id, str) and 0 < len(id) <= _LONGEST_ID
