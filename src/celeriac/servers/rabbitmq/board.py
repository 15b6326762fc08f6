"""The board of RabbitMQ, which keeps no values: sets alone, as the entries of the ledger add up to them.

Rules: who reads the same entries, in whatever order and however often, knows the same: a member is told by the latest
change of it, by the clocks of those who wrote them, and the revision is the sum of the entries' numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import msgspec

from celeriac.board import Contents, Leases, Marks, Windows
from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.rabbitmq.ledger import NUMBERS, Change, Entry, Ledger, drop_oldest
from celeriac.servers.rabbitmq.link import Link

_OUTLASTS = 7 * 86400.0
"""Seconds for which it is known that a member was removed: as long as the ledger may tell that it was added."""


class _Member(msgspec.Struct):
    """What is known of a member; moments are in seconds since the epoch."""

    added: float = 0.0
    until: float = 0.0
    removed: float = 0.0

    def add(self, at: float, until: float) -> None:
        if at >= self.removed:
            self.added, self.until = max(self.added, at), max(self.until, until)

    def remove(self, at: float) -> None:
        self.removed = max(self.removed, at)
        if at >= self.added:
            self.until = 0.0


class _Known(msgspec.Struct):
    """What is known of the sets of one name."""

    revision: int = 0
    numbers: dict[int, None] = {}
    sets: dict[str, dict[str, _Member]] = {}


class AmqpSets:
    """See ``celeriac.board.Sets``."""

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
        if change is None:
            return
        known = self._known.setdefault(change.name, _Known())
        if entry.number in known.numbers:
            return
        known.numbers[entry.number] = None
        known.revision = (known.revision + entry.number) % NUMBERS
        for kind, names in change.sets.items():
            _apply(known.sets.setdefault(kind, {}), names, change.at, entry.until)
        drop_oldest(known.numbers)


def _apply(members: dict[str, _Member], names: Sequence[str], at: float, until: float) -> None:
    for name in names:
        member = members.setdefault(name, _Member())
        if until > 0:
            member.add(at, until)
        else:
            member.remove(at)


class AmqpBoard:
    """The board of one RabbitMQ; see ``celeriac.board.Board``."""

    marks: Marks | None = None
    leases: Leases | None = None
    windows: Windows | None = None

    def __init__(self, link: Link, ledger: Ledger, clock: Clock) -> None:
        self.sets = AmqpSets(link, ledger, clock)
