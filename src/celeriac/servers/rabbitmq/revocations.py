"""Tasks that must not run any more, kept in the ledger.

Rules: an entry outlives what is parked now, as far as that can be told: a message in the queue of delays of level n has
at most ``2 ** (n + 1)`` seconds to go.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.broker import Revoked
from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.rabbitmq.ledger import Ledger
from celeriac.servers.rabbitmq.link import Link
from celeriac.servers.rabbitmq.topology import Topology


class AmqpRevocations:
    """What must not run any more; see ``celeriac.broker.Revocations``."""

    def __init__(self, link: Link, ledger: Ledger, topology: Topology, clock: Clock) -> None:
        self._link = link
        self._ledger = ledger
        self._topology = topology
        self._clock = clock

    async def add(
        self, ids: Sequence[str], *, roots: Sequence[str] = (), terminate: bool = False, keep: float = 86400.0
    ) -> None:
        with self._link.translated(BrokerUnavailable, BrokerError):
            keep = max(keep, await self._longest_delay())
            await self._ledger.revoke(ids, roots, terminate, self._clock.now() + keep)

    async def revision(self) -> int:
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._ledger.settle()
        return self._ledger.revision

    async def load(self) -> Revoked:
        with self._link.translated(BrokerUnavailable, BrokerError):
            await self._ledger.settle()
        return self._ledger.revoked()

    async def _longest_delay(self) -> float:
        soon, *levels = await self._topology.count_delayed()
        longest = max((2.0 ** (level + 1) for level, count in enumerate(levels) if count), default=0.0)
        return max(longest, 1.0 if soon else 0.0)
