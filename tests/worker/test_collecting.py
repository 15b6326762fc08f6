"""When a worker inside a program collects cyclic garbage, and that it leaves the program's own settings alone."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.worker.collecting import THRESHOLDS

ROOT = Path(__file__).resolve().parents[2]
USUAL = (700, 10, 10)


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
import asyncio, logging
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


async def main() -> None:
    async with app, app.worker(concurrency=1):
        results = [await keeps_an_error.send() for _ in range(200)]
        for result in results:
            try:
                await result.wait(60)
            except Exception:
                pass
    # Not ru_maxrss, which begins with the memory of the process that this one was forked from.
    [peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak.split()[1]) // 1024)


asyncio.run(main())
"""


def test_failing_tasks_of_10_mb_stay_under_300_mb_in_a_program():
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300, "MiB"
