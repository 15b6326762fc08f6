"""What PostgreSQL must stand, one fault at a time: ``python -m tests.chaos --broker postgres --trial all``.

Rules: nothing is excused but what a worker was doing when it was killed, and a call whose sender got no answer. What is
measured is compared with a bound in the trial itself.
"""

import asyncio
import os
import pwd
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from celeriac.contracts.broker import Subscription
from celeriac.servers.postgres.broker import PostgresBroker
from celeriac.servers.postgres.connections import Connections
from celeriac.servers.postgres.url import parse_postgres_url
from tests.chaos.ledger import Run, read
from tests.chaos.places import PostgresPlace
from tests.chaos.plan import Plan
from tests.chaos.run import Report, Scene
from tests.chaos.verdict import Verdict
from tests.servers import PostgresServer

AGAIN = 3.0
"""Seconds within which a killed worker's tasks run again, and workers go on once the server is back."""

PATIENCE = 60.0
DISK = "192m"
FULL_FOR = 5.0
TAKE = 0.05
"""Seconds that 99 of 100 takes need at most while an old transaction is open."""


@dataclass(frozen=True)
class Sizes:
    """How much of each.

    :param tasks: calls in each trial.
    :param seconds: for which they are sent, and there is trouble.
    :param kills: how many workers are killed one after the other.
    :param suspended: seconds that a worker is stopped.
    :param passing: messages that pass under an old transaction, in tenths of which the first and last are compared.
    """

    tasks: int = 6000
    seconds: float = 30.0
    kills: int = 12
    suspended: float = 60.0
    restarts: int = 3
    passing: int = 1_000_000


FULL = Sizes()
SMALL = Sizes(tasks=400, seconds=4.0, kills=2, suspended=5.0, restarts=1, passing=20_000)


async def kills(sizes: Sizes) -> Report:
    """Workers are killed one after the other: each one's tasks run again soon."""
    with scene(sizes) as it:

        async def trouble() -> None:
            for _ in range(sizes.kills):
                await asyncio.sleep(sizes.seconds / sizes.kills)
                await it.fleet.kill_one(random.Random(sizes.kills))

        report = await it.play(trouble())
        late = ran_again_late(list(read(it.ledger)), it.fleet.deaths)
        return replace(report, complaints=[*report.complaints, *late])


async def suspension(sizes: Sizes) -> Report:
    """A worker is stopped for a while, and lives: nothing of what it holds runs elsewhere."""
    with scene(replace(sizes, seconds=sizes.suspended)) as it:
        return await it.play(it.fleet.suspend_one(random.Random(1), sizes.suspended))


async def restarts(sizes: Sizes) -> Report:
    """The server is restarted under load: workers go on soon after it is back."""
    return await _restarted(sizes, PostgresServer.restart)


async def crashes(sizes: Sizes) -> Report:
    """The same, with a server that ends at once, as in a crash, and recovers from its log."""
    return await _restarted(sizes, PostgresServer.crash)


async def _restarted(sizes: Sizes, restart: Callable[[PostgresServer], None]) -> Report:
    with scene(sizes) as it:
        back: list[float] = []

        async def trouble() -> None:
            for _ in range(sizes.restarts):
                await asyncio.sleep(sizes.seconds / (sizes.restarts + 1))
                await asyncio.to_thread(restart, _place_of(it).server)
                back.append(time.monotonic())

        report = await it.play(trouble())
        begins = sorted(run.begin for run in read(it.ledger))
        pauses = [next((begin - moment for begin in begins if begin > moment), PATIENCE) for moment in back]
        slow = [f"workers went on {pause:.1f} s after a restart" for pause in pauses if pause > AGAIN]
        return replace(report, complaints=[*report.complaints, *slow])


async def terminations(sizes: Sizes) -> Report:
    """Every connection is terminated once a second."""
    with scene(sizes) as it:

        async def trouble() -> None:
            for _ in range(round(sizes.seconds)):
                await asyncio.sleep(1.0)
                await asyncio.to_thread(_place_of(it).cut_all)

        return await it.play(trouble())


async def full_disk(sizes: Sizes) -> Report:
    """The disk is full for a while; the server may end by that, and is started again."""
    with small_disk() as disk, scene(sizes, PostgresServer(durable=True, directory=disk)) as it:
        server = _place_of(it).server
        noticed: list[bool] = []

        async def trouble() -> None:
            await asyncio.sleep(sizes.seconds / 3)
            ballast = disk / "ballast"
            await asyncio.to_thread(_fill, ballast)
            await asyncio.sleep(FULL_FOR)
            noticed.append("No space left on device" in server.process.output)
            ballast.unlink()
            await asyncio.sleep(1.0)
            if not server.process.running:
                await asyncio.to_thread(server.start)

        report = await it.play(trouble())
        unnoticed = [] if any(noticed) else ["the server did not notice that its disk was full"]
        return replace(report, complaints=[*report.complaints, *unnoticed])


