"""Sends with Celery: ``python -m bench.clients.celery delay 10000``."""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from celery import chain, chord

from bench.celery_tasks import add, app, count_values

WARM_UP = 200


def original(name: str, args: str) -> None:
    """Send one message, for the bench to make many of."""
    app.send_task(name, json.loads(args))


def delay(count: int) -> dict[str, Any]:
    """Send one after the other."""
    for _ in range(WARM_UP):
        add.delay(2, 3)
    start = time.perf_counter()
    for _ in range(count):
        add.delay(2, 3)
    return {"sent": WARM_UP + count, "rate": count / (time.perf_counter() - start)}


def delay_confirmed(count: int) -> dict[str, Any]:
    """The same, each when RabbitMQ has confirmed the one before."""
    app.conf.broker_transport_options = {"confirm_publish": True}
    return delay(count)


def roundtrip(count: int) -> dict[str, Any]:
    """Send and wait for the value, one after the other."""
    times = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter()
        assert add.delay(2, 3).get(timeout=10) == 5
        times.append(time.perf_counter() - start)
    return {"seconds": times[WARM_UP:]}


def chord_of(count: int) -> dict[str, Any]:
    """Send a chord of no-ops and wait for the value of its body."""
    return timed(lambda: chord([add.s(2, 3) for _ in range(count)], count_values.s()), count)


def chain_of(count: int) -> dict[str, Any]:
    """Send a chain of no-ops and wait for the value of its last step."""
    return timed(lambda: chain(add.s(0, 1), *[add.s(1)] * (count - 1)), count)


def timed(make: Callable[[], Any], expected: int) -> dict[str, Any]:
    """Make, send and await a workflow, twice; the second time counts."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        assert make().apply_async().get(timeout=60) == expected
        seconds = time.perf_counter() - start
    return {"seconds": seconds}


COMMANDS: dict[str, Callable[..., Any]] = {
    "original": original,
    "delay": delay,
    "delay-confirmed": delay_confirmed,
    "roundtrip": roundtrip,
    "chord": chord_of,
    "chain": chain_of,
}


def main() -> None:
    """Run one of the above."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    original_parser = commands.add_parser("original")
    original_parser.add_argument("name")
    original_parser.add_argument("args")
    for name in ("delay", "delay-confirmed", "roundtrip", "chord", "chain"):
        commands.add_parser(name).add_argument("count", type=int)
    given = vars(parser.parse_args())
    print(json.dumps(COMMANDS[given.pop("command")](**given)))


if __name__ == "__main__":
    main()
