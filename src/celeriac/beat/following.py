"""Follows a source: keeps its entries on the board, tells it what was ticked, and sees whether another ticks them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec

from celeriac.beat.entry import Entry, slot_key
from celeriac.beat.kept import Kept
from celeriac.beat.source import Source, SourceTaken
from celeriac.contracts.broker import Beat

logger = logging.getLogger("celeriac.beat")

_CLOSE, _ROUNDED = 0.002, 1.0
"""Seconds by which the note of a slot may be off, and by which it may where a database keeps full seconds only."""


class Following:
    """What one process knows of a source.

    :ivar names: all that the source knows.
    :ivar again: when to look next.
    :ivar done: slots that were ticked, and not written to the source yet.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ran: dict[str, float] = {}
        self.names: frozenset[str] = frozenset()
        self.again = 0.0
        self.done: dict[str, float] = {}

    async def follow(self, kept: Kept, beat: Beat, app: str, started: float, now: float) -> None:
        """Keep what the source holds now. Raises ``SourceTaken`` where another program ticks its entries."""
        reading = await self._source.read()
        known = (await kept.load()).entries
        await self._see_no_other(reading.ran, known, beat, app)
        self._ran = dict(reading.ran)
        self.names = reading.names | reading.entries.keys()
        origin = self._source.name
        gone = {
            name for name, entry in known.items() if entry.origin == origin and name not in reading.entries
        }
        if gone:
            await kept.remove(gone)
        entries = [msgspec.structs.replace(entry, origin=origin) for entry in reading.entries.values()]
        await kept.declare(entries, started)
        self.again = now + self._source.every

    async def tell(self, kept: Kept, beat: Beat, app: str) -> None:
        """Write to the source what was ticked; what it cannot take now is written the next time.

        Raises ``SourceTaken`` as ``follow`` does: what is written here takes the place of what that would see.
        """
        if not self.done:
            return
        try:
            before = await self._source.ticked(self.done)
        except Exception as error:  # noqa: BLE001 - whatever it is, the slots are ticked
            logger.warning("what was sent could not be written to the source of periodic tasks: %s", error)
            return
        done, self.done = self.done, {}
        if self._moved(before):
            await self._see_no_other(before, (await kept.load()).entries, beat, app)
        self._ran |= done

    async def _see_no_other(
        self, ran: Mapping[str, float], known: Mapping[str, Entry], beat: Beat, app: str
    ) -> None:
        """Raise ``SourceTaken`` where one of these ran at a moment that is no slot of this app's."""
        moved = {name: at for name, at in self._moved(ran).items() if name in known}
        last = await beat.last([slot_key(app, name) for name in moved])
        for name, at in moved.items():
            if not _is_ours(known[name], at, last.get(slot_key(app, name))):
                raise SourceTaken(
                    f"{name} was sent by another scheduler: stop celery beat, which sends each task a second time"
                )

    def _moved(self, ran: Mapping[str, float]) -> dict[str, float]:
        return {name: at for name, at in ran.items() if abs(self._ran.get(name, at) - at) > _CLOSE}


def _is_ours(entry: Entry, at: float, last: float | None) -> bool:
    """Whether this is a slot that was ticked: schedulers of others note the moment at which they sent."""
    close = _ROUNDED if at == int(at) else _CLOSE
    if last is None or at > last + close:
        return False
    slot = entry.schedule.next(at - close, entry.anchor_before(at - close))
    return slot is not None and slot - at <= close
