"""Finds the queues of an exchange in kombu's tables of bindings.

Rules: a member with a pattern is a topic binding, one without is direct. Every peer may change the tables, so they are
read again for each batch.
"""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet

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
    """Whether a binding leads to its queue. The pattern is not used, except for whether there is one.

    kombu makes the pattern from the key, as a regular expression. A pattern that someone else wrote could keep a core
    busy for hours, so the key is matched instead: ``*`` stands for text that does not end in a dot, ``#`` for any text.
    """
    if not pattern:
        return bound_key == routing_key
    places = {0}
    for number, word in enumerate(bound_key.split(".")):
        if number:
            places = {place + 1 for place in places if routing_key[place : place + 1] == "."}
        places = _after(word, routing_key, places)
        if not places:
            return False
    return len(routing_key) in places


def _after(word: str, text: str, places: AbstractSet[int]) -> set[int]:
    """Return where a word of a binding's key may end that begins at one of the places."""
    first = min(places, default=len(text) + 1)
    if word == "#":
        return set(range(first, len(text) + 1))
    if word == "*":
        return {place for place in range(first + 1, len(text) + 1) if text[place - 1] != "."}
    return {place + len(word) for place in places if text.startswith(word, place)}
