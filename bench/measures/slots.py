"""Consuming with few slots: how much of the rate with many is left, and what a task costs the server then."""

from functools import partial

from bench.ground import Ground
from bench.measures.consume import consume
from bench.plan import Plan
from bench.rows import Row, at_least, at_most
from bench.workers import celeriac

MANY = 100
PARTS = {1: 0.6, 8: 0.8}
"""Slots, and the part of the rate with ``MANY`` that is to be left with them."""
SERVER_TIMES = 1.1


def measure(plan: Plan) -> list[Row]:
    """No-op coroutines, results stored."""
    counts = {1: plan.sizes.consume // 2, 8: plan.sizes.consume, MANY: plan.sizes.consume}
    with Ground(plan.molds) as ground:
        turns = {
            f"-c {slots}": partial(consume, ground, celeriac("-c", str(slots)), "bench.tasks.add", count)
            for slots, count in counts.items()
        }
        runs = plan.in_turns("slots", turns)
    many = runs[f"-c {MANY}"]
    rows: list[Row] = []
    for slots in counts:
        ours = runs[f"-c {slots}"]
        rows.append(Row(f"consume: -c {slots}", "tasks/s", [run.rate for run in ours]))
        rows.append(
            Row(f"worker CPU a task: -c {slots}", "µs", [run.cpu for run in ours], less_is_better=True)
        )
        rows.append(
            Row(f"Redis CPU a task: -c {slots}", "µs", [run.server_cpu for run in ours], less_is_better=True)
        )
    for slots, part in PARTS.items():
        parts = [few.rate / all_.rate for few, all_ in zip(runs[f"-c {slots}"], many, strict=True)]
        rows.append(Row(f"rate at -c {slots}, part of -c {MANY}", "", parts, goal=at_least(part)))
    times = [few.server_cpu / all_.server_cpu for few, all_ in zip(runs["-c 8"], many, strict=True)]
    rows.append(
        Row(
            f"Redis CPU at -c 8, times that at -c {MANY}",
            "",
            times,
            goal=at_most(SERVER_TIMES),
            less_is_better=True,
        )
    )
    return rows
