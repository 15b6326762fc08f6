"""Says of every call whether it ran as often as it should have.

Rules: a run too many is excused only by what is on record: its worker died before it can have settled, the server was
down meanwhile, a Celery worker held the message for longer than the visibility timeout, or the sender could not know
whether the call had arrived. Whatever else ran twice is a fault of ours.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.ledger import Run
from tests.chaos.plan import VISIBILITY_TIMEOUT, PlannedCall

SETTLING = 1.0
"""Seconds within which a worker that lives has settled what ended."""


@dataclass(frozen=True)
class Trouble:
    """What went wrong on purpose, and what Celery held.

    :param deaths: between which moments each celeriac worker was ended, by process id; on a busy machine its end is
        known a moment after others have taken over.
    :param outages: from when until when the server was down.
    :param uncertain: how often each call was sent without an answer.
    :param received: when Celery workers received each message, by task id and number of retries.
    """

    deaths: Mapping[int, tuple[float, float]]
    outages: Sequence[tuple[float, float]]
    uncertain: Mapping[str, int]
    received: Mapping[tuple[str, int], Sequence[float]]


@dataclass
class Verdict:
    """What is to be said of the runs."""

    runs: int = 0
    lost: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    excused: Counter[str] = field(default_factory=Counter)


def judge(calls: Sequence[PlannedCall], runs: Sequence[Run], trouble: Trouble) -> Verdict:
    """Judge a chaos run by its records."""
    verdict = Verdict(runs=len(runs))
    by_key: dict[tuple[str, int], list[Run]] = {}
    for run in runs:
        by_key.setdefault((run.task_id, run.retries), []).append(run)
    for call in calls:
        copies = trouble.uncertain.get(call.id, 0)
        for attempt in range(call.attempts):
            found = sorted(by_key.pop((call.id, attempt), []), key=lambda run: run.begin)
            copies = _judge_attempt(call, attempt, found, copies, trouble, verdict)
    verdict.duplicates += [f"{key} ran, which nobody asked for" for key in by_key]
    return verdict


def _judge_attempt(
    call: PlannedCall, attempt: int, runs: Sequence[Run], copies: int, trouble: Trouble, verdict: Verdict
) -> int:
    """Judge the runs of one attempt; return how many copies of the next attempt's message there may be."""
    if not any(run.end for run in runs):
        verdict.lost.append(
            f"{call.task}[{call.id}] attempt {attempt + 1}: {len(runs)} runs, none to its end"
        )
    further = 0
    held = sorted(trouble.received.get((call.id, attempt), ()))
    for run, again in pairwise(runs):
        excuse = _excuse(run, again, trouble)
        if excuse is None and _restored_by_time(run, again, held):
            excuse = "Celery held it for longer than the visibility timeout"
        if excuse is None and copies > 0:
            excuse, copies = "sent more than once", copies - 1
        if excuse is None:
            verdict.duplicates.append(f"{call.task}[{call.id}] attempt {attempt + 1}: {run} and {again}")
        else:
            verdict.excused[excuse] += 1
            further += 1
    return further


def _excuse(run: Run, again: Run, trouble: Trouble) -> str | None:
    settled = (run.end or again.begin) + SETTLING
    if run.pid in trouble.deaths:
        at, known = trouble.deaths[run.pid]
        if run.begin <= known and at <= again.begin and (run.end is None or at <= settled):
            return "its worker was gone"
    if any(begin <= settled and run.begin <= end for begin, end in trouble.outages):
        return "the server was down"
    return None


def _restored_by_time(run: Run, again: Run, held: list[float]) -> bool:
    """Whether one of them came of a message that Celery had not acknowledged in time; each that it held restores one.

    Celery keeps to no lease: what it has for that long is restored, by Celery or by celeriac, and marked.
    """
    for since in held:
        if any(
            one.redelivered and one.begin >= since + VISIBILITY_TIMEOUT - SETTLING for one in (run, again)
        ):
            held.remove(since)
            return True
    return False
