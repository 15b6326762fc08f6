"""How soon a fleet is seen: by who asks three workers, by the command line, by a probe under full load."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from bench.ground import Ground
from bench.measures.roundtrip import percentile
from bench.plan import Plan
from bench.rows import Row, at_most
from bench.workers import ROOT, WorkerFailed, celeriac
from celeriac import Celeriac
from celeriac_probe import fetch

NODES = ("one@bench", "two@bench", "three@bench")
ASKED, STARTS, PROBED = 30, 10, 150
"""How often the workers are asked, a command is started and a worker is probed in each round."""

INSIDE = {"publish", "sismember", "sadd", "srem", "lpush", "pexpire", "zadd", "zrem", "del", "exists", "time"}
"""Commands that only the scripts run, within one of the commands that are counted; heartbeats are such, too."""

START = 60.0
"""Seconds that a worker has to begin."""

COMMAND = Path(sys.executable).with_name("celeriac")


def measure(plan: Plan) -> list[Row]:
    """The workers are idle while they are asked, and take from a full queue while one is probed."""
    with Ground(plan.molds) as ground, ExitStack() as stack:
        for node in NODES:
            stack.enter_context(celeriac("-n", node).running(ground.env))
        _wait_for(lambda: len(asyncio.run(_ask(ground))[1]) == len(NODES))
        turns = {
            "inspect ping": partial(_asked, ground),
            "--version": partial(_started, "--version"),
            "status": partial(_started, "-b", ground.env["CELERY_BROKER_URL"], "status"),
        }
        runs = plan.in_turns("seen", turns)
    with Ground(plan.molds) as ground:
        probed = plan.in_turns("seen", {"/livez": partial(_probed, ground, plan.sizes.consume)})["/livez"]
    pings = runs["inspect ping"]
    return [
        Row("inspect ping, 3 nodes", "ms", [ms for ms, _ in pings], goal=at_most(20)),
        Row("inspect ping, 3 nodes: commands", "commands", [count for _, count in pings], goal=at_most(8)),
        Row("celeriac --version", "ms", runs["--version"], goal=at_most(200)),
        Row("celeriac status", "ms", runs["status"], goal=at_most(200)),
        Row(
            "/livez under full load, p50", "ms", [percentile(times, 50) for times in probed], goal=at_most(5)
        ),
        Row("/livez under full load, p99", "ms", [percentile(times, 99) for times in probed]),
    ]


async def _ask(ground: Ground) -> tuple[float, list[str]]:
    """Ask who lives, over a new connection; return the milliseconds until the last answer, and the names."""
    async with Celeriac("asking", ground.env["CELERY_BROKER_URL"]) as app:
        began = time.perf_counter()
        answers = (await app.control.ask("ping")).by_node
        return 1000 * (time.perf_counter() - began), list(answers)


def _asked(ground: Ground) -> tuple[float, float]:
    """Milliseconds until all have answered, and commands to the server, theirs included; of many the median."""
    times, counts = [], []
    for _ in range(ASKED):
        before = ground.commands()
        took, names = asyncio.run(_ask(ground))
        ran = ground.commands() - before
        counts.append(sum(count for name, count in ran.items() if name not in INSIDE))
        times.append(took)
        if len(names) != len(NODES):
            raise WorkerFailed(f"of {NODES} only {names} answered")
    return median(times), median(counts)


def _started(*arguments: str) -> float:
    """Milliseconds from the start of the command to its end; of many the median.

    Its modules are kept compiled, as those of every program that is installed: else all are compiled at each start.
    """
    times = []
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for _ in range(STARTS):
        began = time.perf_counter()
        subprocess.run([COMMAND, *arguments], cwd=ROOT, env=compiled, check=True, stdout=subprocess.DEVNULL)
        times.append(1000 * (time.perf_counter() - began))
    return median(times)


def _probed(ground: Ground, count: int) -> list[float]:
    """Milliseconds of each answer while the worker takes from a full queue."""
    ground.clear()
    ids = ground.fill("bench.tasks.add", [2, 3], count)
    path = f"/tmp/celeriac-bench-{os.getpid()}"
    times: list[float] = []
    with celeriac("--probe-socket", path).running(ground.env) as worker:
        _wait_for(lambda: ground.done() > 0)
        while len(times) < PROBED and ground.done() < count:
            began = time.perf_counter()
            status, _ = fetch(path, "/livez", START)
            times.append(1000 * (time.perf_counter() - began))
            if status != 200:
                raise worker.failure(f"answered the probe with {status}")
            time.sleep(0.003)
        _wait_for(lambda: ground.done() >= count)
        ground.check(worker, ids, 5)
    return times


def _wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + START
    while not holds():
        if time.monotonic() > until:
            raise WorkerFailed("the workers did not begin")
        time.sleep(0.05)
