"""From events to what is to be stored of them: rows of tasks, attempts that raised, endings by the minute.

Rules: failures, retries and revocations are always kept, successes up to a rate; every ending counts in its minute.
Secrets are hidden before anything is stored. What is stored is known to it by ``learn`` and ``wrote`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from celeriac.monitor.folding import LONGEST_NAME, attempt_of, error_class, fold, place_of
from celeriac.monitor.masking import Mask
from celeriac.monitor.rows import ENDED, AttemptRow, TaskRow
from celeriac.monitor.store import Batch, KeptAttempt

MOST_OPEN = 50_000
"""Tasks that are remembered in memory, so that their next event need not look them up."""

_MASKED = ("args", "kwargs", "result", "error")


class Intake:
    """Folds events into rows.

    :param rate: successes a second that are kept.
    :ivar share: the part of the recent successes that was kept, from 0 to 1.
    """

    def __init__(self, mask: Mask, rate: float, now: Callable[[], float]) -> None:
        self._mask = mask
        self._rate = rate
        self._now = now
        self._last = now()
        self._open: dict[str, TaskRow] = {}
        self._stored: set[str] = set()
        self.share = 1.0

    def unknown(self, events: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the tasks of these events that must be looked up first."""
        return sorted({event["uuid"] for event in _told(events)} - self._open.keys())

    def learn(self, rows: Iterable[TaskRow]) -> None:
        """Take in rows that are stored."""
        for row in rows:
            self._open[row.id] = row
            self._stored.add(row.id)

    def take(self, events: Iterable[Mapping[str, Any]]) -> Batch:
        """Return what events say, to be written."""
        changed, attempts, ended = dict[str, TaskRow](), list[AttemptRow](), list[TaskRow]()
        for event in _told(events):
            row = self._open.setdefault(event["uuid"], TaskRow(event["uuid"]))
            before = (row.state, row.ended)
            fold(row, event)
            changed[row.id] = row
            if row.state in ENDED and (row.state, row.ended) != before:
                ended.append(row)
            if (attempt := attempt_of(row, event)) is not None:
                attempts.append(attempt)
        for row in changed.values():
            self._hide(row)
        raised = [self._kept(attempt) for attempt in attempts]
        kept = self._sample(changed.values(), {attempt.task for attempt in attempts})
        return Batch(kept, raised, ended)

    def wrote(self, batch: Batch) -> None:
        """Note that it is stored."""
        self._stored.update(row.id for row in batch.rows)
        self._forget()

    def _kept(self, attempt: AttemptRow) -> KeptAttempt:
        text, error = self._mask(attempt.traceback), self._mask(attempt.error)
        return KeptAttempt(
            attempt._replace(error=error, traceback=text),
            self._open[attempt.task].name,
            error_class(error),
            place_of(text),
        )

    def _hide(self, row: TaskRow) -> None:
        for column in _MASKED:
            if text := getattr(row, column):
                setattr(row, column, self._mask(text))

    def _sample(self, rows: Iterable[TaskRow], raised: set[str]) -> list[TaskRow]:
        """Return the rows to write: all but the successes above the rate."""
        now = self._now()
        room = self._rate * max(0.25, min(5.0, now - self._last))
        self._last = now
        kept, successes = list[TaskRow](), list[TaskRow]()
        for row in rows:
            dispensable = row.state == "SUCCESS" and row.id not in self._stored and row.id not in raised
            (successes if dispensable else kept).append(row)
        chosen = successes[: int(room)]
        if successes:
            self.share = len(chosen) / len(successes)
        return kept + chosen

    def _forget(self) -> None:
        """Remember no more tasks than there is room for; those that have ended go first."""
        if len(self._open) <= MOST_OPEN:
            return
        ended = [id for id, row in self._open.items() if row.state in ENDED]
        for id in ended or list(self._open)[: MOST_OPEN // 2]:
            del self._open[id]
            self._stored.discard(id)


def _told(events: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return [event for event in events if isinstance(id := event.get("uuid"), str) and len(id) <= LONGEST_NAME]
