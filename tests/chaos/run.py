"""One chaos run, from the start of the servers to the verdict."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.chaos.fleet import Fleet
from tests.chaos.ledger import count_ends, read, receipts
from tests.chaos.mischief import Mischief
from tests.chaos.places import Place
from tests.chaos.plan import VISIBILITY_TIMEOUT, Plan, PlannedCall, calls_of
from tests.chaos.sender import Sender
from tests.chaos.verdict import Trouble, Verdict, judge

STALLED = VISIBILITY_TIMEOUT + 10
"""Seconds without a run after which what is missing is lost."""


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    plan: Plan
    verdict: Verdict
    mishaps: Counter[str]
    by_celery: int
    left: Sequence[str]
    complaints: Sequence[str]
    seconds: float

    @property
    def problems(self) -> Sequence[str]:
        """Everything that may not be; empty when all is well."""
        lost = [f"lost: {text}" for text in self.verdict.lost]
        duplicates = [f"ran twice: {text}" for text in self.verdict.duplicates]
        return [*lost, *duplicates, *self.left, *self.complaints]


async def run(plan: Plan, place: Place) -> Report:
    """Send the calls, make trouble, wait until all have run, look at what is left."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, place:
        scene = Scene(plan, place, Path(folder))
        mischief = Mischief(plan.seed, place, scene.fleet, plan.restarts)
        report = await scene.play(
            mischief.make(plan.seconds),
            mischief.outages if place.forgets else (),
            mischief.cuts if place.holds_by_line else (),
        )
        return replace(report, mishaps=mischief.done)


class Scene:
    """What takes part in a run: the place, the fleet, the sender, and the ledger of what ran."""

    def __init__(self, plan: Plan, place: Place, ledger: Path) -> None:
        self.plan = plan
        self.place = place
        self.ledger = ledger
        celery = plan.celery if place.has_celery else 0
        self.fleet = Fleet(place.url, place.results, ledger, plan.celeriac, celery)
        self.calls = calls_of(plan)
        self._sender = Sender(place.url, place.results, plan, by_celery=celery > 0)

    async def play(
        self,
        trouble: Coroutine[Any, Any, object],
        outages: Sequence[tuple[float, float]] = (),
        cuts: Sequence[tuple[float, float]] = (),
    ) -> Report:
        """Send the calls while there is trouble, wait until all have run, judge.

        :param outages: read at the end: when the server may have taken back what it had answered.
        :param cuts: read at the end: when the server may have handed out what our workers still held.
        """
        began = time.monotonic()
        fleet, calls, place = self.fleet, self.calls, self.place
        try:
            await fleet.start()
            await asyncio.gather(self._sender.send(calls), trouble)
            await self._all_done()
            await fleet.stop()
        finally:
            fleet.abandon()
        runs = list(read(self.ledger))
        troubles = Trouble(
            fleet.deaths, outages, self._sender.uncertain, receipts(self.ledger), cuts, fleet.pids
        )
        by_us = {(entry.task_id, entry.retries): entry.pid in fleet.pids for entry in runs}
        return Report(
            self.plan,
            judge(calls, runs, troubles),
            Counter(),
            sum(entry.pid not in fleet.pids for entry in runs),
            [*place.left(), *_results(place, calls, by_us)],
            [*fleet.complaints, *fleet.tracebacks()],
            time.monotonic() - began,
        )

    async def _all_done(self) -> None:
        """Return when every due run has ended and the broker holds nothing, or when nothing goes on any more."""
        expected = sum(call.attempts for call in self.calls)
        seen, since = -1, time.monotonic()
        while time.monotonic() < since + STALLED:
            ends = await asyncio.to_thread(count_ends, self.ledger)
            if ends >= expected and not (await asyncio.to_thread(self.place.counts)).keys() - {"dead"}:
                return
            if ends != seen:
                seen, since = ends, time.monotonic()
            await asyncio.sleep(0.2)


def _results(
    place: Place, calls: Sequence[PlannedCall], ours: Mapping[tuple[str, int], bool]
) -> Iterator[str]:
    """Every call whose caller would not see that it succeeded.

    Celery publishes a retry before it stores RETRY, and may so store it after the retry has succeeded elsewhere.
    """
    for start in range(0, len(calls), 1000):
        part = calls[start : start + 1000]
        for call, status in zip(part, place.states([call.id for call in part]), strict=True):
            if status != "SUCCESS" and (status != "RETRY" or ours[call.id, 0]):
                yield f"result of {call.task}[{call.id}]: {status}"
