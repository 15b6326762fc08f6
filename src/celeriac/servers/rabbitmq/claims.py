"""Who works on what though RabbitMQ took it back, as the ledger tells it: claims on publications, and their ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celeriac.clock import Clock
from celeriac.servers.rabbitmq.ledger import Entry, Ledger, drop_oldest

_LONGEST = 300.0
"""Seconds for which one entry may claim a publication, in spite of clocks that differ."""


class Claims:
    """The claims of all processes of one broker. The latest entry about a publication counts."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._until: dict[str, float] = {}
        self._ended: dict[str, None] = {}
        ledger.readers.append(self._read)

    async def claim(self, publications: Sequence[str], until: float) -> None:
        """Let everybody know that these are worked on, until then (seconds since the epoch). Raises ``AmqpError``."""
        await self._ledger.append(Entry(held=list(publications), until=until))

    async def end(self, publications: Sequence[str]) -> None:
        """Let everybody know that these were dealt with. Raises ``AmqpError``."""
        await self._ledger.append(Entry(ended=list(publications)))

    def note_ended(self, publications: Iterable[str]) -> None:
        """Know here that these were dealt with, whether or not the others can be told just now."""
        self._ended |= dict.fromkeys(publications)
        drop_oldest(self._ended)

    def claimed_until(self, publication: str) -> float | None:
        """Return until when somebody works on it, in seconds since the epoch; ``None`` if nobody said so."""
        return self._until.get(publication)

    def has_ended(self, publication: str) -> bool:
        """Whether somebody dealt with it after RabbitMQ took it back."""
        return publication in self._ended

    def _read(self, entry: Entry) -> None:
        if entry.held:
            latest = self._clock.now() + _LONGEST
            for publication in entry.held:
                self._until.pop(publication, None)
                self._until[publication] = min(entry.until, latest)
            drop_oldest(self._until)
        if entry.ended:
            self.note_ended(entry.ended)
