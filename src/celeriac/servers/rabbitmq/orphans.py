"""What this process still works on though RabbitMQ took it back, as it does with all that a lost connection held.

Rules: RabbitMQ hands such a message out again at once, to anybody. Where it comes back to this process, the work goes
on under the new delivery. Elsewhere the ledger tells: while the work lasts that the publication is held, and for how
long, then that it has ended; who takes the message meanwhile has it come back later, and drops it when the work has
ended. Who lost a connection itself a moment ago takes it that others did, and gives them time to say what they hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost
from celeriac.servers.rabbitmq.ledger import Ledger
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused

_log = logging.getLogger("celeriac.broker.amqp")

TERM = 30.0
"""Seconds for which a publication is held, unless that is said again: a third of it after the last time."""

GRACE = 10.0
"""Seconds in which others may not be back yet, from the first message that comes again after an outage."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_AT_ONCE = 1000


class Orphan(Protocol):
    """A receipt whose delivery is void."""

    tag: str | None

    @property
    def is_void(self) -> bool:
        """Whether RabbitMQ took the delivery back."""
        ...

    def go_on_as(self, other: Any) -> None:
        """Settle another delivery of the same publication from now on."""
        ...

    async def ack(self, *, surely: bool = False) -> None:
        """See ``celeriac.broker.Receipt``."""
        ...

    async def set_by(self, due: float) -> None:
        """Have the message come back then, as the publication it is."""
        ...


class Orphans:
    """The orphans of one process; none before a connection is lost."""

    def __init__(self, link: Link, ledger: Ledger, clock: Clock) -> None:
        self._link = link
        self._ledger = ledger
        self._clock = clock
        self._kept: dict[str, Orphan] = {}
        self._untold: list[str] = []
        self._idle: set[str] = set()
        self._turn = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._outage = float("-inf")
        self._is_away = False
        self._closed = False

    def has(self, receipt: Orphan) -> bool:
        """Whether this is one of them."""
        return bool(self._kept) and receipt.tag is not None and self._kept.get(receipt.tag) is receipt

    def adopt(self, receipts: Iterable[Orphan], waiting: Iterable[Orphan], acked: Iterable[str]) -> None:
        """Keep what a lost connection held.

        :param waiting: what had not been handed out yet: nobody works on it.
        :param acked: publications of which RabbitMQ may not have read that they were acknowledged.
        """
        if self._closed:
            return
        self._is_away = True
        self._idle = {receipt.tag for receipt in waiting if receipt.tag is not None}
        self._kept |= {receipt.tag: receipt for receipt in receipts if receipt.tag is not None}
        self._untold += acked
        self._ledger.note_ended(self._untold)
        if self._telling is not None:
            self._telling.cancel()
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def is_free(self, receipt: Orphan, *, redelivered: bool) -> bool:
        """Return whether a delivery may be handed out; if not, it is dealt with.

        :param redelivered: RabbitMQ handed it out before.
        """
        tag = receipt.tag
        if tag is None:
            return True
        try:
            return not await self._is_dealt_with(receipt, tag, redelivered)
        except (DeliveryLost, BrokerError) as error:
            if receipt.is_void:
                return False  # it comes again
            _log.warning("who works on a redelivered message could not be told, so it runs: %s", error)
            return True

    async def end(self, receipt: Orphan) -> None:
        """Let everybody know that the work is done.

        Raises ``BrokerUnavailable``, and ``DeliveryLost`` where nobody can be told.
        """
        assert receipt.tag is not None
        self._ledger.note_ended([receipt.tag])
        with self._told(receipt):
            await self._ledger.end([receipt.tag])
        self._kept.pop(receipt.tag, None)

    async def free(self, receipt: Orphan) -> None:
        """Let everybody know that somebody else may do the work. Raises as ``end``."""
        assert receipt.tag is not None
        with self._told(receipt):
            async with self._turn:  # what is said last counts
                await self._ledger.hold([receipt.tag], 0.0)
                self._kept.pop(receipt.tag, None)

    def note_idle(self, tag: str | None) -> None:
        """Note that nobody works on a publication that was held here."""
        if tag is not None:
            self._idle.add(tag)

    def forget(self, receipt: Orphan) -> None:
        """Let go of it without a word, if it is one."""
        if self.has(receipt):
            del self._kept[receipt.tag or ""]

    async def close(self) -> None:
        """Adopt no more; let go of what is left."""
        self._closed = True
        self._kept.clear()
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    @contextlib.contextmanager
    def _told(self, receipt: Orphan) -> Iterator[None]:
        try:
            with self._link.translated(BrokerUnavailable, DeliveryLost):
                yield
        except DeliveryLost:
            self.forget(receipt)
            raise

    async def _is_dealt_with(self, receipt: Orphan, tag: str, redelivered: bool) -> bool:
        if self._ledger.has_ended(tag):
            await receipt.ack()
            return True
        kept = self._kept.pop(tag, None)
        if kept is not None:
            kept.go_on_as(receipt)
            return True
        until, now = self._ledger.held_until(tag), self._clock.now()
        if self._is_away:
            self._is_away, self._outage = False, now
        if until is None and redelivered and tag not in self._idle and now < self._outage + GRACE:
            until = now + GRACE
        if until is None or until <= now:
            return False
        await receipt.set_by(until)
        return True

    async def _tell(self) -> None:
        """Say what is held and what has ended for as long as there is something to say."""
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
                await self._ledger.hold(kept[start : start + _AT_ONCE], self._clock.now() + TERM)
        untold = list(self._untold)
        for start in range(0, len(untold), _AT_ONCE):
            await self._ledger.end(untold[start : start + _AT_ONCE])
        del self._untold[: len(untold)]
