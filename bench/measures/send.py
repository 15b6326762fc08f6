"""Sending: many at once, and 50 at a time, beside Celery's ``delay`` in a loop."""

import json
from functools import partial
from typing import Any

from bench.ground import Ground
from bench.plan import Plan
from bench.rows import Row, at_least_times, at_most
from bench.workers import run_client

AT_ONCE = 50


def measure(plan: Plan) -> list[Row]:
    """Rates, and the commands that ``send_many`` takes: there cannot be more round trips than commands."""
    sizes = plan.sizes
    with Ground(plan.molds) as ground:
        turns = {
            "Celery delay": partial(sending, ground, "celery", "delay", sizes.delay),
            "send_many": partial(sending, ground, "celeriac", "send-many", sizes.send_many),
            f"send, {AT_ONCE} at a time": partial(sending, ground, "celeriac", "send", sizes.send, AT_ONCE),
        }
        celery, many, some = plan.in_turns("send", turns).values()
    delays = [run["rate"] for run in celery]
    commands = [sum(run["commands"].values()) for run in many]
    return [
        Row(f"send_many of {sizes.send_many:,}", "messages/s", _rates(many), delays, at_least_times(20)),
        Row(
            f"send_many of {sizes.send_many:,}: commands",
            "commands",
            commands,
            goal=at_most(10),
            less_is_better=True,
            details={"commands": many[-1]["commands"]},
        ),
        Row(f"send, {AT_ONCE} at a time", "messages/s", _rates(some), delays, at_least_times(8)),
    ]


def sending(ground: Ground, module: str, *arguments: object) -> dict[str, Any]:
    """Let a client send into an empty queue; check that everything is there."""
    ground.clear()
    told: dict[str, Any] = json.loads(run_client(module, *arguments, env=ground.env))
    ground.check_sent(told["sent"])
    return told


def _rates(runs: list[dict[str, Any]]) -> list[float]:
    return [run["rate"] for run in runs]
