"""Takes messages from queues: hands out held messages first, then reserves new ones, else waits until it is woken.

Rules: the step that removes a message from its list also writes it to ``unacked``, under our lease. Client and server
number the deliveries in the same way, so that the server need not send the tags. Each take begins with another queue.
Where the last wait had to wait, and the last fetch brought all there was, the next take waits first: messages come one
by one, and another fetch would most often find nothing. Where two came from one list, that list is waited for in the
take itself, for a moment.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from celeriac.clock import Clock, seconds_ahead
from celeriac.contracts.broker import Delivery
from celeriac.errors import BrokerError
from celeriac.servers.redis.board import read_revision
from celeriac.servers.redis.doorbell import Doorbell
from celeriac.servers.redis.keys import Keys, QueueLists
from celeriac.servers.redis.leases import Leases
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.parking import Parking
from celeriac.servers.redis.publishing import Publishing
from celeriac.servers.redis.pushes import Pushes
from celeriac.servers.redis.recovery import Recovery
from celeriac.servers.redis.scripts import RESERVE
from celeriac.servers.redis.settling import RedisReceipt, Settler
from celeriac.servers.redis.standing import LONGEST, Source, StandingTake
from celeriac.servers.reserve import Reserve
from celeriac.wire.envelope import Unreadable
from celeriac.wire.frame import earlier_deliveries, unpack

_log = logging.getLogger("celeriac.broker.redis")

_MOST_AT_ONCE = 1000

_REVOKED_SINCE = 0.05
"""Seconds after which the revision is asked for again before messages that were reserved earlier start."""

_TROUBLED = 1.0
"""Seconds between looks while a key of a queue is no list: as it exists, it would end every other wait at once."""


_LONGEST_WAIT = 15.0
"""Seconds after which a wait looks by itself: a connection that was cut without notice would never wake it."""

_MOST_COMPLAINTS = 100
"""The most different troubles with queues that are logged: any client may make up names without end."""

_SERVED = 2.0
"""For how many leases a queue counts as served after its worker's last sign of life."""


