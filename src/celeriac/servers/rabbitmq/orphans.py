"""The work that goes on in this process after a lost connection, though RabbitMQ took its messages back.

Rules: RabbitMQ hands such a message out again at once, to any worker. If it comes back to this process, the work goes
on under the new delivery. Other workers learn from the ledger that the publication is claimed, and until when; and
later that the work has ended. A worker that gets a claimed message puts it off, and drops it when the work has ended.
After our own disconnect, assume that others were disconnected too: for ``GRACE`` seconds a redelivered message that
nobody has claimed yet is put off, so that they have time to reconnect and claim it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost
from celeriac.servers.rabbitmq.claims import Claims
from celeriac.servers.rabbitmq.delivery import AmqpReceipt
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused

_log = logging.getLogger("celeriac.broker.amqp")

TERM = 30.0
"""Seconds that a claim lasts; it is renewed after a third of that."""

GRACE = 10.0
"""Seconds that others have to claim their work, from the first redelivered message after an outage."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_AT_ONCE = 1000


class Orphans:
    """The orphans of one process; none before a connection is lost."""

    def __init__(self, link: Link, claims: Claims, clock: Clock) -> None:
        self._link = link
        self._claims = claims
        self._clock = clock
        self._kept: dict[str, AmqpReceipt] = {}
        self._untold: list[str] = []
        self._idle: set[str] = set()
        self._turn = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._outage = float("-inf")
        self._is_outage_new = False
        self.is_closed = False

    def adopt(self, orphans: Iterable[AmqpReceipt], idle: Iterable[str], acked: Iterable[str]) -> None:
        """Keep what a lost connection held.

        :param idle: publications that nobody works on.
        :param acked: publications of which RabbitMQ may not have read that they were acknowledged.
        """
        self._is_outage_new = True
        self._idle = set(idle)
        for orphan in orphans:
            assert orphan.publication is not None
            earlier = self._kept.pop(orphan.publication, None)
            if earlier is not None:
                earlier.go("lose channel")
            self._kept[orphan.publication] = orphan
        self._untold += acked
        self._claims.note_ended(self._untold)
        if self._telling is not None:
            self._telling.cancel()
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def judge(self, receipt: AmqpReceipt) -> None:
        """Find out whether somebody works on a delivery in the state "checking".

        If nobody does, it is "working" on return. Else it was put off, dropped or taken over by an orphan.
        """
        try:
            await self._judge(receipt)
        except (DeliveryLost, BrokerError) as error:
            if receipt.state == "checking":
                _log.warning("who works on a redelivered message could not be told, so it runs: %s", error)
                receipt.go("clear")

    async def tell_ended(self, receipt: AmqpReceipt) -> None:
        """Let everybody know that the work of an orphan is done.

        Raises ``BrokerUnavailable``, and ``DeliveryLost`` where nobody can be told.
        """
        assert receipt.publication is not None
        self._claims.note_ended([receipt.publication])
        with self._losing_what_cannot_be_told(receipt):
            await self._claims.end([receipt.publication])
        if receipt.state == "orphaned":
            self._drop(receipt)
            receipt.go("ack")

    async def tell_free(self, receipt: AmqpReceipt) -> bool:
        """Let everybody know that another worker may do the work of an orphan. Raises as ``tell_ended``.

        Return ``False`` if the orphan goes on as another delivery meanwhile.
        """
        assert receipt.publication is not None
        with self._losing_what_cannot_be_told(receipt):
            async with self._turn:  # what is said last counts
                await self._claims.claim([receipt.publication], 0.0)
        if receipt.state != "orphaned":
            return False
        self._drop(receipt)
        receipt.go("give back")
        return True

    def note_idle(self, publication: str) -> None:
        """Note that nobody works here on a publication that RabbitMQ may hand out again."""
        self._idle.add(publication)

    async def close(self) -> None:
        """Adopt no more; let go of what is left."""
        self.is_closed = True
        for receipt in self._kept.values():
            receipt.go("lose channel")
        self._kept.clear()
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    @contextlib.contextmanager
    def _losing_what_cannot_be_told(self, receipt: AmqpReceipt) -> Iterator[None]:
        try:
            with self._link.translated(BrokerUnavailable, DeliveryLost):
                yield
        except DeliveryLost:
            if receipt.state == "orphaned":
                self._drop(receipt)
                receipt.go("lose channel")
            raise

    def _drop(self, receipt: AmqpReceipt) -> None:
        self._kept.pop(receipt.publication or "", None)

    async def _judge(self, receipt: AmqpReceipt) -> None:
        publication = receipt.publication
        if publication is None:
            receipt.go("clear")
        elif self._claims.has_ended(publication):
            await receipt.ack()
        elif (orphan := self._kept.pop(publication, None)) is not None:
            orphan.resume_as(receipt)
        elif (until := self._busy_until(publication, redelivered=receipt.message.redelivered)) is not None:
            await receipt.put_off(until)
        else:
            receipt.go("clear")

    def _busy_until(self, publication: str, *, redelivered: bool) -> float | None:
        """Return until when somebody works, or may work, on a publication; ``None`` if nobody does."""
        now = self._clock.now()
        if self._is_outage_new:
            self._is_outage_new, self._outage = False, now
        until = self._claims.claimed_until(publication)
        if until is not None:
            return until if until > now else None
        in_grace = now < self._outage + GRACE
        return now + GRACE if in_grace and redelivered and publication not in self._idle else None

    async def _tell(self) -> None:
        """Say what is claimed and what has ended for as long as there is something to say."""
        pause = _FIRST_PAUSE
        while self._kept or self._untold:
            try:
                await self._tell_once()
            except Refused as error:
                _log.warning("others cannot be told what is worked on here: %s", error)
                return
            except AmqpError:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _FIRST_PAUSE
                await asyncio.sleep(TERM / 3)

    async def _tell_once(self) -> None:
        async with self._turn:
            kept = list(self._kept)
            for start in range(0, len(kept), _AT_ONCE):
                await self._claims.claim(kept[start : start + _AT_ONCE], self._clock.now() + TERM)
        untold = list(self._untold)
        for start in range(0, len(untold), _AT_ONCE):
            await self._claims.end(untold[start : start + _AT_ONCE])
        del self._untold[: len(untold)]