async def old_transaction(sizes: Sizes) -> Report:
    """A snapshot is held while many messages pass: what is dead cannot be vacuumed, and takes stay quick."""
    with PostgresServer(durable=True) as server:
        broker = PostgresBroker(Connections(parse_postgres_url(server.url()), "test", 20.0))
        await broker.ping()
        rates: list[float] = []
        takes: list[float] = []
        with server.client() as old, server.client() as other:
            old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM celeriac_message")
            async with broker.subscribe(["old"]) as subscription:
                subscription.prefetch = 100
                tenth = sizes.passing // 10
                for _ in range(10):
                    other.execute(
                        "INSERT INTO celeriac_message (queue, priority, frame)"
                        " SELECT 'old', 0, repeat('x', 900)::bytea FROM generate_series(1, %s)",
                        (tenth,),
                    )
                    rates.append(await _drain(subscription, tenth, takes))
            old.execute("ROLLBACK")
        await broker.close()
    print("messages a second, by tenths: " + ", ".join(f"{rate:,.0f}" for rate in rates))
    takes.sort()
    slowest = takes[int(len(takes) * 0.99)]
    print(f"99 of 100 takes need at most {1000 * slowest:.1f} ms")
    problems = []
    if rates[-1] < rates[0] / 2:
        problems.append(f"the last tenth passed at {rates[-1]:,.0f}/s, the first at {rates[0]:,.0f}/s")
    if slowest > TAKE:
        problems.append(f"one take in a hundred needs {1000 * slowest:.0f} ms or more")
    plan = Plan(seed=1, tasks=sizes.passing, seconds=0)
    return Report(plan, Verdict(), Counter(), 0, [], problems, sizes.passing / rates[-1])


TRIALS: Mapping[str, Callable[[Sizes], Awaitable[Report]]] = {
    "kills": kills,
    "suspension": suspension,
    "restarts": restarts,
    "crashes": crashes,
    "terminations": terminations,
    "full-disk": full_disk,
    "old-transaction": old_transaction,
}


@contextmanager
def scene(sizes: Sizes, server: PostgresServer | None = None) -> Iterator[Scene]:
    """Have a PostgreSQL and what a run needs, with three workers."""
    plan = Plan(seed=1, tasks=sizes.tasks, seconds=sizes.seconds, celery=0)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, PostgresPlace(server) as place:
        yield Scene(plan, place, Path(folder))


@contextmanager
def small_disk() -> Iterator[Path]:
    """Have a directory on a file system of its own, which is soon full."""
    if os.geteuid() != 0:
        raise PermissionError("only root can make a small file system: run this trial as root")
    with tempfile.TemporaryDirectory(prefix="small-disk-") as folder:
        account = pwd.getpwnam("postgres")
        options = f"size={DISK},uid={account.pw_uid},gid={account.pw_gid},mode=0755"
        Path(folder).chmod(0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def _fill(ballast: Path) -> None:
    with suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"\0" * 65536)
            file.flush()


def _place_of(it: Scene) -> PostgresPlace:
    assert isinstance(it.place, PostgresPlace)
    return it.place


def ran_again_late(runs: Sequence[Run], deaths: Mapping[int, tuple[float, float]]) -> Iterator[str]:
    """Yield what a killed worker held that ran again too late; ``deaths`` as in ``tests.chaos.verdict.Trouble``."""
    begins: dict[tuple[str, int], list[float]] = {}
    for run in runs:
        begins.setdefault((run.task_id, run.retries), []).append(run.begin)
    for run in runs:
        died = deaths.get(run.pid)
        if run.end is None and died is not None:
            at, known = died
            later = [begin for begin in begins[run.task_id, run.retries] if begin > at]
            if later and min(later) - known > AGAIN:
                yield f"{run.task_id} ran again {min(later) - known:.1f} s after its worker was killed"


async def _drain(subscription: Subscription, count: int, takes: list[float]) -> float:
    began, taken = time.perf_counter(), 0
    while taken < count:
        asked = time.perf_counter()
        deliveries = await subscription.take(200)
        takes.append(time.perf_counter() - asked)
        taken += len(deliveries)
        await asyncio.gather(*[delivery.receipt.ack() for delivery in deliveries])
    return count / (time.perf_counter() - began)
