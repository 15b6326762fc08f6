"""Counts what a worker does and what an app sends.

Rules: a time of sending that lies in the future, or that is no number, is not believed. A task that was to wait until
its ETA waits from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from celeriac.client.send_listeners import Done, Outgoing, SendListener
from celeriac.metrics.counts import (
    PUBLISH_BOUNDS,
    Histogram,
    Published,
    SeriesTable,
    published_under,
)
from celeriac.wire.result import FAILURE, RETRY, REVOKED, SUCCESS
from celeriac.wire.waiting import waits_since
from celeriac.worker.attempt import Attempt
from celeriac.worker.decision import Settle
from celeriac.worker.listeners import Listener

OUTCOMES = {SUCCESS: "succeeded", FAILURE: "failed", RETRY: "retried", REVOKED: "revoked"}
ALL_OUTCOMES = (*OUTCOMES.values(), "ignored", "requeued", "parked", "declined", "refused", "lost", "error")


class TaskCounting(Listener):
    """Counts messages of one worker.

    :param now: seconds since the epoch.
    """

    def __init__(self, table: SeriesTable, now: Callable[[], float]) -> None:
        self._table = table
        self._now = now
        self.deliveries = dict.fromkeys(ALL_OUTCOMES, 0)
        self.nodes: set[str] = set()
        self.children: dict[str, set[int]] = {}

    def received(self, attempt: Attempt) -> None:
        message = attempt.message
        series = self._table.of(message.task, attempt.delivery.queue)
        series.received += 1
        if (since := waits_since(attempt.delivery.envelope)) is not None:
            waited = self._now() - since
            if waited >= 0:  # else it is parked until its ETA, or the sender's clock is ahead
                series.wait.observe(waited)

    def started(self, attempt: Attempt) -> None:
        self._table.of(attempt.message.task, attempt.delivery.queue).started += 1

    def ended(self, attempt: Attempt) -> None:
        decision = attempt.decision
        assert decision is not None
        series = self._table.of(attempt.message.task, attempt.delivery.queue)
        state = decision.state
        if state == SUCCESS:
            series.succeeded += 1
            series.runtime.observe(perf_counter() - attempt.started)
            self.deliveries["succeeded"] += 1
        elif decision.settle in (Settle.BURY, Settle.REQUEUE, Settle.PARK):
            series.rejected += 1
            self.deliveries["failed" if decision.settle is Settle.BURY else "requeued"] += 1
        elif state == FAILURE:
            series.fail(type(decision.error).__name__)
            self.deliveries["failed"] += 1
        elif state == RETRY:
            series.retried += 1
            self.deliveries["retried"] += 1
        elif state == REVOKED:
            series.revoked += 1
            self.deliveries["revoked"] += 1
        else:
            self.deliveries["ignored"] += 1

    def parked(self, attempt: Attempt) -> None:
        self.deliveries["parked"] += 1

    def declined(self, attempt: Attempt) -> None:
        self.deliveries["declined"] += 1
        if attempt.decision is not None and attempt.decision.state == REVOKED:
            self._table.of(attempt.message.task, attempt.delivery.queue).revoked += 1

    def refused(self, attempt: Attempt) -> None:
        self.deliveries["refused"] += 1
        error = attempt.decision.error if attempt.decision is not None else None
        self._table.of(attempt.message.task, attempt.delivery.queue).fail(type(error).__name__)

    def failed(self, attempt: Attempt, error: Exception) -> None:
        self.deliveries["error"] += 1

    def lost(self, attempt: Attempt, error: Exception) -> None:
        self.deliveries["lost"] += 1

    def child_started(self, node: str, pid: int) -> None:
        self.children.setdefault(node, set()).add(pid)

    def child_stopped(self, node: str, pid: int) -> None:
        self.children.get(node, set()).discard(pid)


class SendCounting(SendListener):
    """Counts what an app sends, and how long the broker takes."""

    def __init__(self) -> None:
        self._published: dict[tuple[str, str], Published] = {}
        self.seconds = Histogram(PUBLISH_BOUNDS)

    def sending(self, batch: Sequence[Outgoing]) -> Done:
        began = perf_counter()

        def done(error: BaseException | None) -> None:
            if error is None:
                self._count(batch)
                if not batch[0].follows:
                    self.seconds.observe(perf_counter() - began)

        return done

    def published(self) -> list[Published]:
        """Return how many were sent."""
        return list(self._published.values())

    def _count(self, batch: Sequence[Outgoing]) -> None:
        for outgoing in batch:
            published_under(self._published, outgoing.message.task, outgoing.queue).count += 1
