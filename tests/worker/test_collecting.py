"""When a worker inside a program collects cyclic garbage, and that it leaves the program's own settings alone."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.worker.garbage import THRESHOLDS
from tests.worker import process_tasks

ROOT = Path(__file__).resolve().parents[2]
USUAL = (700, 10, 10)
WAIT = 60.0


@pytest.fixture(autouse=True)
def usual_thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


async def test_a_worker_sets_the_collector_while_it_runs():
    async with Celeriac("x", "memory://") as app:
        async with app.worker():
            assert gc.get_threshold() == THRESHOLDS
        assert gc.get_threshold() == USUAL


async def test_a_program_with_settings_of_its_own_keeps_them():
    gc.set_threshold(5000, 5, 5)
    async with Celeriac("x", "memory://") as app, app.worker():
        assert gc.get_threshold() == (5000, 5, 5)


async def test_what_the_program_sets_meanwhile_stays():
    async with Celeriac("x", "memory://") as app, app.worker():
        gc.set_threshold(5000, 5, 5)
    assert gc.get_threshold() == (5000, 5, 5)


async def test_the_collector_can_be_left_alone():
    async with Celeriac("x", "memory://") as app, app.worker(collect=False):
        assert gc.get_threshold() == USUAL


PROGRAM = """
import asyncio, logging, sys
from celeriac import Celeriac

logging.getLogger("celeriac.worker").setLevel(logging.CRITICAL + 1)
app = Celeriac("x", "memory://", "memory://")


@app.task
async def keeps_an_error() -> None:
    data = bytearray(10_000_000)
    try:
        raise ValueError(len(data))
    except ValueError as error:
        kept = error
    raise kept


class HoldsItself(Exception):
    pass


@app.task
def fails_with_a_cycle() -> None:
    error = HoldsItself()
    error.cycle = [error, bytearray(10_000_000)]
    raise error


async def main(name: str) -> None:
    async with app, app.worker(concurrency=1):
        results = [await app.tasks[f"__main__.{name}"].send() for _ in range(200)]
        for result in results:
            try:
                await result.wait(60)
            except Exception:
                pass
    # Not ru_maxrss, which begins with the memory of the process that this one was forked from.
    [peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak.split()[1]) // 1024)


asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_cycles_that_tasks_leave_in_a_child_process_do_not_add_up():
    app, most = process_tasks.app, 0
    async with app, app.worker(pool="processes", concurrency=1):
        for _ in range(6):
            for result in await app.send_many([process_tasks.leaves_a_cycle.call()] * 10):
                await result.wait(WAIT)
            most = max(most, await (await process_tasks.resident.send()).wait(WAIT))
    assert most < 300, "MiB"


@pytest.mark.parametrize("task", ["keeps_an_error", "fails_with_a_cycle"])
def test_failing_tasks_of_10_mb_stay_under_300_mb_in_a_program(task: str):
    command = [sys.executable, "-c", PROGRAM, task]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300, "MiB"
