"""Which slots are to be ticked next, of all entries.

Rules: pure. A line goes past a slot only once its caller has dealt with the slot. Missed slots of a time in which a
ticking process lived are all ticked, whichever process led; ``catch_up`` decides about those of a time in which none
did.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush

import msgspec

from celeriac.beat.entry import Entry
from celeriac.contracts.board import SLOT_KEPT
from celeriac.schedule.slots import jitter_of, latest_slots

MOST = 1000
"""Slots of one entry that are caught up at the most: the latest."""


class Line(msgspec.Struct):
    """The slots of one entry that lie ahead, or are late.

    :param late: slots that have passed and are to be ticked, in order.
    :param upcoming: the slot after them.
    :param again: when to try again what could not be ticked.
    """

    entry: Entry
    key: str
    late: deque[float]
    upcoming: float | None
    again: float = 0.0

    @property
    def slot(self) -> float | None:
        """The slot to tick next."""
        return self.late[0] if self.late else self.upcoming

    @property
    def at(self) -> float | None:
        """When to tick it."""
        slot = self.slot
        if slot is None:
            return None
        return max(slot + jitter_of(self.key, slot, self.entry.jitter), self.again)

    def passed(self, now: float) -> None:
        """Go on to the slot after this one. Of those that have passed meanwhile the latest are kept."""
        self.again = 0.0
        if self.late:
            self.late.popleft()
            return
        assert self.upcoming is not None
        slot = self.entry.next(self.upcoming)
        if slot is not None and slot <= now:
            self.late.extend(_latest(self.entry, self.upcoming, now, MOST))
            slot = self.entry.next(max(now, self.upcoming))
        self.upcoming = slot

    def hold(self, now: float, until: float) -> None:
        """Keep what is due for later: of several slots the latest only."""
        while self.upcoming is not None and self.upcoming <= now:
            self.late.append(self.upcoming)
            self.upcoming = self.entry.next(self.upcoming)
        self.late = deque([self.late[-1]])
        self.again = until


def line_of(entry: Entry, key: str, last: float | None, alive_since: float, now: float) -> Line:
    """Return what is to be ticked of an entry that is new here.

    :param last: its last slot, as the broker knows it.
    :param alive_since: since when there was always a process that ticks.
    """
    # Of what was missed before that nobody knows any more whether it was ticked.
    dealt_with = max(entry.since, entry.since if last is None else last, now - SLOT_KEPT)
    first = entry.next(dealt_with)
    if first is None or first > now:
        return Line(entry, key, deque(), first)
    border = min(max(alive_since, dealt_with), now)
    late = _caught_up(entry, dealt_with, border, now) + _latest(entry, border, now, MOST)
    return Line(entry, key, deque(late), entry.next(max(now, dealt_with)))


class Agenda:
    """The lines of all entries, and which of them is due first."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self._due: list[tuple[float, str]] = []

    def put(self, line: Line) -> None:
        """Add a line, or note that it has changed."""
        self.lines[line.entry.name] = line
        if (at := line.at) is not None:
            heappush(self._due, (at, line.entry.name))

    def keep(self, names: Iterable[str]) -> None:
        """Drop the lines of all other entries."""
        kept = set(names)
        self.lines = {name: line for name, line in self.lines.items() if name in kept}

    def clear(self) -> None:
        """Forget everything."""
        self.lines.clear()
        self._due.clear()

    def first(self) -> float | None:
        """Return when the first of them is due."""
        while self._due:
            at, name = self._due[0]
            line = self.lines.get(name)
            if line is not None and line.at == at:
                return at
            heappop(self._due)
        return None

    def take_due(self, now: float, most: int) -> list[Line]:
        """Return up to ``most`` lines that are due, the first one first; each is to be put back."""
        due: dict[str, Line] = {}
        while len(due) < most and (at := self.first()) is not None and at <= now:
            _, name = heappop(self._due)
            due[name] = self.lines[name]
        return list(due.values())


def _caught_up(entry: Entry, after: float, until: float, now: float) -> list[float]:
    """Return the missed slots of a time without a ticking process that are to be ticked."""
    if entry.catch_up == "none" or until <= after:
        return []
    if entry.window is not None:
        after = max(after, now - entry.window)
    return _latest(entry, after, until, 1 if entry.catch_up == "one" else MOST)


def _latest(entry: Entry, after: float, until: float, most: int) -> list[float]:
    after = max(after, entry.since, (entry.start or 0.0) - 1e-6)
    until = until if entry.end is None else min(until, entry.end)
    return latest_slots(entry.schedule, after, until, entry.anchor, most) if until > after else []
