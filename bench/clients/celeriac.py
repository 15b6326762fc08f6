"""Sends with celeriac: ``python -m bench.clients.celeriac send-many 10000``."""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Callable
from typing import Any

import asyncpg

import redis
from bench.commands import commands_of
from bench.tasks import add, add_silent, app, count_values, nap
from celeriac import Node, chain, chord

WARM_UP = 200


async def send_many(count: int) -> dict[str, Any]:
    """Make the calls and send them at once; count the commands that this takes of a Redis, connections being there."""
    await warm_up()
    url = os.environ["CELERY_BROKER_URL"]
    if not url.startswith("redis"):
        return {"sent": WARM_UP + count, "rate": count / await _seconds_of_sending(count)}
    with redis.Redis.from_url(url) as observer:
        before = commands_of(observer)
        seconds = await _seconds_of_sending(count)
        commands = commands_of(observer) - before
    return {"sent": WARM_UP + count, "rate": count / seconds, "commands": commands}


async def _seconds_of_sending(count: int) -> float:
    start = time.perf_counter()
    await app.send_many([add.call(2, 3) for _ in range(count)])
    return time.perf_counter() - start


async def send(count: int, at_once: int) -> dict[str, Any]:
    """Send from as many coroutines as ``at_once`` says, each one after the other."""

    async def sender() -> None:
        for _ in range(count // at_once):
            await add.send(2, 3)

    await warm_up()
    start = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(at_once)))
    sent = count // at_once * at_once
    return {"sent": WARM_UP + sent, "rate": sent / (time.perf_counter() - start)}


async def roundtrip(count: int) -> dict[str, Any]:
    """Send and wait for the value, one after the other."""
    times = []
    for _ in range(WARM_UP + count):
        start = time.perf_counter()
        result = await add.send(2, 3)
        assert await result.wait(timeout=10) == 5
        times.append(time.perf_counter() - start)
    return {"seconds": times[WARM_UP:]}


async def transactional(count: int) -> dict[str, Any]:
    """Send in a transaction of one's own, and wait for the value; the times begin at the commit."""
    connection: Any = await asyncpg.connect(os.environ["BENCH_POSTGRES"])
    times = []
    for _ in range(WARM_UP + count):
        transaction = connection.transaction()
        await transaction.start()
        result = await app.using(connection).send(add, 2, 3)
        start = time.perf_counter()
        await transaction.commit()
        assert await result.wait(timeout=10) == 5
        times.append(time.perf_counter() - start)
    await connection.close()
    return {"seconds": times[WARM_UP:]}


async def chord_of(count: int) -> dict[str, Any]:
    """Send a chord of no-ops and wait for the value of its body."""
    return await timed(lambda: chord([add.s(2, 3) for _ in range(count)], count_values.s()), count)


async def chain_of(count: int) -> dict[str, Any]:
    """Send a chain of no-ops and wait for the value of its last step."""
    return await timed(lambda: chain(add.s(0, 1), *[add.s(1)] * (count - 1)), count)


async def timed(make: Callable[[], Node[int]], expected: int) -> dict[str, Any]:
    """Make, send and await a workflow, twice; the second time counts."""
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        result = await make().send()
        assert await result.wait(timeout=60) == expected
        seconds = time.perf_counter() - start
    return {"seconds": seconds}


async def fill(count: int) -> dict[str, Any]:
    """Send calls for a worker that is yet to come; tell their ids."""
    results = await app.send_many([add.call(2, 3) for _ in range(count)])
    return {"ids": [result.id for result in results]}


async def fill_silent(count: int) -> dict[str, Any]:
    """The same with calls whose results nobody wants."""
    await app.send_many([add_silent.call(2, 3) for _ in range(count)])
    return {}


async def occupy(count: int) -> dict[str, Any]:
    """Send calls that keep a worker's slots for longer than a measurement takes; return when one has begun."""
    results = await app.send_many([nap.call(600.0) for _ in range(count)])
    while await app.connections().broker.depth("celery") == count:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    return {"ids": [result.id for result in results]}


async def warm_up() -> None:
    """Connect, and run every line once."""
    for _ in range(WARM_UP):
        await add.send(2, 3)


COMMANDS: dict[str, Callable[..., Any]] = {
    "send-many": send_many,
    "send": send,
    "roundtrip": roundtrip,
    "transactional": transactional,
    "fill": fill,
    "fill-silent": fill_silent,
    "occupy": occupy,
    "chord": chord_of,
    "chain": chain_of,
}


def main() -> None:
    """Run one of the above."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        commands.add_parser(name).add_argument("count", type=int)
    commands.choices["send"].add_argument("at_once", type=int)
    given = vars(parser.parse_args())
    print(json.dumps(asyncio.run(COMMANDS[given.pop("command")](**given))))


if __name__ == "__main__":
    main()
