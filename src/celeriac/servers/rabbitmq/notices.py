"""What the processes of one broker tell each other, by the ledger, about work whose connection was lost.

Rules: there are two notices about a publication: it is worked on until some moment, and it has ended. The latest of the
first kind counts. An end is final.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from celeriac.clock import Clock
from celeriac.servers.rabbitmq.ledger import Entry, Ledger, drop_oldest

_LONGEST = 300.0
"""Seconds for which one notice may keep a publication from others. A process whose clock is ahead cannot say more."""


class Notices:
    """The notices of all processes of one broker."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._until: dict[str, float] = {}
        self._ended: dict[str, None] = {}
        ledger.readers.append(self._read)

    async def tell_busy(self, publications: Sequence[str], until: float) -> None:
        """Tell that these are worked on, until then (seconds since the epoch), or with 0 no more.

        Raises ``AmqpError``.
        """
        await self._ledger.append(Entry(held=list(publications), until=until))

    async def tell_ended(self, publications: Sequence[str]) -> None:
        """Tell that the work on these has ended. Raises ``AmqpError``."""
        await self._ledger.append(Entry(ended=list(publications)))

    def note_ended(self, publications: Iterable[str]) -> None:
        """Note here that the work on these has ended, before the other processes can be told."""
        self._ended |= dict.fromkeys(publications)
        drop_oldest(self._ended)

    def busy_until(self, publication: str) -> float | None:
        """Return until when a process works on it, in seconds since the epoch; ``None`` if there is no notice."""
        return self._until.get(publication)

    def has_ended(self, publication: str) -> bool:
        """Whether a process ended the work on it after RabbitMQ took its message back."""
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
