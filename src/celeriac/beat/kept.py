"""The entries of an app on the board, and the news that they have changed.

Rules: every ticking process gets a notice of what is written at once. A process that declares an entry takes the place
of those that started before it, and of no later one. Readers of a half-made change see the newer or the older entry.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress

import msgspec

from celeriac.beat.entry import Entry, newest, read_entry, write_entry
from celeriac.beat.slot_clock import SlotClock
from celeriac.contracts import board
from celeriac.contracts.board import SLOT_AHEAD, Sets
from celeriac.contracts.broker import Broker
from celeriac.contracts.fanout import Exchange
from celeriac.errors import BrokerError
from celeriac.wire.envelope import Envelope

NEWS = Exchange("celeriac.beat")
"""Where ticking processes hear of changes; the body of a message is the app's name."""

_ENTRIES, _PAUSED = "entries", "paused"
_KEEP = 10 * 365 * 86400.0
"""Seconds for which an entry is kept that nobody removes."""


class Contents(msgspec.Struct, frozen=True):
    """The entries of an app, by name, and which of them are paused."""

    entries: Mapping[str, Entry]
    paused: frozenset[str]
    revision: int


class Kept:
    """The entries of one app.

    :param app: the app's name, under which they are kept.
    """

    def __init__(self, sets: Sets, broker: Broker, app: str, clock: SlotClock) -> None:
        self._sets = sets
        self._broker = broker
        self._app = app
        self._clock = clock
        self._set = f"beat.{app}"
        self._read: dict[str, Entry | None] = {}

    async def load(self) -> Contents:
        """Return what is kept now."""
        found = await self._load([_ENTRIES, _PAUSED])
        texts = found.sets[_ENTRIES]
        self._read = {text: self._read[text] if text in self._read else read_entry(text) for text in texts}
        border = self._clock.now() + SLOT_AHEAD
        entries = newest(_believed(entry, border) for entry in self._read.values() if entry is not None)
        return Contents(entries, frozenset(found.sets[_PAUSED]), found.revision)

    async def revision(self) -> int:
        """Return a number that changes with every change."""
        return (await self._load(())).revision

    async def _load(self, sets: Sequence[str]) -> board.Contents:
        asked = self._clock.monotonic()
        found = await self._sets.load(self._set, sets)
        self._clock.heard(found.now, asked)
        return found

    async def declare(self, declared: Iterable[Entry], started: float, *, again: bool = False) -> None:
        """Keep the entries that a process declares.

        :param started: when the process started, by the monotonic clock.
        :param again: it has declared them before; what was removed since then is not kept again.
        """
        kept = (await self.load()).entries
        now, began = self._clock.now(), self._clock.at(started)
        new: list[Entry] = []
        for entry in declared:
            known = kept.get(entry.name)
            if known is None:
                if not again:
                    since = entry.since or now
                    new.append(msgspec.structs.replace(entry, declared=began, seen=now, since=since))
            elif known.rule == entry.rule:
                newer = max(known.declared, began)
                new.append(msgspec.structs.replace(known, declared=newer, seen=now))
            elif known.declared < began:
                new.append(msgspec.structs.replace(entry, declared=began, seen=now, since=now))
        await self._write(new)

    async def put(self, entry: Entry) -> None:
        """Keep an entry that is added at run time, in the place of one with its name."""
        known = (await self.load()).entries.get(entry.name)
        now = self._clock.now()
        since = known.since if known is not None and known.rule == entry.rule else now
        await self._write([msgspec.structs.replace(entry, declared=now, since=since)])

    async def remove(self, names: Collection[str]) -> int:
        """Remove entries; return how many there were."""
        known = (await self.load()).entries.keys() & set(names)
        texts = [text for text, entry in self._read.items() if entry is not None and entry.name in known]
        if texts:
            await self._sets.remove(self._set, {_ENTRIES: texts, _PAUSED: list(known)})
            await self.announce()
        return len(known)

    async def pause(self, name: str) -> None:
        """Note that an entry is not to be ticked."""
        await self._sets.add(self._set, {_PAUSED: [name]}, _KEEP)
        await self.announce()

    async def resume(self, name: str) -> None:
        """Note that it is to be ticked again."""
        await self._sets.remove(self._set, {_PAUSED: [name]})
        await self.announce()

    async def announce(self) -> None:
        """Notify every ticking process of a change; one that misses the notice looks by itself."""
        if self._broker.fanout is not None:
            with suppress(BrokerError):
                await self._broker.fanout.publish(NEWS, Envelope(body=self._app.encode()))

    async def _write(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        texts = {entry.name: write_entry(entry) for entry in entries}
        new = [text for text in texts.values() if text not in self._read]
        if new:
            await self._sets.add(self._set, {_ENTRIES: new}, _KEEP)
        old = [
            text
            for text, entry in self._read.items()
            if entry is not None and entry.name in texts and texts[entry.name] != text
        ]
        if old:
            await self._sets.remove(self._set, {_ENTRIES: old})
        if new or old:
            await self.announce()


def _believed(entry: Entry, border: float) -> Entry:
    """Return the entry; one that claims to be declared in the future, which none would ever replace, as the oldest."""
    if entry.declared < border and entry.seen < border:
        return entry
    return msgspec.structs.replace(entry, declared=0.0, seen=0.0)
