"""The periodic tasks of an app: those that its code declares, and those that are added at run time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, tzinfo
from typing import Any, Unpack

import msgspec

from celeriac.beat.declaring import Declaration, EntryKeywords, make_entry
from celeriac.beat.entry import Entry, slot_key
from celeriac.beat.kept import Kept
from celeriac.beat.places import Places, places_of
from celeriac.beat.slot_clock import SlotClock
from celeriac.beat.source import Source
from celeriac.beat.ticker import Ticker
from celeriac.beat.ticking import Arguments, Ticking
from celeriac.client.app import App
from celeriac.client.result import Result
from celeriac.client.task import Task
from celeriac.errors import ConfigError
from celeriac.quantities import FARTHEST, MOMENT, require
from celeriac.schedule.days import zone_of
from celeriac.schedule.slots import latest_slots

_MOST_FILLED = 10_000
"""Slots that one call fills in at the most."""


class Scheduled(msgspec.Struct, frozen=True):
    """A periodic task, as it is kept in the broker.

    :param schedule: the schedule in words.
    :param paused: it does not run until it is resumed.
    :param declared: code declares it; else it was added at run time.
    :param last: the last slot that was ticked.
    :param next: the slot that is ticked next; ``None`` if there is none.
    :param oddities: what of its crontab means something else than it seems to.
    """

    name: str
    task: str
    schedule: str
    paused: bool
    declared: bool
    last: datetime | None
    next: datetime | None
    oddities: tuple[str, ...] = ()


class Schedules:
    """The periodic tasks of one app. Its coroutines raise ``BrokerUnavailable`` when the broker is away.

    :param by_default: workers tick what the code declares, without an option.
    :ivar source: where another program keeps further entries.
    :ivar on_begin: called before a process ticks them, with whether that is a worker.
    :ivar lag: seconds by which the latest slot that this process has ticked was late; ``None`` before the first.
    """

    def __init__(self, app: App, *, by_default: bool = True) -> None:
        self._app = app
        self.by_default = by_default
        self.source: Source | None = None
        self.on_begin: Callable[[bool], None] | None = None
        self.lag: float | None = None
        self.declared: dict[str, Declaration] = {}
        self._clock = SlotClock(app.clock)

    def declare(
        self,
        name: str,
        task: Task[..., Any] | str,
        schedule: object,
        arguments: Arguments | None = None,
        **given: Unpack[EntryKeywords],
    ) -> None:
        """Declare an entry in code; the parameters are those of ``add``. Raises ``ConfigError`` for a name given twice.

        :param arguments: makes the arguments at each tick, in a process that declares the entry.
        """
        if name in self.declared:
            raise ConfigError(f"there are two periodic tasks {name!r}: give one of them another name")
        self.declared[name] = make_entry(self._app, name, task, schedule, arguments, **given)

    async def add(
        self, name: str, task: Task[..., Any] | str, schedule: object, **given: Unpack[EntryKeywords]
    ) -> None:
        """Keep an entry in the broker until it is removed; one of that name is replaced.

        :param task: a task, or the name of one.
        :param schedule: seconds, a ``timedelta``, ``crontab(...)``, ``solar(...)``, or the five fields of a crontab.
        :param args: the positional arguments, ``kwargs`` those by name. They are kept as JSON, like the options.
        :param tz: the time zone of a schedule that has none; the default is the setting ``timezone``.
        :param relative: an interval begins at the full second, minute, hour or day.
        :param catch_up: which slots are ticked that were missed while no process ticked: ``one``, the latest; ``all``;
            or ``none``.
        :param window: seconds after which a missed slot is not caught up any more.
        :param overlap: what happens in a slot while the run before it goes on: ``allow`` another; ``skip`` the slot;
            ``queue_one``, which runs the latest slot when that run has ended.
        :param overlap_for: seconds after which a run counts as ended if no worker reported its end.
        :param jitter: seconds by which a slot may be late, differently for each slot.
        :param start: the moment before which, and ``end`` that after which, no slot is ticked.
        :param paused: it is not ticked.
        :param options: options of sending, such as ``{"queue": "slow"}``.

        Raises ``ConfigError`` for a value that cannot be used, and for the name of an entry that this code declares.
        """
        if name in self.declared:
            raise ConfigError(f"periodic task {name!r} is declared in code: change it there, or pause it")
        await self._kept().put(make_entry(self._app, name, task, schedule, **given).entry)

    async def remove(self, name: str) -> bool:
        """Remove an entry; return whether there was one. One that code declares is back when such a process starts."""
        return bool(await self._kept().remove([name]))

    async def pause(self, name: str) -> None:
        """Tick an entry no longer until ``resume``. Raises ``ConfigError`` if there is none of that name."""
        await self._entry(name)
        await self._kept().pause(name)

    async def resume(self, name: str) -> None:
        """Tick an entry again, from its next slot on. Raises ``ConfigError`` if there is none of that name."""
        await self._entry(name)
        await self._places().beat.tick(slot_key(self._app.name, name), self._clock.now(), ())
        await self._kept().resume(name)

    async def trigger(self, name: str) -> Result[Any]:
        """Send the task of an entry now, besides its slots. Raises ``ConfigError`` if there is none of that name."""
        entry = await self._entry(name)
        return await self._app.outbox.send(self._ticking().call(entry, slot_key(self._app.name, name), None))

    async def backfill(self, name: str, start: datetime, end: datetime) -> int:
        """Send the task of an entry for each slot of a time in the past, both ends included; return how many.

        What a backfill of the last day has sent already is not sent again. Raises ``ConfigError`` for an unknown name,
        and for more than 10,000 slots.
        """
        for what, moment in (("start", start), ("end", end)):
            require(what, moment, MOMENT)
        entry = await self._entry(name)
        first, until = start.timestamp() - 1e-6, min(end.timestamp(), self._clock.now())
        slots = latest_slots(entry.schedule, first, until, entry.anchor_before(first), _MOST_FILLED + 1)
        if len(slots) > _MOST_FILLED:
            raise ConfigError(f"there are more than {_MOST_FILLED} slots in this time: fill in a shorter one")
        key, ticking, broker = slot_key(self._app.name, name), self._ticking(), self._places().broker
        sent = 0
        for slot in slots:
            message = await self._app.outbox.prepare(ticking.call(entry, key, slot))
            sent += await broker.publish_once(f"backfill {key} {slot!r}", [message])
        return sent

    async def list(self) -> list[Scheduled]:
        """Return what the broker keeps, by name."""
        contents = await self._kept().load()
        keys = {name: slot_key(self._app.name, name) for name in sorted(contents.entries)}
        last = await self._places().beat.last(list(keys.values()))
        return [
            self._told(contents.entries[name], name in contents.paused, last.get(key))
            for name, key in keys.items()
        ]

    async def upcoming(self, name: str) -> tuple[tzinfo, Iterator[datetime]]:
        """Return the slots ahead of an entry, and its time zone. Raises ``ConfigError`` for an unknown name."""
        declaration = self.declared.get(name)
        entries = (await self._kept().load()).entries
        entry = entries.get(name) or (declaration.entry if declaration else await self._entry(name))
        return zone_of(getattr(entry.schedule, "tz", None)), _ahead(entry, self._clock.now())

    async def keep(self) -> None:
        """Keep what this code declares in the broker, as a process that ticks does at its start."""
        declared = [declaration.entry for declaration in self.declared.values()]
        await self._kept().declare(declared, self._clock.monotonic())

    def ticker(self, *, beside_tasks: bool = False) -> Ticker:
        """Return what ticks in the running event loop.

        :param beside_tasks: it ticks in a worker.
        """
        if self.on_begin is not None:
            self.on_begin(beside_tasks)
        declared = [declaration.entry for declaration in self.declared.values()]
        return Ticker(self._app, declared, dict(self._lazy()), self.source, self._note_lag)

    def _note_lag(self, seconds: float) -> None:
        self.lag = seconds

    def _told(self, entry: Entry, paused: bool, last: float | None) -> Scheduled:
        paused = paused or entry.paused
        after = max(self._clock.now(), 0.0 if last is None else last)
        try:
            upcoming, oddities = _moment(entry.next(after)), tuple(entry.schedule.oddities())
        except Exception as error:  # noqa: BLE001 - what is on the board may be anybody's
            upcoming, oddities = None, (f"it is not ticked: {error}",)
        return Scheduled(
            entry.name,
            entry.task,
            str(entry.schedule),
            paused,
            entry.seen > 0,
            _moment(last),
            None if paused else upcoming,
            oddities,
        )

    async def _entry(self, name: str) -> Entry:
        entries = (await self._kept().load()).entries
        if name not in entries:
            known = ", ".join(sorted(entries)[:10]) or "none"
            raise ConfigError(
                f"the broker keeps no periodic task {name!r} of app {self._app.name!r}; known: {known}"
            )
        return entries[name]

    def _lazy(self) -> Iterator[tuple[str, Arguments]]:
        for name, declaration in self.declared.items():
            if declaration.arguments is not None:
                yield name, declaration.arguments

    def _places(self) -> Places:
        return places_of(self._app.connections())

    def _kept(self) -> Kept:
        places = self._places()
        return Kept(places.board.sets, places.broker, self._app.name, self._clock)

    def _ticking(self) -> Ticking:
        return Ticking(self._places(), self._app.outbox, self._app.send_listeners, dict(self._lazy()))


def _ahead(entry: Entry, now: float) -> Iterator[datetime]:
    slot = entry.next(now)
    while slot is not None:
        yield datetime.fromtimestamp(slot, UTC)
        slot = entry.next(slot)


def _moment(slot: float | None) -> datetime | None:
    """Return a slot as a time; ``None`` for one that is so far off that it is none of ours."""
    return datetime.fromtimestamp(slot, UTC) if slot is not None and 0 <= slot < FARTHEST else None
