"""Which queues an exchange leads to, by kombu's tables.

Rules: a member with a pattern is a topic binding, one without is direct; tables belong to every peer, so they are read
anew for each batch.
"""

from __future__ import annotations

import re

from celeriac.servers.redis.keys import Keys
from celeriac.servers.redis.link import Link
from celeriac.wire.names import split_binding

_NO_TASK_EXCHANGES = frozenset({"celery.pidbox", "reply.celery.pidbox", "celeryev"})
_SCAN_COUNT = 1000


class Bindings:
    """The binding tables of one broker."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    async def match(self, exchange: str, routing_key: str) -> list[str]:
        """Return the queues that a message with this key goes to, sorted."""
        members = await self._link.call("SMEMBERS", self._keys.binding(exchange))
        queues = set()
        for member in members:
            parts = split_binding(member.decode(errors="replace"))
            if parts is not None and _leads(parts[0], parts[1], routing_key):
                queues.add(parts[2])
        return sorted(queues)

    async def queues(self) -> list[str]:
        """Return every queue of every task exchange, sorted."""
        known: set[str] = set()
        for table in await self._tables():
            for member in await self._link.call("SMEMBERS", table):
                parts = split_binding(member.decode(errors="replace"))
                if parts is not None:
                    known.add(parts[2])
        return sorted(known)

    async def _tables(self) -> list[str]:
        stem = self._keys.binding("")
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", stem) + "*"
        tables: set[str] = set()
        cursor = b"0"
        while True:
            cursor, found = await self._link.call(
                "SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT, "TYPE", "set"
            )
            tables.update(key.decode(errors="replace") for key in found)
            if cursor == b"0":
                break
        return sorted(table for table in tables if table.removeprefix(stem) not in _NO_TASK_EXCHANGES)


def _leads(bound_key: str, pattern: str, routing_key: str) -> bool:
    if not pattern:
        return bound_key == routing_key
    try:
        return re.match(pattern, routing_key) is not None
    except re.error:
        return False
