"""Says of every call whether it ran as often as it should have.

Rules: a run too many is excused only by what is on record: its worker died before it can have settled, the server was
down meanwhile, a Celery worker held the message for longer than the visibility timeout, RabbitMQ gave Celery what a
worker of ours that was cut off still held, or the sender could not know whether the call had arrived. Whatever else ran
twice is a fault of ours.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
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
    :param cuts: from when until when connections of ours were cut, where the server hands out again at once what they
        held: our workers tell each other what they still work on, and Celery's do not listen.
    :param ours: the process ids of all celeriac workers.
    """

    deaths: Mapping[int, tuple[float, float]]
    outages: Sequence[tuple[float, float]]
    uncertain: Mapping[str, int]
    received: Mapping[tuple[str, int], Sequence[float]]
    cuts: Sequence[tuple[float, float]] = ()
    ours: Collection[int] = ()


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
    if _was_given_to_celery(run, again, trouble):
        return "Celery was given what a worker that was cut off still held"
    return None


def _was_given_to_celery(run: Run, again: Run, trouble: Trouble) -> bool:
    held = [one for one in (run, again) if one.pid in trouble.ours]
    return len(held) == 1 and any(
        begin <= (held[0].end or held[0].begin) + SETTLING and held[0].begin - SETTLING <= end
        for begin, end in trouble.cuts
    )


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
