"""Takes part in the elections of Celery's workers (Celery: gossip, ``app.control.election``).

Celery counts every node that sends heartbeats, and an election ends when as many acknowledgements came. So this worker
acknowledges the candidates, or an election would never end beside it. It is no candidate itself.

Rules: it waits until all candidates have said so. A Celery worker that has enough acknowledgements before it knows of a
second candidate ends with an ``IndexError``; so does one that is the only candidate, which gets none from here.
"""

from __future__ import annotations

import asyncio
import logging
import os

from celeriac.clock import Clock
from celeriac.contracts.fanout import Binding, Exchange, Fanout
from celeriac.errors import BrokerError
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.event import Event, EventWriter, WorkerElectAck, read_events
from celeriac.worker.logical_clock import LogicalClock

logger = logging.getLogger("celeriac.worker")

ELECT, ACKNOWLEDGE = "worker.elect", "worker.elect.ack"
"""The routing keys of a candidate's event, and of what answers it."""

ALL_HAVE_SPOKEN = 0.5
"""Seconds after the first candidate of an election within which the others speak, too."""

_LONGEST_ID, _MOST, _MOST_CANDIDATES = 200, 100, 1000
"""Characters of an election's id, elections that are under way at once, and candidates of one: each is answered."""


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
        self._candidates: dict[str, set[tuple[str, str]]] = {}
        self.exchange = Exchange(exchange, by_key=True)

    @property
    def binding(self) -> Binding:
        """What to listen to."""
        return Binding(exchange=self.exchange, key=ELECT, message_ttl=5.0, expires=60.0)

    async def acknowledge(self, message: Envelope) -> None:
        """Answer the event of a candidate, once all have spoken; what is no such event is ignored.

        Celery sends each in a message of its own, so of several in one the first counts.
        """
        for event in read_events(message, self._codecs)[:1]:
            if not _is_candidate(event):
                continue
            election = str(event.fields["id"])
            is_first = election not in self._candidates
            if is_first and len(self._candidates) >= _MOST:
                return
            candidates = self._candidates.setdefault(election, set())
            if len(candidates) < _MOST_CANDIDATES:
                candidates.add((event.node, str(event.fields.get("pid"))))
            if is_first:
                await asyncio.sleep(ALL_HAVE_SPOKEN)
                await self._acknowledge(election, len(self._candidates.pop(election)))

    async def _acknowledge(self, election: str, candidates: int) -> None:
        if candidates < 2:
            return
        for _ in range(candidates):
            answer = WorkerElectAck(self._clock.forward(), self._time.now(), election)
            try:
                await self._fanout.publish(self.exchange, self._writer.single(answer), ACKNOWLEDGE)
            except BrokerError as error:
                logger.debug("an election could not be answered: %s", error)


def _is_candidate(event: Event) -> bool:
    id = event.fields.get("id")
    return event.type == "worker-elect" and isinstance(id, str) and 0 < len(id) <= _LONGEST_ID
