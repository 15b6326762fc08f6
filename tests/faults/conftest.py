"""Workers in processes of their own, to be killed, stopped and starved."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from celeriac import Celeriac
from tests.lines import whole_lines
from tests.servers import LoggedProcess

ROOT = Path(__file__).resolve().parents[2]

StartWorker = Callable[..., LoggedProcess]


class Record:
    """What tasks told of their runs, outside of any broker."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def times(self, what: str) -> list[float]:
        """When it happened, in seconds since the epoch."""
        return [float(line.split()[2]) for line in whole_lines(self.path) if line.split()[0] == what]

    async def until(self, what: str, count: int = 1, timeout: float = 60.0) -> list[float]:
        """Wait until it happened so often."""
        async with asyncio.timeout(timeout):
            while len(self.times(what)) < count:  # noqa: ASYNC110 - a file tells nobody
                await asyncio.sleep(0.01)
        return self.times(what)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "record")


@pytest.fixture(params=["redis", "sqlite"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        url: str = request.getfixturevalue("redis_url")
        return url
    return f"sqlite:///{tmp_path}/faults.db"


@pytest.fixture
def start_worker(queue: str) -> Iterator[StartWorker]:
    """Start workers of `lease_tasks` on the test's queue; they are killed at the end, and have left nobody behind."""
    started: list[LoggedProcess] = []
    children: list[psutil.Process] = []

    def start(url: str, *options: str) -> LoggedProcess:
        command = [sys.executable, "-m", "celeriac", "worker", "-A", "tests.faults.lease_tasks", "-b", url]
        command += ["--backend", "disabled://", "-Q", queue, "-l", "info", *options]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        started.append(LoggedProcess(command, cwd=ROOT, env=environment))
        started[-1].wait_for(" ready")
        return started[-1]

    yield start
    for process in started:
        if process.running:
            children += psutil.Process(process.pid).children(recursive=True)
            process.kill()
    assert all(ends_within(30.0, child) for child in children), "a killed worker left a process behind"


def ends_within(seconds: float, process: psutil.Process) -> bool:
    """Whether the process ends in that time; one that nobody has reaped yet has ended too."""
    deadline = time.monotonic() + seconds
    try:
        while process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
    except psutil.NoSuchProcess:
        pass
    return True


async def send(url: str, queue: str, task: str, *arguments: object) -> None:
    async with Celeriac("sender", url, "disabled://") as app:
        await app.send_task(task, list(arguments), queue=queue)
