"""Counts what a worker has done."""

from __future__ import annotations

from celeriac.worker.attempt import Attempt
from celeriac.worker.decision import Settle
from celeriac.worker.listeners import Listener

IGNORED = "IGNORED"


class Counts(dict[str, int]):
    """Numbers by name; 0 where there is none. A ``Counter`` takes three times as long to count one more."""

    def __missing__(self, name: str) -> int:
        return 0


class Tally:
    """Numbers since the worker started.

    ``started`` counts the tasks that began, by name; ``ended`` final states and RETRY; ``held`` messages that went back
    to the broker until they are due; ``declined`` those that were not to run; ``refused`` messages that went to the
    dead letters; ``lost`` deliveries whose receipt was void when they were to be settled; ``dead`` all messages that
    became dead letters.
    """

    def __init__(self) -> None:
        self.held = 0
        self.declined = 0
        self.refused = 0
        self.lost = 0
        self.dead = 0
        self.started = Counts()
        self.ended = Counts()

    @property
    def received(self) -> int:
        """All messages that were taken and either began, or are not to run here and now."""
        return sum(self.started.values()) + self.held + self.declined + self.refused


class Counting(Listener):
    """Keeps a tally."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def started(self, attempt: Attempt) -> None:
        self._tally.started[attempt.message.task] += 1

    def ended(self, attempt: Attempt) -> None:
        decision = attempt.decision
        assert decision is not None
        self._tally.ended[decision.state or IGNORED] += 1
        if decision.settle is Settle.BURY:
            self._tally.dead += 1

    def parked(self, attempt: Attempt) -> None:
        self._tally.held += 1

    def declined(self, attempt: Attempt) -> None:
        assert attempt.decision is not None
        self._tally.declined += 1
        self._tally.ended[attempt.decision.state or IGNORED] += 1

    def refused(self, attempt: Attempt) -> None:
        self._tally.refused += 1
        self._tally.dead += 1

    def lost(self, attempt: Attempt, error: Exception) -> None:
        self._tally.lost += 1
