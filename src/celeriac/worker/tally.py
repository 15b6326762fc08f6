"""Counts what a worker has done."""

from __future__ import annotations

from collections import Counter

from celeriac.worker.attempt import Attempt
from celeriac.worker.decision import Settle
from celeriac.worker.listeners import Listener

IGNORED = "IGNORED"


class Tally:
    """Numbers since the worker started.

    ``started`` counts the tasks that began, by name; ``ended`` final states and RETRY; ``refused`` messages that went
    to the dead letters; ``lost`` deliveries whose receipt was void when they were to be settled; ``dead`` all messages
    that became dead letters.
    """

    def __init__(self) -> None:
        self.received = 0
        self.held = 0
        self.refused = 0
        self.lost = 0
        self.dead = 0
        self.started: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()


class Counting(Listener):
    """Keeps a tally."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def received(self, attempt: Attempt) -> None:
        self._tally.received += 1

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
        self._tally.ended[attempt.decision.state or IGNORED] += 1

    def refused(self, attempt: Attempt) -> None:
        self._tally.refused += 1
        self._tally.dead += 1

    def lost(self, attempt: Attempt, error: Exception) -> None:
        self._tally.lost += 1
