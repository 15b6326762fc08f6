"""Gives back what dead workers held.

Rules: a celeriac peer's message is recognised by its lease and given back when that ends; a message without lease is
kombu's and is given back when kombu's own rule says so, the visibility timeout. The restoring script looks again, so
any number of peers may recover at once, kombu's sweep among them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.brokers.redis.bindings import Bindings
from celeriac.brokers.redis.keys import Keys
from celeriac.brokers.redis.scripts import LAPSED, RESTORE
from celeriac.redis_link import Link
from celeriac.wire.envelope import Envelope
from celeriac.wire.frame import DELIVERIES_HEADER, mark_redelivered, unpack

_log = logging.getLogger("celeriac.broker.redis")

_BATCH = 100


class _Entry(msgspec.Struct):
    """What ``unacked`` says of a message."""

    raw: bytes
    exchange: str
    routing_key: str


class Recovery:
    """Restores lapsed messages of one broker.

    :param visibility_timeout: seconds after which a message held by a peer without leases counts as lost; all peers of
        one Redis should use the same.
    """

    def __init__(self, link: Link, keys: Keys, bindings: Bindings, visibility_timeout: float) -> None:
        self._link = link
        self._keys = keys
        self._bindings = bindings
        self._visibility_timeout = visibility_timeout

    async def run(self) -> int:
        """Give back what has lapsed by now; return how many messages went back."""
        restored = 0
        while True:
            lapsed = await self._find()
            count = await self._restore(lapsed) if lapsed else 0
            restored += count
            if count < _BATCH:
                break
        if restored:
            _log.warning("gave back %d messages of workers that are gone", restored)
        return restored

    async def _find(self) -> list[tuple[str, _Entry]]:
        keys = (self._keys.unacked, self._keys.index, self._keys.leases, self._keys.due)
        found = await self._link.run(LAPSED, keys, (self._visibility_timeout, _BATCH))
        lapsed = []
        for tag, value in zip(found[::2], found[1::2], strict=True):
            entry = _parse(value)
            if entry is None:
                _log.error("the entry of %s in %s cannot be read; it is left there", tag, self._keys.unacked)
            else:
                lapsed.append((tag.decode(errors="surrogateescape"), entry))
        # Each goes to the end that is taken from, so the newest goes first.
        lapsed.sort(key=lambda found: found[0], reverse=True)
        return lapsed

    async def _restore(self, lapsed: Sequence[tuple[str, _Entry]]) -> int:
        keys = [self._keys.unacked, self._keys.index, self._keys.leases, self._keys.due]
        arguments: list[Any] = [self._visibility_timeout]
        for tag, entry in lapsed:
            keys.append(await self._list_for(tag, entry))
            arguments += tag.encode(errors="surrogateescape"), _count_delivery(entry.raw)
        return int(await self._link.run(RESTORE, keys, arguments))

    async def _list_for(self, tag: str, entry: _Entry) -> str:
        _, colon, step = tag.rpartition(":")
        if colon and step.isdigit():
            return self._keys.list_of_tag(entry.routing_key, tag)
        envelope = unpack(entry.raw)
        priority = envelope.priority if isinstance(envelope, Envelope) else 0
        queues = await self._bindings.match(entry.exchange, entry.routing_key) if entry.exchange else []
        return self._keys.list_for(queues[0] if queues else entry.routing_key, priority)


def _parse(value: bytes) -> _Entry | None:
    try:
        message, exchange, routing_key = msgspec.json.decode(value, type=tuple[msgspec.Raw, str, str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _parse_leniently(value)
    raw = bytes(message)
    return _Entry(_unwrap(value) if raw.startswith(b'"') else raw, exchange, routing_key)


def _parse_leniently(value: bytes) -> _Entry | None:
    """Return the parts of an entry whose message is not UTF-8 or not JSON; the reserving script wrote its end."""
    end = value.rfind(b', "", "')
    try:
        queue = json.loads(value[end + 6 : -1])
    except ValueError:
        return None
    if end < 0 or not isinstance(queue, str):
        return None
    return _Entry(_unwrap(value) if value.startswith(b'["') else value[1:end], "", queue)


def _unwrap(value: bytes) -> bytes:
    """Return a message that is no object and was therefore written as text."""
    end = value.rfind(b', "", "')
    text: str = json.loads(value[1:end].decode(errors="surrogateescape"), strict=False)
    return text.encode(errors="surrogateescape")


def _count_delivery(raw: bytes) -> bytes:
    envelope = unpack(raw)
    earlier = envelope.headers.get(DELIVERIES_HEADER) if isinstance(envelope, Envelope) else None
    return mark_redelivered(raw, deliveries=(earlier if type(earlier) is int else 0) + 1)
