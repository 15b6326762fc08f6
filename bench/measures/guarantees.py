"""What it costs that no task is lost and none is run twice: the rate with and without, as one number."""

from functools import partial

from bench.ground import Ground
from bench.measures.consume import consume
from bench.plan import Plan
from bench.rows import Row, at_most
from bench.workers import celeriac, unguarded


def measure(plan: Plan) -> list[Row]:
    """By how much the consume rate of no-op coroutines is lower with it.

    The least disturbed turns are compared: the machine's drift within a round is larger than what is to be measured.
    """
    with Ground(plan.molds) as ground:
        count = plan.sizes.consume // 2
        off = partial(consume, ground, unguarded(), "bench.tasks.add", count)
        on = partial(consume, ground, celeriac(), "bench.tasks.add", count)
        turns = {"off": off, "on": on, "off again": off, "on again": on}
        runs = plan.in_turns("guarantees", turns)
    without = [run.rate for run in runs["off"] + runs["off again"]]
    with_it = [run.rate for run in runs["on"] + runs["on again"]]
    return [
        Row(
            "leases, parking, revocations: consume rate",
            "% less",
            [100 * (1 - max(with_it) / max(without))],
            goal=at_most(15),
            details={"with": with_it, "without": without},
        )
    ]
