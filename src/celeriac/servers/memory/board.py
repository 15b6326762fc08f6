"""The board of one process.

Rules: an expired entry is deleted when its key is next used, or when the table has doubled since the last cleaning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from typing import Generic, TypeVar

import msgspec

from celeriac.clock import Clock
from celeriac.contracts.board import Contents, Tenure

K = TypeVar("K")
V = TypeVar("V")

_FEW = 1000
"""How many entries a table may get before those that ended are looked for."""


class _Ending(Generic[K, V]):
    """A table whose entries end.

    :param end: tells when, in seconds since the epoch.
    """

    def __init__(self, clock: Clock, end: Callable[[V], float]) -> None:
        self._clock = clock
        self._end = end
        self._entries: dict[K, V] = {}
        self._full = _FEW

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is not None and self._end(entry) <= self._clock.now():
            del self._entries[key]
            return None
        return entry

    def put(self, key: K, entry: V) -> V:
        if len(self._entries) >= self._full:
            now = self._clock.now()
            self._entries = {key: entry for key, entry in self._entries.items() if self._end(entry) > now}
            self._full = 2 * len(self._entries) + _FEW
        self._entries[key] = entry
        return entry

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)


class MemorySets:
    """See ``celeriac.contracts.board.Sets``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sets: dict[tuple[str, str], dict[str, float]] = {}
        self._revisions: dict[str, int] = {}

    async def add(self, name: str, members: Mapping[str, Collection[str]], keep: float) -> None:
        until = self._clock.now() + keep
        for kind, names in members.items():
            known = self._sets[name, kind] = self._alive(name, kind)
            known.update((member, max(until, known.get(member, 0.0))) for member in names)
        self._advance(name)

    async def remove(self, name: str, members: Mapping[str, Collection[str]]) -> None:
        for kind, names in members.items():
            gone = set(names)
            known = self._alive(name, kind).items()
            self._sets[name, kind] = {member: until for member, until in known if member not in gone}
        self._advance(name)

    async def load(self, name: str, sets: Sequence[str]) -> Contents:
        return Contents(self.number(name), {kind: self._alive(name, kind) for kind in sets})

    async def revision(self, name: str) -> int:
        return self.number(name)

    def number(self, name: str) -> int:
        """Return the revision."""
        return self._revisions.get(name, 0)

    def _alive(self, name: str, kind: str) -> dict[str, float]:
        now = self._clock.now()
        return {member: until for member, until in self._sets.get((name, kind), {}).items() if until > now}

    def _advance(self, name: str) -> None:
        self._revisions[name] = self.number(name) + 1


class _Put(msgspec.Struct):
    until: float
    values: dict[str, str] = {}


class MemoryMarks:
    """See ``celeriac.contracts.board.Marks``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: _Ending[str, _Put] = _Ending(clock, lambda put: put.until)

    async def put(self, key: str, name: str, value: str, keep: float) -> str:
        kept = self._kept.get(key) or self._kept.put(key, _Put(self._clock.now() + keep))
        return kept.values.setdefault(name, value)

    async def remove(self, key: str, name: str, value: str) -> bool:
        return self.take_down(key, name, value)

    def take_down(self, key: str, name: str, value: str) -> bool:
        """Do the same, at once."""
        kept = self._kept.get(key)
        if kept is None or kept.values.get(name) != value:
            return False
        del kept.values[name]
        return True

    async def shorten(self, key: str, keep: float) -> None:
        until = self._clock.now() + keep
        kept = self._kept.get(key) or self._kept.put(key, _Put(until))
        kept.until = min(kept.until, until)


class _Lease(msgspec.Struct):
    holder: str
    until: float


class MemoryLeases:
    """See ``celeriac.contracts.board.Leases``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: _Ending[str, _Lease] = _Ending(clock, lambda lease: lease.until)

    async def hold(self, name: str, holder: str, seconds: float) -> Tenure:
        lease = self._held.get(name)
        if lease is not None and lease.holder != holder:
            return Tenure(held=False)
        self._held.put(name, _Lease(holder, self._clock.now() + seconds))
        return Tenure(held=True)

    async def release(self, name: str, holder: str) -> None:
        lease = self._held.get(name)
        if lease is not None and lease.holder == holder:
            self._held.drop(name)


class _Turns(msgspec.Struct):
    moments: deque[float]
    until: float


class MemoryWindows:
    """See ``celeriac.contracts.board.Windows``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._turns: _Ending[str, _Turns] = _Ending(clock, lambda turns: turns.until)

    async def turn(self, name: str, most: int, window: float, wait: float = 0.0) -> float:
        now = self._clock.now()
        booked = self._turns.get(name)
        moments = booked.moments if booked else deque[float]()
        at = max(
            now, moments[-1] if moments else now, moments[-most] + window if len(moments) >= most else now
        )
        if at - now <= wait:
            moments = deque([*moments, at], maxlen=most)
            self._turns.put(name, _Turns(moments, at + window))
        return at - now


class MemorySlots:
    """See ``celeriac.contracts.board.Slots``."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    async def advance(self, entry: str, slot: float) -> bool:
        if not self.is_before(entry, slot):
            return False
        self._last[entry] = slot
        return True

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        return {entry: self._last[entry] for entry in entries if entry in self._last}

    def is_before(self, entry: str, slot: float) -> bool:
        """Whether the entry's last slot is before this one."""
        return self._last.get(entry, -inf) < slot


class MemoryBoard:
    """The board of one process; see ``celeriac.contracts.board.Board``."""

    def __init__(self, clock: Clock) -> None:
        self.sets = MemorySets(clock)
        self.marks = MemoryMarks(clock)
        self.leases = MemoryLeases(clock)
        self.slots = MemorySlots()
        self.windows = MemoryWindows(clock)
