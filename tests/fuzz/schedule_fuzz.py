"""Change records of periodic tasks at random; each is ignored, or its slots can be computed in a moment, and told."""

import random
import sys
import time
from contextlib import suppress
from itertools import islice

from celeriac.beat.agenda import line_of
from celeriac.beat.entry import Entry, newest, read_entry, run_id, slot_key, write_entry
from celeriac.beat.ticking import Ticking
from celeriac.errors import CeleriacError
from celeriac.schedule.crontab import Crontab
from celeriac.schedule.interval import Interval, Once
from celeriac.schedule.slots import Schedule, latest_slots
from celeriac.schedule.solar import Solar
from tests.fuzz.decode_fuzz import mutate
from tests.hostile.values import VALUES

NOW = 1_800_000_000.0
LONGEST = 2.0
"""Seconds that one record may take on a busy machine; most take less than a thousandth of it."""

SCHEDULES: tuple[Schedule, ...] = (
    Crontab("*/5", "8-18", "mon-fri", "*", "*", "Europe/Berlin"),
    Crontab("0", "0", "0", "29", "2"),
    Interval(0.01),
    Interval(86400.0, relative=True, tz="America/New_York"),
    Solar("dawn_civil", 89.9, 0.0),
    Once(NOW + 5),
)


def seeds() -> list[bytes]:
    """Records of each kind of schedule, with every field."""
    entries = [
        Entry(
            name="n",
            task="t",
            schedule=schedule,
            arguments='[[1], {"a": 2}]',
            options='{"queue": "q", "headers": {"a": 1}}',
            catch_up="all",
            window=60.0,
            overlap="skip",
            overlap_for=5.0,
            jitter=1.0,
            start=NOW - 1e6,
            end=NOW + 1e6,
            declared=NOW - 5,
            seen=NOW - 5,
            since=NOW - 1e5,
        )
        for schedule in SCHEDULES
    ]
    return [write_entry(entry).encode() for entry in entries]


def put_value(random_: random.Random, record: bytes) -> bytes:
    """Return the record with a value in the place of another, of any length."""
    text = record.decode()
    colons = [place for place, letter in enumerate(text) if letter == ":"]
    start = random_.choice(colons) + 1
    ends = [end for end in (text.find(mark, start) for mark in ",}") if end > 0]
    return (text[:start] + random_.choice(VALUES) + text[min(ends, default=start) :]).encode()


def check(data: bytes) -> bool:
    """Do what a process that ticks does; return whether the record holds an entry. Raises for a broken promise."""
    began = time.process_time()
    entry = read_entry(data.decode(errors="replace"))
    if entry is None:
        return False
    assert read_entry(write_entry(entry)) == entry
    (entry,) = newest([entry, entry]).values()
    key = slot_key("app", entry.name)
    with suppress(CeleriacError):  # a field of a crontab, a time zone: it is named where entries are shown
        line = line_of(entry, key, None, 0.0, NOW)
        for _ in range(3):
            if line.slot is None:
                break
            assert line.at is not None
            assert line.at >= line.slot
            run_id(key, line.slot)
            line.passed(NOW)
        latest_slots(entry.schedule, NOW - 1e6, NOW, entry.anchor_before(NOW - 1e6), 10)
        assert all(slot > NOW for slot in islice(iter(lambda: entry.next(NOW), None), 2))
        entry.schedule.oddities()
    str(entry.schedule)
    with suppress(CeleriacError):
        Ticking(None, None, None, {}).call(entry, key, NOW)  # type: ignore[arg-type]
    assert time.process_time() - began < LONGEST, "it holds up the loop"
    return True


def search(seed: int, seconds: float, least: int = 0) -> int:
    """Check mutated records for so long, and at least so many; returns how many. Repeatable by its seed."""
    random_, pool = random.Random(seed), seeds()
    end, count = time.monotonic() + seconds, 0
    while count < least or time.monotonic() < end:
        record = random_.choice(pool)
        data = put_value(random_, record) if random_.randrange(2) else mutate(random_, pool)
        try:
            check(data)
        except BaseException:
            print(f"seed {seed}, input {count}: {data!r}", file=sys.stderr)
            raise
        count += 1
    return count