class RedisSubscription:
    """A hold on some queues; see ``celeriac.contracts.broker.Subscription``."""

    def __init__(
        self,
        link: Link,
        pushes: Pushes,
        keys: Keys,
        publishing: Publishing,
        leases: Leases,
        settler: Settler,
        recovery: Recovery,
        parking: Parking,
        clock: Clock,
    ) -> None:
        self._link = link
        self._keys = keys
        self._publishing = publishing
        self._leases = leases
        self._longest_wait = min(leases.lease / 2, _LONGEST_WAIT)
        self._settler = settler
        self._recovery = recovery
        self._parking = parking
        self._clock = clock
        self._standing = StandingTake(link)
        self._doorbell = Doorbell(link, pushes, keys.due, self._standing.end)
        self._queues: list[str] = []
        self._rounds: list[_Round] = []
        self._watched: Sequence[str] = ()
        self._turn = 0
        self._look_at = float("-inf")
        self._check_at = float("-inf")
        self._serve_at = float("-inf")
        self._stopped = False
        self._complained: set[bytes] = set()
        self._troubled = False
        self._is_quiet = False
        self._source = Source()
        self._awaited: str | None = None
        self._armed_beside: tuple[str | None, float] = None, 0.0
        self.revision = 0
        self.ahead = 0.0
        self._due_at = 0.0
        self._asked_at = float("-inf")
        self._reserve = Reserve(self._fetch, self._give_back)
        self.backlog = 0
        self.idle = False

    @property
    def is_behind(self) -> bool:
        """Whether it holds messages."""
        return bool(self._reserve)

    @property
    def prefetch(self) -> int:
        return self._reserve.most

    @prefetch.setter
    def prefetch(self, most: int) -> None:
        self._reserve.most = most

    async def take(self, limit: int) -> list[Delivery]:
        is_idle = self._is_quiet and not self._reserve and not self._reserve.are_more and not self._stopped
        if is_idle and not await self._may_stand():
            await self._wait_for_more(math.inf)
        while not self._stopped:
            if self._reserve:
                await self._look_for_revocations()
            if deliveries := await self._reserve.take(min(limit, _MOST_AT_ONCE)):
                if self._doorbell.polls:
                    self._doorbell.found()
                return deliveries
            await self._wait_for_more(self._due_at - self._clock.monotonic())
        return []

    def held(self) -> Sequence[Delivery]:
        return self._reserve.held()

    async def let_go(self) -> None:
        self._doorbell.ring()  # also a fetch that is about to wait must not keep it waiting
        await self._reserve.let_go()

    async def stop(self) -> None:
        self._stopped = True
        self._doorbell.ring()
        await self._reserve.close()

    async def close(self) -> None:
        """Stop, and drop the connections that waiting used."""
        await self.stop()
        await self._doorbell.close()
        await self._leave(self._queues)

    async def add_queue(self, queue: str) -> None:
        await self._publishing.declare([queue])
        await self._parking.serve([queue], self._leases.lease * _SERVED)
        if queue not in self._queues:
            self._queues.append(queue)
            self._plan()

    async def drop_queue(self, queue: str) -> None:
        if queue in self._queues:
            self._queues.remove(queue)
            self._plan()
            await self._leave([queue])
            self._doorbell.ring()
            await self._reserve.let_go(lambda delivery: delivery.queue == queue)

    async def _leave(self, queues: Sequence[str]) -> None:
        with suppress(BrokerError):  # the note also expires by itself
            await self._parking.leave(queues)

    def _plan(self) -> None:
        lists = [self._keys.lists_of(queue) for queue in self._queues]
        self._rounds = [_Round(self._keys, lists[turn:] + lists[:turn]) for turn in range(len(lists))]
        self._watched = self._rounds[0].keys[4:] if self._rounds else ()
        self._doorbell.ring()

    async def _wait_for_more(self, due_in: float) -> None:
        """Return when there may be something to take, or a parked message is due, in so many seconds at the latest."""
        longest = self._longest_wait
        self._armed_beside = None, 0.0
        while not self._stopped:
            due_in = min(due_in, await self._doorbell.arm(self._watched))
            self._is_quiet = due_in > 0 and not self._doorbell.polls
            if self._troubled:
                due_in = max(due_in, _TROUBLED)
            if due_in <= 0 or await self._wait(min(due_in, longest)) or due_in <= longest:
                break
            due_in = math.inf  # nothing rang: it is enough to look again

    async def _may_stand(self) -> bool:
        """Note which list the next fetch is to wait for; return whether there is one.

        The others ring, by a look that is good for as long as none has rung.
        """
        self._awaited = None
        awaited = self._source.awaited if self.idle else None
        if awaited is None or self._standing.is_refused or self._doorbell.polls or self._troubled:
            return False
        now = self._clock.monotonic()
        if not self._doorbell.is_armed or self._armed_beside[0] != awaited or now > self._armed_beside[1]:
            self._armed_beside = None, 0.0
            due_in = await self._doorbell.arm([key for key in self._watched if key != awaited])
            if due_in <= 0 or self._doorbell.polls:
                return False
            self._due_at = now + due_in
            self._armed_beside = awaited, now + self._longest_wait
        self._awaited = awaited
        return True

    async def _wait(self, due_in: float) -> bool:
        """Wait for so many seconds; return whether it rang. Look after dead peers meanwhile."""
        due_at = self._clock.monotonic() + due_in
        rung = False
        while not rung and not self._stopped and self._clock.monotonic() < due_at:
            pause = min(due_at, self._look_at) - self._clock.monotonic()
            rung = await self._doorbell.wait(max(0.0, pause)) or await self._recover_in_time() > 0
        return rung

    async def _recover_in_time(self) -> int:
        """Give back what dead peers held, when it is time to look; return how many messages."""
        now = self._clock.monotonic()
        if now >= self._check_at:
            await self._doorbell.check()
            self._check_at = now + self._longest_wait
        if now < self._look_at:
            return 0
        if now >= self._serve_at:
            await self._parking.serve(self._queues, self._leases.lease * _SERVED)
            self._serve_at = now + self._leases.lease
        await self._leases.rest()
        restored = await self._recovery.run()
        pause = self._leases.second_look if self._recovery.suspects else self._leases.look
        self._look_at = self._clock.monotonic() + pause
        return restored

    async def _look_for_revocations(self) -> None:
        """Learn what was revoked since the messages that are held were reserved."""
        now = self._clock.monotonic()
        if now > self._asked_at + _REVOKED_SINCE:
            self.revision = read_revision(await self._link.call("GET", self._keys.revision) or b"0")
            self._asked_at = now

    async def _fetch(self, now: int, ahead: int) -> list[Delivery]:
        """Reserve what is there, and note the seconds until a parked message is due."""
        await self._recover_in_time()
        if self._stopped:
            return []
        self._turn = (self._turn + 1) % max(1, len(self._rounds))
        order = self._rounds[self._turn] if self._rounds else _Round(self._keys, [])
        asked, serial = self._clock.monotonic(), self._leases.number(now + ahead)
        owner, times = self._leases.owner, (self._leases.term, self._leases.lease)
        # As text: to pack a number takes hiredis five times as long.
        numbers = (str(number) for number in (now, ahead, *times))
        arguments = (*numbers, owner, str(serial), self._keys.prefix, *order.ends)
        asked_at = self._clock.now()
        try:
            reply, known = await self._ask(order.keys, arguments)
        except BaseException:
            self._leases.lose(serial, now + ahead)
            raise
        due_in, trouble, revision, time, *batches = reply
        self._asked_at = asked
        self.ahead = seconds_ahead(float(time), asked_at, self._clock.now(), known)
        self._due_at = self._clock.monotonic() + float(due_in or math.inf)
        self.revision = read_revision(revision)
        self._troubled = bool(trouble)
        if trouble:
            self._complain(trouble)
        self._source.note(order.keys[4:], batches, self._clock.monotonic())
        deliveries: list[Delivery] = []
        kept = True
        for number, raws in zip(batches[::2], batches[1::2], strict=True):
            kept &= self._deliver(deliveries, order, number, raws, serial + len(deliveries))
        if not kept and self._clock.monotonic() > asked + self._leases.term / 2:
            await self._give_back(deliveries)  # their leases were not renewed while the answer lay unread
            deliveries = []
        return deliveries

    async def _ask(self, keys: Sequence[str], arguments: Sequence[str]) -> tuple[Any, float]:
        """Return the reserving script's answer, and what stays known of the server's clock.

        It waits for a message first where that was noted; then the answer's way tells little of that clock.
        """
        awaited, self._awaited = self._awaited, None
        if awaited is not None and self._doorbell.is_armed:
            seconds = min(LONGEST, self._leases.term / 4, self._due_at - self._clock.monotonic())
            if seconds > 0:
                reply = await self._standing.run(awaited, seconds, RESERVE, keys, arguments)
                return reply, self.ahead
        return await self._link.run(RESERVE, keys, arguments), 0.0

    def _deliver(
        self, deliveries: list[Delivery], order: _Round, number: int, raws: Sequence[bytes], serial: int
    ) -> bool:
        """Append what was taken of one list; return whether its leases were being renewed already."""
        queue, step = order.places[number]
        owner, settler = self._leases.owner, self._settler
        tags = [f"{owner}.{serial + offset:012d}:{step}" for offset in range(len(raws))]
        for tag, raw in zip(tags, raws, strict=True):
            envelope = unpack(raw)
            receipt = RedisReceipt(settler, tag, queue, raw)
            if isinstance(envelope, Unreadable):
                deliveries.append(Delivery(envelope, queue, receipt))
            else:
                times = earlier_deliveries(envelope) + 1
                deliveries.append(Delivery(envelope, queue, receipt, envelope.redelivered, times))
        return self._leases.hold(tags)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        receipts = [delivery.receipt for delivery in deliveries]
        await self._settler.give_back([one for one in receipts if isinstance(one, RedisReceipt)])

    def _complain(self, trouble: Sequence[bytes]) -> None:
        for text in trouble:
            if text not in self._complained and len(self._complained) < _MOST_COMPLAINTS:
                self._complained.add(text)
                _log.error(
                    "a queue of %s cannot be read: %s", self._link.target, text.decode(errors="replace")
                )


class _Round:
    """The reserving script's keys and arguments for one order of the queues."""

    __slots__ = ("ends", "keys", "places")

    def __init__(self, keys: Keys, lists: Sequence[QueueLists]) -> None:
        steps = range(len(keys.steps))
        ordered = [(queue, step) for step in steps for queue in lists]
        self.keys = (
            keys.unacked,
            keys.index,
            keys.leases,
            keys.due,
            *(queue.keys[step] for queue, step in ordered),
        )
        self.places = [(queue.queue, queue.steps[step]) for queue, step in ordered]
        self.ends: list[Any] = []
        for queue, step in ordered:
            self.ends += queue.tail, str(queue.steps[step])
