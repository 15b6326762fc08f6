"""Send a task and wait for its value, one after the other, on a system that does nothing else."""

import json
from contextlib import ExitStack
from functools import partial
from statistics import quantiles

from bench.ground import Ground, standing
from bench.plan import Plan
from bench.rows import Row, at_least_times
from bench.workers import CELERY, celeriac, run_client


def measure(plan: Plan) -> list[Row]:
    """The median and the 99th percentile, beside Celery's."""
    count = plan.sizes.roundtrips
    with ExitStack() as stack:
        turns = {
            module: partial(
                roundtrips, stack.enter_context(standing(plan.molds, contender))[0], module, count
            )
            for module, contender in {"celery": CELERY, "celeriac": celeriac()}.items()
        }
        runs = plan.in_turns("round trip", turns)
    return [
        Row(
            f"send and get, {name}",
            "ms",
            [percentile(times, percent) for times in runs["celeriac"]],
            [percentile(times, percent) for times in runs["celery"]],
            goal,
            less_is_better=True,
        )
        for name, percent, goal in (("p50", 50, at_least_times(4)), ("p99", 99, None))
    ]


def roundtrips(ground: Ground, module: str, count: int) -> list[float]:
    """Milliseconds of each."""
    told = json.loads(run_client(module, "roundtrip", count, env=ground.env))
    return [seconds * 1000 for seconds in told["seconds"]]


def percentile(times: list[float], percent: int) -> float:
    """The value that this many percent stay under."""
    return quantiles(times, n=100, method="inclusive")[percent - 1]
