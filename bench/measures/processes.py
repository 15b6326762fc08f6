"""Plain functions in child processes, beside Celery with as many: no-ops, and a millisecond of processor each."""

from functools import partial

from bench.ground import Ground
from bench.measures.consume import consume, cpu_row, rate_row
from bench.plan import Plan
from bench.rows import Row, at_least_times
from bench.workers import celeriac, celery

NOTHING, WORK = "bench.tasks.add_plain", "bench.tasks.spin"


def measure(plan: Plan) -> list[Row]:
    """Each in turns with Celery."""
    with Ground(plan.molds) as ground:
        sizes = plan.sizes
        contests = {
            "processes -c 2": (2, NOTHING, sizes.processes, sizes.consume_celery, 10),
            "processes -c 8": (8, NOTHING, sizes.processes, sizes.consume_celery, 10),
            "processes -c 2, 1 ms of processor a task": (
                2,
                WORK,
                sizes.processes_work,
                sizes.consume_celery,
                3,
            ),
        }
        turns = {}
        for name, (children, task, ours, theirs, _) in contests.items():
            turns[f"celery, {name}"] = partial(consume, ground, celery(children), task, theirs)
            worker = celeriac("-P", "processes", "-c", str(children))
            turns[name] = partial(consume, ground, worker, task, ours)
        runs = plan.in_turns("processes", turns)
    rows = []
    for name, (*_, times) in contests.items():
        ours, celerys = runs[name], runs[f"celery, {name}"]
        rows += [rate_row(name, ours, celerys, at_least_times(times)), cpu_row(name, ours, celerys)]
    return rows
