"""Gives back what dead workers held.

Rules: a celeriac peer's message is recognised by its lease and given back when two looks, some time apart, found its
term ended and the server took writes: after an outage all terms have ended, and who lives renews within that time; a
message without lease is kombu's and is given back when kombu's own rule says so, the visibility timeout. The restoring
script looks again, so any number of peers may recover at once, kombu's sweep among them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from celeriac.clock import Clock
from celeriac.servers.redis.bindings import Bindings
from celeriac.servers.redis.entries import Entry, parse_entry
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.scripts import LAPSED, RESTORE
from celeriac.wire.envelope import Envelope
from celeriac.wire.frame import earlier_deliveries, mark_redelivered, unpack

_log = logging.getLogger("celeriac.broker.redis")

_BATCH = 100


class Recovery:
    """Restores lapsed messages of one broker.

    :param visibility_timeout: seconds after which a message held by a peer without leases counts as lost; all peers of
        one Redis should use the same.
    :param patience: seconds between the two looks.
    """

    def __init__(
        self,
        link: Link,
        keys: Keys,
        bindings: Bindings,
        visibility_timeout: float,
        patience: float,
        clock: Clock,
    ) -> None:
        self._link = link
        self._keys = keys
        self._bindings = bindings
        self._visibility_timeout = visibility_timeout
        self._patience = patience
        self._clock = clock
        self._suspects: dict[str, float] = {}

    async def run(self) -> int:
        """Give back what has lapsed by now; return how many messages went back."""
        restored = 0
        while True:
            lapsed = self._without_suspects(await self._find())
            count = await self._restore(lapsed) if lapsed else 0
            restored += count
            if count < _BATCH:
                break
        if restored:
            _log.warning("gave back %d messages of workers that are gone", restored)
        return restored

    @property
    def suspects(self) -> bool:
        """Whether the last look found somebody whom the next may find dead."""
        return bool(self._suspects)

    def _without_suspects(self, lapsed: Sequence[tuple[str, Entry]]) -> list[tuple[str, Entry]]:
        """Leave out what was held by owners whose end is not certain yet; note them."""
        now = self._clock.monotonic()
        owners = {_owner(tag) for tag, _ in lapsed}
        self._suspects = {owner: self._suspects.get(owner, now) for owner in owners}
        certain = {owner for owner, since in self._suspects.items() if now - since >= self._patience}
        return [(tag, entry) for tag, entry in lapsed if not (owner := _owner(tag)) or owner in certain]

    async def _find(self) -> list[tuple[str, Entry]]:
        keys = (self._keys.unacked, self._keys.index, self._keys.leases, self._keys.due)
        try:
            found = await self._link.run(LAPSED, keys, (self._visibility_timeout, _BATCH))
        except BaseException:
            self._suspects.clear()
            raise
        lapsed = []
        for tag, value in zip(found[::2], found[1::2], strict=True):
            entry = parse_entry(value)
            if entry is None:
                _log.error("the entry of %s in %s cannot be read; it is left there", tag, self._keys.unacked)
            else:
                lapsed.append((tag.decode(errors="surrogateescape"), entry))
        # Each goes to the end that is taken from, so the newest goes first.
        lapsed.sort(key=lambda found: found[0], reverse=True)
        return lapsed

    async def _restore(self, lapsed: Sequence[tuple[str, Entry]]) -> int:
        keys = [self._keys.unacked, self._keys.index, self._keys.leases, self._keys.due]
        arguments: list[Any] = [self._visibility_timeout]
        for tag, entry in lapsed:
            keys.append(await self._list_for(tag, entry))
            arguments += tag.encode(errors="surrogateescape"), _count_delivery(entry.raw)
        return int(await self._link.run(RESTORE, keys, arguments))

    async def _list_for(self, tag: str, entry: Entry) -> str:
        _, colon, step = tag.rpartition(":")
        if colon and step.isdigit():
            return self._keys.list_of_tag(entry.routing_key, tag)
        envelope = unpack(entry.raw)
        priority = envelope.priority if isinstance(envelope, Envelope) else 0
        queues = await self._bindings.match(entry.exchange, entry.routing_key) if entry.exchange else []
        return self._keys.list_for(queues[0] if queues else entry.routing_key, priority)


def _owner(tag: str) -> str:
    """Return whose tag it is, ``""`` for a peer of kombu's kind."""
    owner, dot, _ = tag.partition(".")
    return owner if dot else ""


def _count_delivery(raw: bytes) -> bytes:
    envelope = unpack(raw)
    earlier = earlier_deliveries(envelope) if isinstance(envelope, Envelope) else 0
    return mark_redelivered(raw, deliveries=earlier + 1)
