"""10,000 tasks that each wait for a second, all at once in one process."""

import time

from bench.ground import Ground
from bench.plan import Plan
from bench.rows import Row, at_most
from bench.workers import celeriac


def measure(plan: Plan) -> list[Row]:
    """Seconds from the first message pushed to the last result stored, by a worker that is there already."""
    count = plan.sizes.naps
    with Ground(plan.molds) as ground:
        runs = plan.in_turns("nap", {"celeriac": lambda: nap(ground, count)})["celeriac"]
    return [
        Row(f"{count:,} tasks that sleep 1 s", "s", [seconds for seconds, _ in runs], goal=at_most(4)),
        Row(
            f"{count:,} tasks that sleep 1 s: memory",
            "MB",
            [memory for _, memory in runs],
            goal=at_most(250),
        ),
    ]


def nap(ground: Ground, count: int) -> tuple[float, float]:
    """Return the seconds, and the most megabytes that were resident."""
    ground.clear()
    ids, messages = ground.cast("bench.tasks.nap", [1], count)
    with celeriac("-c", str(count)).running(ground.env) as worker:
        ground.warm_up(worker)
        start = time.perf_counter()
        ground.push(messages)
        seconds = ground.wait_for(worker, count + 1) - start
        memory = worker.peak_memory()
        ground.check(worker, ids, None)
    return seconds, memory
