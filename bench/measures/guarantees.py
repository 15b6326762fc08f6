"""What it costs that no task is lost and none is run twice: the rate with and without, as one number."""

from functools import partial

from bench.ground import Ground
from bench.measures.consume import consume
from bench.plan import Plan
from bench.rows import Row, at_most
from bench.workers import celeriac, unguarded


def measure(plan: Plan) -> list[Row]:
    """By how much the consume rate of no-op coroutines is lower with it."""
    with Ground(plan.molds) as ground:
        count = plan.sizes.consume // 2
        runs = plan.in_turns(
            "guarantees",
            {
                "off": partial(consume, ground, unguarded(), "bench.tasks.add", count),
                "on": partial(consume, ground, celeriac(), "bench.tasks.add", count),
            },
        )
    on, off = ([run.rate for run in runs[name]] for name in ("on", "off"))
    costs = [100 * (1 - ours / without) for ours, without in zip(on, off, strict=True)]
    return [
        Row(
            "leases, parking, revocations: consume rate",
            "% less",
            costs,
            goal=at_most(15),
            details={"with": on, "without": off},
        )
    ]
