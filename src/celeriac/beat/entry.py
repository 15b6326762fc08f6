"""A periodic task, as the board keeps it.

Rules: pure. What of a board is no entry is ignored. Of several entries with one name that of the process that started
last counts; the rule holds since the first of those that say the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import Any, Literal, TypeAlias
from uuid import UUID, uuid5

import msgspec

from celeriac.errors import MalformedMessage
from celeriac.quantities import FARTHEST, LONGEST
from celeriac.schedule.crontab import Crontab
from celeriac.schedule.interval import SHORTEST, Interval, Once
from celeriac.schedule.slots import Schedule
from celeriac.schedule.solar import EVENTS, MOST_LAT, MOST_LON, Solar
from celeriac.wire.extended_json import decode_json

CatchUp: TypeAlias = Literal["one", "all", "none"]
Overlap: TypeAlias = Literal["allow", "skip", "queue_one"]

_NAMESPACE = UUID("6f8f5b1e-6c5d-5c0e-9d5e-0d2a3b1c7e94")


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One periodic task; moments are seconds since the epoch.

    :param arguments: JSON of positional and keyword arguments, as Celery writes it.
    :param options: JSON of the options of sending.
    :param lazy: the arguments are made at each tick, by a process that declares the entry.
    :param window: seconds after which a missed slot is not caught up any more.
    :param overlap_for: seconds after which a run counts as ended if no worker reported its end.
    :param jitter: seconds by which a slot may be late.
    :param origin: the name of the source that it is from, if it is from one.
    :param declared: when the process started that declared it, or when it was added.
    :param seen: when a process last declared it; 0 for one that was added at run time, which stays.
    :param since: since when the rule holds; an interval's grid begins there.
    """

    name: str
    task: str
    schedule: Schedule
    arguments: str = "[[],{}]"
    options: str = "{}"
    lazy: bool = False
    ignore_result: bool | None = None
    catch_up: CatchUp = "one"
    window: float | None = None
    overlap: Overlap = "allow"
    overlap_for: float = 3600.0
    jitter: float = 0.0
    start: float | None = None
    end: float | None = None
    paused: bool = False
    origin: str = ""
    declared: float = 0.0
    seen: float = 0.0
    since: float = 0.0

    @property
    def rule(self) -> Entry:
        """The entry without what says when it was declared."""
        return msgspec.structs.replace(self, declared=0.0, seen=0.0, since=0.0)

    def call(self) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments. Raises ``MalformedMessage`` for what is no JSON."""
        args, kwargs = decode_json(self.arguments)
        return list(args), dict(kwargs)

    def next(self, after: float) -> float | None:
        """Return the first slot after a moment that is within ``start`` and ``end``."""
        if self.start is not None:
            # The start itself may be a slot.
            after = max(after, self.start - 1e-6)
        slot = self.schedule.next(max(after, self.since), self.anchor)
        return None if slot is None or (self.end is not None and slot > self.end) else slot

    @property
    def anchor(self) -> float:
        """Where an interval's grid begins: one step before ``start``, which is then its first slot."""
        if self.start is None:
            return self.since
        return self.start - (self.schedule.every if isinstance(self.schedule, Interval) else 0.0)

    def anchor_before(self, moment: float) -> float:
        """Return where the same grid begins if it is to reach back to a moment."""
        if not isinstance(self.schedule, Interval) or moment >= self.anchor:
            return self.anchor
        steps = ceil((self.anchor - moment) / self.schedule.every) + 1
        return self.anchor - steps * self.schedule.every


_LONGEST_NAME = 200

_EARLIEST = -6e10
"""The year 68: a moment for which every time zone has a date."""

_LONGEST_FIELD = 1000
"""Characters of a field of a crontab: every minute of an hour has fewer."""


def is_entry_name(name: object) -> bool:
    """Whether every server can keep an entry of this name."""
    return isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and "\0" not in name


_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Entry).decode


def write_entry(entry: Entry) -> str:
    """Return an entry as text."""
    return _write(entry).decode()


def read_entry(text: str) -> Entry | None:
    """Return the entry that a text holds, ``None`` if it holds none."""
    try:
        entry = _read(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    return (
        entry if _can_be_kept(entry) and _can_be_computed(entry.schedule) and _can_be_called(entry) else None
    )


def _can_be_kept(entry: Entry) -> bool:
    """Whether any server can keep the slots of an entry that anybody may have written, and every time is one."""
    noted = entry.since, entry.declared, entry.seen, entry.window or 0.0
    given = [moment for moment in (entry.start, entry.end) if moment is not None]
    if isinstance(entry.schedule, Once):
        given.append(entry.schedule.at)
    return (
        is_entry_name(entry.name)
        and all(0 <= moment < FARTHEST for moment in noted)
        and all(_EARLIEST < moment < FARTHEST for moment in given)
        and 0 <= entry.jitter < LONGEST  # an early slot would be followed by the next one at once
        and 0 < entry.overlap_for < LONGEST
    )


def _can_be_computed(schedule: Schedule) -> bool:
    """Whether the slots of a schedule can be computed in a moment."""
    if isinstance(schedule, Interval):
        return SHORTEST <= schedule.every <= LONGEST
    if isinstance(schedule, Solar):
        return schedule.event in EVENTS and abs(schedule.lat) <= MOST_LAT and abs(schedule.lon) <= MOST_LON
    if isinstance(schedule, Crontab):
        return all(len(text) <= _LONGEST_FIELD for text in schedule.texts)
    return True


def _can_be_called(entry: Entry) -> bool:
    """Whether there are arguments and options."""
    try:
        args, kwargs = decode_json(entry.arguments)
        options = decode_json(entry.options)
    except (MalformedMessage, TypeError, ValueError):
        return False
    headers = options.get("headers") if isinstance(options, dict) else 0
    return isinstance(args, list) and isinstance(kwargs, dict) and isinstance(headers, dict | None)


def newest(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return of each name the entry that counts."""
    chosen: dict[str, Entry] = {}
    for entry in entries:
        other = chosen.get(entry.name)
        if other is not None and other.rule == entry.rule:
            since, declared = min(other.since, entry.since), max(other.declared, entry.declared)
            seen = max(other.seen, entry.seen)
            entry = msgspec.structs.replace(entry, since=since, declared=declared, seen=seen)
        elif other is not None and (other.declared, write_entry(other)) > (
            entry.declared,
            write_entry(entry),
        ):
            continue
        chosen[entry.name] = entry
    return chosen


def slot_key(app: str, name: str) -> str:
    """Return under which name the broker knows an entry's slots."""
    return f"{app}:{name}"


def run_id(key: str, slot: float) -> str:
    """Return the id of the run of a slot: the same in every process."""
    return str(uuid5(_NAMESPACE, f"{key} {slot!r}"))
