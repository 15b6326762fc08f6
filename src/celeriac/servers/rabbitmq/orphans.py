"""The work that goes on in this process after a lost connection, though RabbitMQ took its messages back.

Rules: RabbitMQ hands such a message out again at once, to any worker. If it comes back to this process, the work goes
on under the new delivery. Other workers learn from notices that the publication is worked on, and until when; and later
that the work has ended. A worker that gets such a message puts it off while the work lasts, and drops it once the work
has ended. After our own disconnect, assume that other workers were disconnected too, and delay redelivered messages by
the grace: they need time to reconnect and to give notice, or their tasks would run twice. The same holds if we could
not connect, or lost the connection before we took anything. RabbitMQ closes connections one after another, and hands
the messages of the first to those that are still open: so a redelivered message waits a moment, in which our own
disconnect is noticed, or a worker that alone was disconnected gives notice; one that a worker gave back does not wait.
A message that was put off is twice in RabbitMQ if the line is lost before its acknowledgement is read: so who ends the
work on a redelivered message gives notice of that, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator
from time import monotonic

import msgspec

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable, DeliveryLost
from celeriac.retry import Backoff
from celeriac.servers.rabbitmq.delivery import AmqpReceipt
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.notices import Notices
from celeriac.servers.rabbitmq.protocol.errors import AmqpError, Refused
from celeriac.servers.rabbitmq.tallies import Tallies

_log = logging.getLogger("celeriac.broker.amqp")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
_AT_ONCE = 1000

_AGAIN = 1.0
"""Seconds for which a message that cannot be put off now is kept here, until it is judged again."""


class NoticeTimes(msgspec.Struct, frozen=True):
    """For how long notices count.

    :param term: seconds that a notice of work lasts; it is renewed after a third of that.
    :param grace: seconds that other workers have to give notice, from the first redelivered message after our own
        disconnect.
    :param news: seconds that a redelivered message waits, from its arrival, for our own disconnect or for notice.
    """

    term: float = 30.0
    grace: float = 10.0
    news: float = 0.3


class Orphans:
    """The orphans of one process; there are none before a connection is lost."""

    def __init__(
        self, link: Link, notices: Notices, tallies: Tallies, clock: Clock, times: NoticeTimes
    ) -> None:
        self._link = link
        self._tallies = tallies
        self._notices = notices
        self._clock = clock
        self._times = times
        self._orphans: dict[str, AmqpReceipt] = {}
        self._untold: list[str] = []
        self._idle: set[str] = set()
        self._turn = asyncio.Lock()
        self._telling: asyncio.Task[None] | None = None
        self._outage = float("-inf")
        self._next_notice = float("-inf")
        self._untold_more = asyncio.Event()
        self._was_refused = False
        self._outages = link.outages
        self.is_closed = False

    def adopt(self, orphans: Iterable[AmqpReceipt], idle: Iterable[str], acked: Iterable[str]) -> None:
        """Keep the deliveries of a lost connection whose work goes on.

        :param idle: publications that had been pushed here and are not worked on.
        :param acked: publications of which RabbitMQ may not have read that they were acknowledged.
        """
        self._idle = set(idle)
        for orphan in orphans:
            assert orphan.publication is not None
            earlier = self._orphans.pop(orphan.publication, None)
            if earlier is not None:
                earlier.go("lose channel")
            self._orphans[orphan.publication] = orphan
        self._next_notice = float("-inf")
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._tell_soon(acked)

    async def judge(self, receipt: AmqpReceipt) -> None:
        """Find out whether a worker works on the message of a delivery in the state "checking".

        If none does, the delivery is "buffered" and cleared on return. Else it was put off, dropped, taken over by an
        orphan, or kept here for a moment.
        """
        try:
            await self._judge(receipt)
        except BrokerUnavailable:
            if receipt.state == "checking":
                receipt.unsettled.keep(receipt, _AGAIN)
        except (DeliveryLost, BrokerError) as error:
            if receipt.state == "checking":
                _log.warning(
                    "it is not known whether another worker runs a redelivered message, so it runs here: %s",
                    error,
                )
                receipt.clear()

    async def tell_ended(self, receipt: AmqpReceipt) -> None:
        """Give notice that the work of an orphan has ended.

        Raises ``BrokerUnavailable``, and ``DeliveryLost`` where RabbitMQ refuses the notice.
        """
        assert receipt.publication is not None
        self._notices.note_ended([receipt.publication])
        with self._lost_if_refused(receipt):
            await self._notices.tell_ended([receipt.publication])
        if receipt.state == "orphaned":
            self._drop(receipt)
            receipt.go("ack")

    async def tell_free(self, receipt: AmqpReceipt) -> bool:
        """Give notice that another worker may do the work of an orphan. Raises as ``tell_ended``.

        Return ``False`` if the orphan goes on as another delivery meanwhile.
        """
        assert receipt.publication is not None
        with self._lost_if_refused(receipt):
            async with self._turn:  # the latest notice counts
                await self._notices.tell_busy([receipt.publication], 0.0)
        if receipt.state != "orphaned":
            return False
        self._drop(receipt)
        receipt.go("give back")
        return True

    def tell_over(self, publication: str) -> None:
        """Give notice, soon, that the work on a redelivered message has ended: a worker may have put it off."""
        self._tell_soon([publication])

    def note_idle(self, publication: str) -> None:
        """Note that no worker here works on a publication that RabbitMQ may hand out again."""
        self._idle.add(publication)

    async def close(self) -> None:
        """Adopt no more, and lose the orphans that are left."""
        self.is_closed = True
        for receipt in self._orphans.values():
            receipt.go("lose channel")
        self._orphans.clear()
        telling, self._telling = self._telling, None
        if telling is not None:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    @contextlib.contextmanager
    def _lost_if_refused(self, receipt: AmqpReceipt) -> Iterator[None]:
        try:
            with self._link.translated(BrokerUnavailable, DeliveryLost):
                yield
        except DeliveryLost:
            if receipt.state == "orphaned":
                self._drop(receipt)
                receipt.go("lose channel")
            raise

    def _drop(self, receipt: AmqpReceipt) -> None:
        self._orphans.pop(receipt.publication or "", None)

    async def _judge(self, receipt: AmqpReceipt) -> None:
        publication = receipt.publication
        if publication is not None:
            if await self._is_worked_on(receipt, publication):
                return
            if receipt.message.redelivered and not self._tallies.was_given_back(receipt.message):
                receipt.may_be_twice = True
                await self._wait_for_news(receipt)
                if receipt.state != "checking" or await self._is_worked_on(receipt, publication):
                    return
        receipt.clear()

    async def _is_worked_on(self, receipt: AmqpReceipt, publication: str) -> bool:
        """Drop the message of a delivery, put it off, or let an orphan take it over; return whether that was done."""
        if self._notices.has_ended(publication):
            await receipt.ack()
        elif (orphan := self._orphans.pop(publication, None)) is not None:
            orphan.resume_as(receipt)
        elif (until := self._busy_until(publication, redelivered=receipt.message.redelivered)) is not None:
            await receipt.put_off(until)
        else:
            return False
        return True

    async def _wait_for_news(self, receipt: AmqpReceipt) -> None:
        """Return when notices have had the time to arrive that are of before the message did."""
        left = receipt.arrived + self._times.news - monotonic()
        if left > 0:
            await asyncio.sleep(left)

    def _busy_until(self, publication: str, *, redelivered: bool) -> float | None:
        """Return until when a worker works, or may work, on a publication; ``None`` if none does."""
        now = self._clock.now()
        if self._outages != self._link.outages:
            self._outages, self._outage = self._link.outages, now
        until = self._notices.busy_until(publication)
        if until is not None:
            return until if until > now else None
        in_grace = now < self._outage + self._times.grace
        return now + self._times.grace if in_grace and redelivered and publication not in self._idle else None

    def _tell_soon(self, ended: Iterable[str]) -> None:
        """Give notice of orphans that are new, and of work that has ended."""
        ended = list(ended)
        self._notices.note_ended(ended)
        self._untold += ended
        self._untold_more.set()
        if self._telling is None or self._telling.done():
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        """Give notice of work and of its ends, again and again while there are orphans."""
        backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while self._orphans or self._untold:
            self._untold_more.clear()
            try:
                await self._tell_once()
            except Refused as error:
                self._untold.clear()
                level = logging.DEBUG if self._was_refused else logging.WARNING
                self._was_refused = True
                _log.log(
                    level,
                    "other workers cannot be told what is worked on here, and may run it again: %s",
                    error,
                )
                return
            except AmqpError:
                await asyncio.sleep(backoff.pause())
            else:
                backoff.reset()
                await self._wait_until_there_is_more()

    async def _wait_until_there_is_more(self) -> None:
        if not self._orphans or self._untold:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._next_notice):
                await self._untold_more.wait()

    async def _tell_once(self) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._next_notice:
            async with self._turn:
                orphans = list(self._orphans)
                for start in range(0, len(orphans), _AT_ONCE):
                    until = self._clock.now() + self._times.term
                    await self._notices.tell_busy(orphans[start : start + _AT_ONCE], until)
            self._next_notice = now + self._times.term / 3
        untold = list(self._untold)
        for start in range(0, len(untold), _AT_ONCE):
            await self._notices.tell_ended(untold[start : start + _AT_ONCE])
        del self._untold[: len(untold)]
