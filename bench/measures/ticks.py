"""Periodic tasks: what a process costs that waits, starts or ticks, and how late a message is."""

import json
import sys
import time
from functools import partial
from typing import Any

from bench.ground import Ground
from bench.measures.idle import Stretch
from bench.measures.roundtrip import percentile
from bench.plan import Plan, tell
from bench.rows import Row, at_most
from bench.workers import Contender, run_client

SETTLING = 8.0
"""Seconds in which a process that ticks is done with its start."""

ENTRIES, AT_ONCE = 10_000, 1000

BEAT = Contender(
    "celeriac beat",
    (sys.executable, "-m", "celeriac", "-A", "bench.periodic", "beat", "-l", "warning"),
)


def measure(plan: Plan) -> list[Row]:
    """Rows for each of the numbers that periodic tasks are to keep to."""
    with Ground(plan.molds) as ground:
        runs = plan.in_turns(
            "periodic tasks",
            {
                "start": partial(run, ground, "start", ENTRIES),
                "due": partial(run, ground, "due", AT_ONCE),
                "steady": partial(run, ground, "steady", plan.sizes.ticks),
                "crontabs": partial(run, ground, "crontabs", 2000),
            },
        )
        idled, seconds = idle(plan, ground)
    slowest = [max(told["microseconds"].items(), key=lambda item: item[1]) for told in runs["crontabs"]]
    return [
        Row(
            "ticks: idle, CPU",
            "% of a core",
            [idled.cpu],
            goal=at_most(0.05),
            details={"commands": idled.commands, "seconds": seconds},
        ),
        Row("ticks: idle, requests", "requests/s", [idled.requests / seconds]),
        Row(
            f"ticks: start, {ENTRIES:,} entries",
            "s",
            [told["seconds"] for told in runs["start"]],
            goal=at_most(1),
            details={"cpu_seconds": [told["cpu_seconds"] for told in runs["start"]]},
        ),
        Row(
            f"ticks: {AT_ONCE:,} due at once, the last",
            "s",
            [max(told["late"]) for told in runs["due"]],
            goal=at_most(1),
        ),
        Row(
            "ticks: slot to queue, p99",
            "ms",
            [percentile([1000 * late for late in told["late"]], 99) for told in runs["steady"]],
            goal=at_most(20),
        ),
        Row(
            "ticks: next time of a crontab, the slowest",
            "us",
            [took for _, took in slowest],
            goal=at_most(50),
            details={"crontabs": [told["microseconds"] for told in runs["crontabs"]]},
        ),
    ]


def idle(plan: Plan, ground: Ground) -> Any:
    """Let a process wait that has a hundred entries of once a day."""
    tell(f"periodic tasks: idle for {plan.sizes.idle:.0f} s")
    ground.clear()
    with BEAT.running(ground.env) as process:
        time.sleep(SETTLING)
        stretch = Stretch(ground, process)
        time.sleep(plan.sizes.idle)
        return stretch.end()


def run(ground: Ground, command: str, count: int) -> dict[str, Any]:
    """Run the client on an empty server; return what it measured."""
    ground.clear()
    told: dict[str, Any] = json.loads(run_client("ticks", command, count, env=ground.env))
    return told
