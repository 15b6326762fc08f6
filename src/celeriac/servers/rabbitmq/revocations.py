"""Tasks that must not run any more, kept in the ledger.

Rules: an entry outlives what is parked now, as far as that can be told: a message in the queue of delays of level n has
at most ``2 ** (n + 1)`` seconds to go. The revision is the sum of the numbers of the entries: processes that know the
same entries have the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from celeriac.broker import Revoked
from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.rabbitmq.ledger import NUMBERS, Entry, Ledger
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.topology import Topology


class _Term(msgspec.Struct):
    until: float
    terminate: bool


class AmqpRevocations:
    """The revoked tasks of one broker; see ``celeriac.broker.Revocations``.

    :ivar latest: the revision of the entries that were read here.
    """

    def __init__(self, link: Link, ledger: Ledger, topology: Topology, clock: Clock) -> None:
        self._link = link
        self._ledger = ledger
        self._topology = topology
        self._clock = clock
        self.latest = 0
        self._numbers: set[int] = set()
        self._ids: dict[str, _Term] = {}
        self._roots: dict[str, _Term] = {}
        ledger.readers.append(self._read)

    async def add(
        self, ids: Sequence[str], *, roots: Sequence[str] = (), terminate: bool = False, keep: float = 86400.0
    ) -> None:
        with self._link.translated(BrokerUnavailable, BrokerError):
            until = self._clock.now() + max(keep, await self._longest_delay())
            await self._ledger.append(
                Entry(revoke=list(ids), roots=list(roots), terminate=terminate, until=until)
            )

    async def revision(self) -> int:
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._ledger.settle()
        return self.latest

    async def load(self) -> Revoked:
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._ledger.settle()
        now = self._clock.now()
        for table in (self._ids, self._roots):
            for name in [name for name, term in table.items() if term.until <= now]:
                del table[name]
        terminate = [name for table in (self._ids, self._roots) for name in table if table[name].terminate]
        return Revoked(
            self.latest, frozenset(self._ids), frozenset(self._roots), terminate=frozenset(terminate)
        )

    def _read(self, entry: Entry) -> None:
        if (entry.revoke or entry.roots) and entry.number not in self._numbers:
            self._numbers.add(entry.number)
            self.latest = (self.latest + entry.number) % NUMBERS
            for table, names in ((self._ids, entry.revoke), (self._roots, entry.roots)):
                self._extend(table, names, entry)

    def _extend(self, table: dict[str, _Term], names: Sequence[str], entry: Entry) -> None:
        now = self._clock.now()
        for name in names:
            term = table.get(name)
            if term is None or term.until <= now:
                table[name] = _Term(entry.until, entry.terminate)
            else:
                term.until = max(term.until, entry.until)
                term.terminate |= entry.terminate

    async def _longest_delay(self) -> float:
        soon, *levels = await self._topology.count_delayed()
        longest = max((2.0 ** (level + 1) for level, count in enumerate(levels) if count), default=0.0)
        return max(longest, 1.0 if soon else 0.0)
