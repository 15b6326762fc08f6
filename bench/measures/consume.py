"""Tasks from a full queue, results stored: the rate between 5 % and all of the results, so start-up is left out."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bench.ground import Ground, Watch
from bench.plan import Plan
from bench.rows import Goal, Row, at_least_times
from bench.workers import CELERY, HAS_UVLOOP, Contender, Running, WorkerFailed, celeriac

LEFT_OUT = 0.05
POLL = 0.02
ASYNC, THREADS, ASYNCIO = "async tasks", "plain tasks in threads", "async tasks, no uvloop"
FEW_THREADS = "plain tasks in threads, -c 8"


@dataclass(frozen=True)
class Consumed:
    """One run.

    :param rate: tasks a second.
    :param cpu: microseconds of the worker's processes, a task.
    :param server_cpu: microseconds of the server, a task; 0 where that is not measured.
    """

    rate: float
    cpu: float
    server_cpu: float = 0.0


def measure(plan: Plan) -> list[Row]:
    """Async and plain tasks, beside Celery."""
    with Ground(plan.molds) as ground:
        sizes = plan.sizes
        turns = {
            "celery": partial(consume, ground, CELERY, "bench.tasks.add", sizes.consume_celery),
            ASYNC: partial(consume, ground, celeriac(), "bench.tasks.add", sizes.consume),
            THREADS: partial(consume, ground, celeriac(), "bench.tasks.add_plain", sizes.consume_plain),
            FEW_THREADS: partial(
                consume, ground, celeriac("-c", "8"), "bench.tasks.add_plain", sizes.consume_plain
            ),
        }
        if HAS_UVLOOP:
            plain_loop = celeriac("--loop", "asyncio")
            turns[ASYNCIO] = partial(consume, ground, plain_loop, "bench.tasks.add", sizes.consume)
        runs = plan.in_turns("consume", turns)
    celery = runs.pop("celery")
    goals = {ASYNC: at_least_times(32), THREADS: at_least_times(10), FEW_THREADS: at_least_times(11)}
    rates = [rate_row(name, ours, celery, goals.get(name)) for name, ours in runs.items()]
    return rates + [cpu_row(name, ours, celery) for name, ours in runs.items()]


def consume(ground: Ground, contender: Contender, task: str, count: int) -> Consumed:
    """Fill the queue, start the worker, measure, check, stop."""
    ground.clear()
    ids = ground.fill(task, [2, 3], count)
    with contender.running(ground.env) as worker:
        consumed = watch(ground, worker, count, ground.cpu_seconds)
        ground.check(worker, ids, 5)
    return consumed


class Results(Protocol):
    """Where results are to appear."""

    def done(self) -> int:
        """How many there are."""
        ...


def watch(
    ground: Results, worker: Running, count: int, server_seconds: Callable[[], float] = lambda: 0.0
) -> Consumed:
    """Measure a worker that is starting on a full queue; ``server_seconds`` tells what the server used so far."""
    keeps_going = Watch(worker)
    while (first := ground.done()) < count * LEFT_OUT:
        keeps_going.saw(first)
        time.sleep(POLL)
    start, cpu, server = time.perf_counter(), worker.cpu_seconds(), server_seconds()
    while (done := ground.done()) < count:
        keeps_going.saw(done)
        time.sleep(POLL)
    seconds, cpu = time.perf_counter() - start, worker.cpu_seconds() - cpu
    server = server_seconds() - server
    if seconds < 10 * POLL:
        raise WorkerFailed(f"{count} tasks are too few to time: they took {seconds:.3f} s")
    tasks = count - first
    return Consumed(tasks / seconds, cpu / tasks * 1e6, server / tasks * 1e6)


def rate_row(name: str, ours: list[Consumed], celery: list[Consumed], goal: Goal | None) -> Row:
    """Tasks a second."""
    return Row(f"consume: {name}", "tasks/s", [run.rate for run in ours], [run.rate for run in celery], goal)


def cpu_row(name: str, ours: list[Consumed], celery: list[Consumed]) -> Row:
    """What a task costs the worker."""
    values, theirs = [run.cpu for run in ours], [run.cpu for run in celery]
    return Row(f"worker CPU a task: {name}", "µs", values, theirs, less_is_better=True)
