"""The board of RabbitMQ, which keeps no values: sets, as the entries of the ledger add up to them, and leases.

Rules: processes that read the same entries, in whatever order and however often, know the same: the latest change of a
member counts, by the clocks of their writers, and the revision is the sum of the entries' numbers. A lease is a
queue that is exclusive to one connection; RabbitMQ deletes it with the connection, or when it is not declared again
in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.board import Contents, Marks, Slots, Tenure, Windows
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.rabbitmq.ledger import MOST, NUMBERS, Change, Entry, Ledger, drop_oldest
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.protocol import methods
from celeriac.servers.rabbitmq.protocol.errors import NOT_FOUND, PRECONDITION_FAILED, RESOURCE_LOCKED, Refused

_OUTLASTS = 7 * 86400.0
"""Seconds for which it is known that a member was removed: as long as the ledger may tell that it was added."""


class _Member(msgspec.Struct):
    """What is known of a member; moments are in seconds since the epoch.

    :param added: when it was added, and until when, after it was last removed; of two times only what the other does
        not say as well.
    """

    added: tuple[tuple[float, float], ...] = ()
    removed: float = 0.0

    @property
    def until(self) -> float:
        return max((until for _, until in self.added), default=0.0)

    def add(self, at: float, until: float) -> None:
        if at < self.removed or any(at <= later and until <= longer for later, longer in self.added):
            return
        others = (time for time in self.added if time[0] > at or time[1] > until)
        self.added = (*others, (at, until))

    def remove(self, at: float) -> None:
        self.removed = max(self.removed, at)
        self.added = tuple(time for time in self.added if time[0] > at)


class _Known(msgspec.Struct):
    """The known members of the sets of one name."""

    revision: int = 0
    numbers: dict[int, None] = {}
    sets: dict[str, dict[str, _Member]] = {}


class AmqpSets:
    """See ``celeriac.contracts.board.Sets``."""

    def __init__(self, link: Link, ledger: Ledger, clock: Clock) -> None:
        self._link = link
        self._ledger = ledger
        self._clock = clock
        self._known: dict[str, _Known] = {}
        ledger.readers.append(self._read)

    async def add(self, name: str, members: Mapping[str, Collection[str]], keep: float) -> None:
        await self._change(name, members, self._clock.now() + keep)

    async def remove(self, name: str, members: Mapping[str, Collection[str]]) -> None:
        await self._change(name, members, 0.0)

    async def load(self, name: str, sets: Sequence[str]) -> Contents:
        await self._settle()
        return Contents(self.latest(name), {kind: self._alive(name, kind) for kind in sets})

    async def revision(self, name: str) -> int:
        await self._settle()
        return self.latest(name)

    def latest(self, name: str) -> int:
        """Return the revision of what is known here now."""
        known = self._known.get(name)
        return known.revision if known is not None else 0

    async def _settle(self) -> None:
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._ledger.settle()

    async def _change(self, name: str, members: Mapping[str, Collection[str]], until: float) -> None:
        sets = {kind: list(names) for kind, names in members.items()}
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._ledger.append(Entry(change=Change(name, sets, self._clock.now()), until=until))

    def _alive(self, name: str, kind: str) -> dict[str, float]:
        """Return the members of a set, having dropped of it what has ended."""
        now = self._clock.now()
        known = self._known.get(name)
        members = known.sets.get(kind, {}) if known is not None else {}
        for member in [
            member
            for member, what in members.items()
            if what.until <= now and what.removed + _OUTLASTS <= now
        ]:
            del members[member]
        return {member: what.until for member, what in members.items() if what.until > now}

    def _read(self, entry: Entry) -> None:
        change = entry.change
        if change is None or (change.name not in self._known and len(self._known) >= MOST):
            return
        known = self._known.setdefault(change.name, _Known())
        if entry.number in known.numbers:
            return
        # A clock that is ahead must not make a change the latest for ever.
        at = min(change.at, self._clock.now())
        known.numbers[entry.number] = None
        known.revision = (known.revision + entry.number) % NUMBERS
        for kind, names in change.sets.items():
            _apply(known.sets.setdefault(kind, {}), names, at, entry.until)
        drop_oldest(known.numbers)


def _apply(members: dict[str, _Member], names: Sequence[str], at: float, until: float) -> None:
    for name in names:
        member = members.setdefault(name, _Member())
        if until > 0:
            member.add(at, until)
        else:
            member.remove(at)


class _Held(msgspec.Struct, frozen=True):
    """A lease of this connection.

    :param until: by the event loop's clock.
    """

    holder: str
    until: float


class AmqpLeases:
    """See ``celeriac.contracts.board.Leases``.

    :param prefix: begins the names of the queues.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._held: dict[str, _Held] = {}
        self._turn = asyncio.Lock()

    async def hold(self, name: str, holder: str, seconds: float) -> Tenure:
        asked = asyncio.get_running_loop().time()
        async with self._turn:
            held = self._held.get(name)
            if held is not None and held.holder != holder and held.until > asked:
                return Tenure(held=False)
            with self._link.translated(BrokerUnavailable, BrokerError):
                if await self._declare(name, max(1, round(seconds * 1000))):
                    self._held[name] = _Held(holder, asked + seconds)
                    return Tenure(held=True)
            self._held.pop(name, None)
            return Tenure(held=False)

    async def release(self, name: str, holder: str) -> None:
        async with self._turn:
            held = self._held.get(name)
            if held is not None and held.holder == holder:
                with self._link.translated(BrokerUnavailable, BrokerError):
                    await self._delete(name)
                del self._held[name]

    async def _declare(self, name: str, milliseconds: int, *, again: bool = True) -> bool:
        """Return whether the queue is this connection's now."""
        try:
            async with self._link.passing_channel() as channel:
                await channel.call(methods.declare_lease(self._prefix + name, milliseconds))
        except Refused as error:
            if error.code == RESOURCE_LOCKED:
                return False
            if error.code != PRECONDITION_FAILED or not again:
                raise
            await self._delete(name)  # this connection's, with another time
            return await self._declare(name, milliseconds, again=False)
        return True

    async def _delete(self, name: str) -> None:
        """Delete the queue, unless it is another connection's by now."""
        try:
            async with self._link.passing_channel() as channel:
                await channel.call(methods.delete_queue(self._prefix + name))
        except Refused as error:
            if error.code not in (RESOURCE_LOCKED, NOT_FOUND):
                raise


class AmqpBoard:
    """The board of one RabbitMQ; see ``celeriac.contracts.board.Board``.

    :param prefix: begins the names of queues.
    """

    marks: Marks | None = None
    slots: Slots | None = None
    windows: Windows | None = None

    def __init__(self, link: Link, ledger: Ledger, clock: Clock, prefix: str) -> None:
        self.sets = AmqpSets(link, ledger, clock)
        self._leases = AmqpLeases(link, f"{prefix}lease.")
        self._declares = link.target.declare != "never"

    @property
    def leases(self) -> AmqpLeases | None:
        """Leases: rights that one holder at a time has; ``None`` where nothing may be declared."""
        return self._leases if self._declares else None
