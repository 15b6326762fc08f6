"""Tasks that fork: their children are not the worker, and the worker goes on."""

import pytest

from celeriac import Celeriac
from tests.cli.project import Project

TASKS = """
import asyncio
import multiprocessing
import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from celeriac import Celeriac

app = Celeriac("shop")
fork = multiprocessing.get_context("fork")


def double(number: int) -> int:
    return 2 * number


def stay(begun) -> None:
    begun.set()
    while True:
        time.sleep(0.01)  # a longer one could begin between a signal and its handler, and last


def killed(number: int) -> int | None:
    begun = fork.Event()
    child = fork.Process(target=stay, args=(begun,))
    child.start()
    begun.wait(60)
    os.kill(child.pid, number)
    until = time.monotonic() + 60
    # Not `join`: another task's thread that starts a process may reap this one, and tell its code a moment later.
    while child.exitcode is None and time.monotonic() < until:
        time.sleep(0.01)
    return child.exitcode


@app.task(name="terminated")
def terminated() -> int:
    return killed(signal.SIGTERM)


@app.task(name="interrupted")
def interrupted() -> bool:
    return killed(signal.SIGINT) in (1, -signal.SIGINT)


@app.task(name="executor")
def executor() -> list:
    with ProcessPoolExecutor(2, mp_context=fork) as processes:
        return list(processes.map(double, [1, 2, 3]))


@app.task(name="executor_of_a_loop")
async def executor_of_a_loop() -> int:
    with ProcessPoolExecutor(1, mp_context=fork) as processes:
        return await asyncio.get_running_loop().run_in_executor(processes, double, 4)


@app.task(name="pool")
def pool() -> list:
    with fork.Pool(2) as processes:
        return processes.map(double, [1, 2, 3])


def code_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@app.task(name="child_leaves")
def child_leaves() -> int:
    child = os.fork()
    if child == 0:
        sys.exit(3)
    return code_of(child)


@app.task(name="child_returns")
def child_returns() -> int:
    child = os.fork()
    return code_of(child) if child else -1


@app.task(name="child_fails")
def child_fails() -> int:
    child = os.fork()
    if child == 0:
        raise ValueError("in the child")
    return code_of(child)


@app.task(name="coroutines_child_leaves")
async def coroutines_child_leaves() -> int:
    child = os.fork()
    if child == 0:
        sys.exit(4)
    return code_of(child)


@app.task(name="coroutines_child_returns")
async def coroutines_child_returns() -> int:
    child = os.fork()
    return code_of(child) if child else -1
"""

FORKING = {
    "terminated": -15,
    "interrupted": True,
    "executor": [2, 4, 6],
    "executor_of_a_loop": 8,
    "pool": [2, 4, 6],
    "child_leaves": 3,
    "child_returns": 0,
    "child_fails": 1,
    "coroutines_child_leaves": 4,
    "coroutines_child_returns": 0,
}
LEFT_OUT = {"threads": [], "processes": ["interrupted"]}
"""A process of the pool ignores Ctrl-C, and what it starts does."""


@pytest.mark.parametrize(("pool", "loop"), [("threads", "auto"), ("processes", "asyncio")])
async def test_it_neither_ends_nor_hangs(project: Project, pool: str, loop: str):
    project.write(TASKS)
    expected = {name: value for name, value in FORKING.items() if name not in LEFT_OUT[pool]}
    with project.worker("-c", "2", "-P", pool, "--loop", loop) as worker:
        async with Celeriac("client", project.url) as app:
            results = {name: await app.send_task(name) for name in expected}
            ended = {name: await result.wait(60) for name, result in results.items()}
        assert ended == expected
        assert worker.running
        assert worker.stop() == 0
        assert worker.output.count("ValueError: in the child") == 1
        assert "second signal" not in worker.output
