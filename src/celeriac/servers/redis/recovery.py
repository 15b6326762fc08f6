"""Gives back the messages of dead workers.

Rules: a message of a celeriac worker has a lease. It is given back when two looks, some time apart, both find its term
ended, while the server takes writes and new connections. One look is not enough: after an outage all terms have ended,
and workers that live need time to reconnect and renew. A message without a lease is a Celery worker's, and is given
back after kombu's visibility timeout. The restoring script checks again, so that any number of peers, and kombu, may
restore at once. An entry that cannot be read, or names no queue, is buried, so that it is not found again and again.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.clock import Clock
from celeriac.errors import BrokerError, BrokerUnavailable
from celeriac.servers.redis.bindings import Bindings
from celeriac.servers.redis.dead import write_letter
from celeriac.servers.redis.entries import Entry, parse_entry
from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.servers.redis.scripts import BURY, LAPSED, RESTORE
from celeriac.wire.envelope import Envelope
from celeriac.wire.frame import earlier_deliveries, mark_redelivered, unpack
from celeriac.wire.preview import counted

_log = logging.getLogger("celeriac.broker.redis")

_BATCH = 100


class _Lapsed(msgspec.Struct):
    """A message whose lease has ended; ``entry`` is ``None`` where ``value`` cannot be read."""

    tag: str
    value: bytes
    entry: Entry | None


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
        self._shut = False

    async def run(self) -> int:
        """Give back the messages whose leases have ended; return how many."""
        restored = 0
        while True:
            lapsed = self._without_suspects(await self._find_believable())
            if not lapsed:
                break
            count = await self._restore(lapsed)
            restored += count
            if count < _BATCH:
                break
        if restored:
            _log.warning("gave back %s of workers that are gone", counted(restored, "message"))
        return restored

    @property
    def suspects(self) -> bool:
        """Whether the last look found a worker that the next look may find dead."""
        return bool(self._suspects)

    def _without_suspects(self, lapsed: Sequence[_Lapsed]) -> list[_Lapsed]:
        """Leave out the messages of workers whose death is not certain yet, and note those workers."""
        now = self._clock.monotonic()
        owners = {_owner(found.tag) for found in lapsed}
        self._suspects = {owner: self._suspects.get(owner, now) for owner in owners}
        certain = {owner for owner, since in self._suspects.items() if now - since >= self._patience}
        return [found for found in lapsed if not (owner := _owner(found.tag)) or owner in certain]

    async def _find_believable(self) -> list[_Lapsed]:
        """Leave out workers with leases while no new connection can be made: they cannot reconnect and renew either."""
        found = await self._find()
        if not any(_owner(lapsed.tag) for lapsed in found):
            return found
        try:
            await self._link.check_door()
        except BrokerError as error:
            if not self._shut:
                self._shut = True
                _log.warning("no worker is taken for dead while no connection can be made: %s", error)
            return [lapsed for lapsed in found if not _owner(lapsed.tag)]
        self._shut = False
        return found

    async def _find(self) -> list[_Lapsed]:
        keys = (self._keys.unacked, self._keys.index, self._keys.leases, self._keys.due)
        try:
            found = await self._link.run(LAPSED, keys, (self._visibility_timeout, _BATCH))
        except BaseException:
            self._suspects.clear()
            raise
        lapsed = [
            _Lapsed(tag.decode(errors="surrogateescape"), value, parse_entry(value))
            for tag, value in zip(found[::2], found[1::2], strict=True)
        ]
        # Each goes to the end that is taken from, so the newest goes first.
        lapsed.sort(key=lambda found: found.tag, reverse=True)
        return lapsed

    async def _restore(self, lapsed: Sequence[_Lapsed]) -> int:
        keys = [self._keys.unacked, self._keys.index, self._keys.leases, self._keys.due]
        arguments: list[Any] = [self._visibility_timeout]
        going: list[_Lapsed] = []
        stuck: list[tuple[_Lapsed, str]] = []
        for found in lapsed:
            place = await self._list_for(found.tag, found.entry) if found.entry is not None else None
            if found.entry is None or place is None:
                stuck.append((found, "it cannot be read"))
                continue
            keys.append(place)
            arguments += found.tag.encode(errors="surrogateescape"), _count_delivery(found.entry.raw)
            going.append(found)
        answers = await self._link.run(RESTORE, keys, arguments) if going else []
        for found, answer in zip(going, answers, strict=True):
            if isinstance(answer, bytes) and b"WRONGTYPE" in answer:
                stuck.append((found, "its queue is no list"))
        if stuck:
            await self._bury(stuck)
        return sum(answer == 1 for answer in answers)

    async def _bury(self, stuck: Sequence[tuple[_Lapsed, str]]) -> None:
        """Bury entries that no worker can give back, unchanged."""
        keys = self._keys
        arguments: list[Any] = []
        for found, why in stuck:
            reason = f"an entry of {keys.unacked} could not be given back: {why}"
            arguments += found.tag.encode(errors="surrogateescape"), write_letter(found.value, "", reason)
        places = (keys.unacked, keys.index, keys.leases, keys.dead, keys.dead_index)
        buried = sum(await self._link.run(BURY, places, arguments))
        if buried:
            _log.warning(
                "%s of %s in %s could not be given back and went to the dead letters (%s: %s)",
                counted(buried, "entry", "entries"),
                keys.unacked,
                self._link.target,
                ascii(stuck[0][0].tag[:100]),
                stuck[0][1],
            )

    async def _list_for(self, tag: str, entry: Entry) -> str | None:
        """Return the list that an entry goes back to, ``None`` where that would be a key of the broker's own."""
        step = self._keys.step_of_tag(tag)
        queue = entry.routing_key
        if step is None:
            envelope = unpack(entry.raw)
            step = envelope.priority if isinstance(envelope, Envelope) else 0
            queue = await self._queue_of(entry)
        place = self._keys.list_for(queue, step)
        return None if place in self._keys.kinds else place

    async def _queue_of(self, entry: Entry) -> str:
        queues: Sequence[str] = ()
        try:
            if entry.exchange:
                queues = await self._bindings.match(entry.exchange, entry.routing_key)
        except BrokerUnavailable:
            raise
        except BrokerError:  # what stands at the name of its table is none
            queues = ()
        return queues[0] if queues else entry.routing_key


def _owner(tag: str) -> str:
    """Return the owner in a tag; ``""`` for the tag of a Celery worker."""
    owner, dot, _ = tag.partition(".")
    return owner if dot else ""


def _count_delivery(raw: bytes) -> bytes:
    envelope = unpack(raw)
    earlier = earlier_deliveries(envelope) if isinstance(envelope, Envelope) else 0
    return mark_redelivered(raw, deliveries=earlier + 1)
