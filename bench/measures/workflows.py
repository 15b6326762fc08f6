"""Send a workflow and wait for its value: a chord of 1,000 no-ops, a chain of 100."""

import json
from contextlib import ExitStack
from functools import partial

from bench.ground import Ground, standing
from bench.plan import Plan
from bench.rows import Row, at_least_times
from bench.workers import CELERY, celeriac, run_client

CHORD, CHAIN = 1000, 100


def measure(plan: Plan) -> list[Row]:
    """Milliseconds from before it is made until its value is there, beside Celery's."""
    rows = []
    for shape, size, times in (("chord", CHORD, 10), ("chain", CHAIN, 3)):
        with ExitStack() as stack:
            turns = {
                module: partial(
                    duration, stack.enter_context(standing(plan.molds, contender))[0], module, shape, size
                )
                for module, contender in {"celery": CELERY, "celeriac": celeriac()}.items()
            }
            runs = plan.in_turns(f"{shape} of {size:,}", turns)
        rows.append(
            Row(
                f"{shape} of {size:,}, send to value",
                "ms",
                runs["celeriac"],
                runs["celery"],
                at_least_times(times),
                less_is_better=True,
            )
        )
    return rows


def duration(ground: Ground, module: str, shape: str, size: int) -> float:
    """Milliseconds."""
    told = json.loads(run_client(module, shape, size, env=ground.env))
    return float(told["seconds"]) * 1000
