"""A Celery app as it is, by Celery's worker and by celeriac's: no-ops in processes and threads, and memory."""

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from bench.ground import Ground, standing
from bench.measures.consume import Consumed, consume, cpu_row, rate_row
from bench.plan import Plan
from bench.rows import Goal, Row, at_least_times
from bench.workers import Contender, of_celery_app

ADD = "bench.tasks.add"
CHILDREN, MEGABYTES = 4, 150
SETTLING = 3.0
"""Seconds after its first tasks in which a worker starts what it has not started yet."""

CONTESTS: Mapping[str, tuple[str, int, Mapping[str, str], Goal]] = {
    "processes -c 2": ("processes", 2, {}, at_least_times(4)),
    "threads -c 20": ("threads", 20, {}, at_least_times(6)),
    "threads -c 20, task_postrun": ("threads", 20, {"BENCH_POSTRUN": "yes"}, at_least_times(3)),
}
"""Pool, concurrency, variables and goal."""


def measure(plan: Plan) -> list[Row]:
    """Each in turns with Celery."""
    turns = {}
    with Ground(plan.molds) as ground:
        for name, (pool, slots, variables, _) in CONTESTS.items():
            theirs, ours = of_celery_app("celery", pool, slots), of_celery_app("celeriac", pool, slots)
            counts = plan.sizes.consume_celery, plan.sizes.processes
            turns[f"celery, {name}"] = partial(run, ground, theirs, variables, counts[0])
            turns[name] = partial(run, ground, ours, variables, counts[1])
        runs = plan.in_turns("celery-app", turns)
    rows = []
    for name, (*_, goal) in CONTESTS.items():
        ours, celerys = runs[name], runs[f"celery, {name}"]
        rate, cpu = rate_row(name, ours, celerys, goal), cpu_row(name, ours, celerys)
        rows += [
            replace(rate, name=f"Celery app: {name}"),
            replace(cpu, name=f"Celery app, CPU a task: {name}"),
        ]
    return rows + memory(plan)


def run(ground: Ground, contender: Contender, variables: Mapping[str, str], count: int) -> Consumed:
    """Fill the queue, start the worker with these variables, measure, check, stop."""
    before, ground.env = ground.env, {**ground.env, **variables}
    try:
        return consume(ground, contender, ADD, count)
    finally:
        ground.env = before


def memory(plan: Plan) -> list[Row]:
    """What the children that run tasks hold, and the whole tree, with an app that is large when it is imported."""
    contenders = {name: of_celery_app(name, "processes", CHILDREN) for name in ("celery", "celeriac")}
    found = plan.in_turns(
        "celery-app memory", {name: partial(held, plan, contender) for name, contender in contenders.items()}
    )
    rows = []
    for number, name in enumerate((f"{CHILDREN} children", "the whole tree")):
        ours, celerys = ([turn[number] for turn in found[side]] for side in ("celeriac", "celery"))
        goal = at_least_times(1) if number == 0 else None
        title = f"Celery app, {MEGABYTES} MB: memory, PSS, {name}"
        rows.append(Row(title, "MB", ours, celerys, goal, less_is_better=True))
    return rows


def held(plan: Plan, contender: Contender) -> tuple[float, float]:
    """Run some tasks in each child; return the megabytes of the children, and of all of the worker's processes."""
    with standing(plan.molds, contender, {"BENCH_MEGABYTES": str(MEGABYTES)}) as (ground, worker):
        before = ground.done()
        ground.fill(ADD, [2, 3], 200 * CHILDREN)
        ground.wait_for(worker, before + 200 * CHILDREN)
        time.sleep(SETTLING)
        return worker.memory_of_children(), worker.own_memory()
