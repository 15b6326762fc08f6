"""A file of one's own, and processes on it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from celeriac.clock import SystemClock
from celeriac.servers.sqlite import SqliteBroker
from tests.servers import LoggedProcess

ROOT = Path(__file__).parent.parent.parent


class ClockAhead(SystemClock):
    """A clock that is some seconds ahead of the machine's; with ``advance`` time passes, with ``turn`` it is set."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds
        self._passed = 0.0

    def advance(self, seconds: float) -> None:
        self._passed += seconds

    def turn(self, seconds: float) -> None:
        self._seconds += seconds

    def now(self) -> float:
        return SystemClock.now() + self._seconds + self._passed

    def monotonic(self) -> float:
        return SystemClock.monotonic() + self._passed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
async def open_broker(file: Path) -> AsyncIterator[Callable[..., SqliteBroker]]:
    """Make brokers on the file; they are closed at the end."""
    async with AsyncExitStack() as stack:

        def open_broker(path: Path = file, **options: object) -> SqliteBroker:
            broker = SqliteBroker(str(path), **options)
            stack.push_async_callback(broker.close)
            return broker

        yield open_broker


@pytest.fixture
def start(file: Path) -> Iterator[Callable[..., LoggedProcess]]:
    """Start processes that do one act of `taker.py` on the file; they are killed at the end."""
    processes: list[LoggedProcess] = []

    def start(*arguments: str) -> LoggedProcess:
        command = [sys.executable, "-m", "tests.sqlite.taker", str(file), *arguments]
        processes.append(LoggedProcess(command, cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


async def printed(process: LoggedProcess, text: str) -> None:
    await asyncio.to_thread(process.wait_for, text)
