"""One chaos run, from the start of the servers to the verdict."""

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tests.chaos.fleet import Fleet
from tests.chaos.ledger import count_ends, read, receipts
from tests.chaos.mischief import Mischief
from tests.chaos.plan import QUEUE, VISIBILITY_TIMEOUT, Plan, PlannedCall, calls_of
from tests.chaos.sender import Sender
from tests.chaos.verdict import Trouble, Verdict, judge
from tests.servers import RedisServer

STALLED = VISIBILITY_TIMEOUT + 10
"""Seconds without a run after which what is missing is lost."""

EXPIRING_KEYS = ("celery-task-meta-", "celeriac.once.")
KNOWN_KEYS = ("_kombu.binding", "celeriac.revoked", "unacked_mutex", *EXPIRING_KEYS)
NO_END = -1
"""What Redis answers for the seconds that a key has left; -2 is for one that has just ended."""


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


async def run(plan: Plan) -> Report:
    """Send the calls, make trouble, wait until all have run, look at what is left."""
    began = time.monotonic()
    calls = calls_of(plan)
    with (
        tempfile.TemporaryDirectory(prefix="chaos-") as folder,
        RedisServer(durable=True, arguments=["--enable-debug-command", "local"]) as server,
    ):
        ledger = Path(folder)
        fleet = Fleet(server.url(), ledger, plan.celeriac, plan.celery)
        mischief = Mischief(plan.seed, server, fleet, plan.restarts)
        sender = Sender(server.url(), plan)
        try:
            await fleet.start()
            await asyncio.gather(sender.send(calls), mischief.make(plan.seconds))
            await _all_done(ledger, sum(call.attempts for call in calls), server)
            await fleet.stop()
        finally:
            fleet.abandon()
        runs = list(read(ledger))
        trouble = Trouble(fleet.deaths, mischief.outages, sender.uncertain, receipts(ledger))
        return Report(
            plan,
            judge(calls, runs, trouble),
            mischief.done,
            sum(entry.pid not in fleet.pids for entry in runs),
            [
                *_left(server),
                *_results(server, calls, {(r.task_id, r.retries): r.pid in fleet.pids for r in runs}),
            ],
            [*fleet.complaints, *fleet.tracebacks()],
            time.monotonic() - began,
        )


async def _all_done(ledger: Path, expected: int, server: RedisServer) -> None:
    """Return when every run that is due has ended and the broker holds nothing, or when nothing goes on any more."""
    seen, since = -1, time.monotonic()
    while time.monotonic() < since + STALLED:
        ends = await asyncio.to_thread(count_ends, ledger)
        if ends >= expected and not _counts(server).keys() - {"dead"}:
            return
        if ends != seen:
            seen, since = ends, time.monotonic()
        await asyncio.sleep(0.2)


def _counts(server: RedisServer) -> dict[str, int]:
    with closing(server.client()) as client:
        lists = [key for key in client.keys(f"{QUEUE}*") if client.type(key) == b"list"]
        counts = {
            "waiting": sum(client.llen(key) for key in lists),
            "unacked": client.hlen("unacked"),
            "unacked_index": client.zcard("unacked_index"),
            "leases": client.zcard("celeriac.leases"),
            "due": client.zcard("celeriac.due"),
            "dead": client.hlen("celeriac.dead"),
        }
    return {name: count for name, count in counts.items() if count}


def _left(server: RedisServer) -> Iterator[str]:
    """Every message, and every key, that should not be there any more."""
    for name, count in _counts(server).items():
        yield f"left in the broker: {count} {name}"
    with closing(server.client()) as client:
        for letter in client.hvals("celeriac.dead"):
            yield f"dead: {letter.decode(errors='replace')}"
        for key in client.scan_iter(count=1000):
            name = key.decode()
            if not name.startswith(KNOWN_KEYS):
                yield f"left in the broker: key {name}"
            elif name.startswith(EXPIRING_KEYS) and client.ttl(key) == NO_END:
                yield f"left in the broker: {name} has no end"


def _results(
    server: RedisServer, calls: Sequence[PlannedCall], ours: Mapping[tuple[str, int], bool]
) -> Iterator[str]:
    """Every call whose caller would not see that it succeeded.

    Celery publishes a retry before it stores RETRY, and may so store it after the retry has succeeded elsewhere.
    """
    with closing(server.client()) as client:
        for start in range(0, len(calls), 1000):
            part = calls[start : start + 1000]
            found = client.mget([f"celery-task-meta-{call.id}" for call in part])
            for call, meta in zip(part, found, strict=True):
                status = msgspec.json.decode(meta)["status"] if meta else "missing"
                if status != "SUCCESS" and (status != "RETRY" or ours[call.id, 0]):
                    yield f"result of {call.task}[{call.id}]: {status}"
