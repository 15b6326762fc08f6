"""The workers of both kinds, and the book of how each ended."""

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.servers import LoggedProcess

CELERYS_GRACE = 90.0
"""Seconds that Celery has to stop: a child of its may wait 30 s for its last result to be read (billiard's
``_ensure_messages_consumed``), on a busy machine at every eighth stop."""

ROOT = Path(__file__).resolve().parents[2]
GRACE = 1.0


class Fleet:
    """Starts workers, ends them, and replaces those that ended.

    :param ledger: the folder that the workers record in.
    """

    def __init__(self, url: str, results: str, ledger: Path, celeriac: int, celery: int) -> None:
        self._environment = {
            **os.environ,
            "CHAOS_URL": url,
            "CHAOS_RESULTS": results,
            "CHAOS_LEDGER": str(ledger),
            "C_FORCE_ROOT": "1",
        }
        self._size = celeriac
        self._celery_size = celery
        self._celeriac: list[LoggedProcess] = []
        self._celery: list[LoggedProcess] = []
        self._started = 0
        self.deaths: dict[int, tuple[float, float]] = {}
        """From when until when each celeriac worker was killed, or stopped, by its process id."""
        self._ever: list[LoggedProcess] = []
        self.pids: set[int] = set()
        """The process ids of all celeriac workers there have been; who else ran something is Celery's."""
        self.complaints: list[str] = []
        """How workers ended that were asked to end, where that was not in order."""

    async def start(self) -> None:
        """Start all; return when they take messages."""
        await asyncio.gather(self.fill(), self.start_celery())

    async def fill(self) -> None:
        """Start as many celeriac workers as are missing."""
        missing = range(self._size - len(self._celeriac))
        self._celeriac += await asyncio.gather(*(self._start_celeriac() for _ in missing))

    async def start_celery(self) -> None:
        """Start the Celery workers."""
        self._celery = list(await asyncio.gather(*(self._start_celery() for _ in range(self._celery_size))))

    async def stop_celery(self) -> None:
        """Stop the Celery workers as Celery wants to be stopped."""
        workers, self._celery = self._celery, []
        await asyncio.gather(*(self._stop_celery(worker) for worker in workers))

    async def kill_one(self, dice: random.Random) -> None:
        """SIGKILL a celeriac worker."""
        worker, began = self._pick(dice), time.monotonic()
        await asyncio.to_thread(worker.kill)
        self.deaths[worker.pid] = began, time.monotonic()
        await self.fill()

    async def stop_one(self, dice: random.Random) -> None:
        """SIGTERM a celeriac worker; it gives back what does not end within its grace."""
        worker = self._pick(dice)
        await self._stop(worker)
        await self.fill()

    async def suspend_one(self, dice: random.Random, seconds: float) -> None:
        """SIGSTOP a celeriac worker for so long; it lives, and goes on afterwards."""
        worker = dice.choice(self._celeriac)
        worker.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            worker.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Stop all."""
        await asyncio.gather(self.stop_celery(), *(self._stop(worker) for worker in self._celeriac))
        self._celeriac.clear()

    def tracebacks(self) -> Iterator[str]:
        """What celeriac workers logged that no fault from outside explains."""
        for worker in self._ever:
            _, found, text = worker.output.partition("Traceback")
            if found:
                yield f"worker {worker.pid} logged:\nTraceback{text[:3000]}"

    def abandon(self) -> None:
        """Kill what is left, at the end of a run that went wrong."""
        for worker in [*self._celeriac, *self._celery]:
            worker.kill()

    def _pick(self, dice: random.Random) -> LoggedProcess:
        return self._celeriac.pop(dice.randrange(len(self._celeriac)))

    async def _stop(self, worker: LoggedProcess) -> None:
        began = time.monotonic()
        status = await asyncio.to_thread(worker.stop, timeout=GRACE + 10)
        self.deaths[worker.pid] = began, time.monotonic()
        if status != 0:
            self.complaints.append(
                f"worker {worker.pid} was asked to stop and ended with {status}:\n{worker.output}"
            )

    async def _stop_celery(self, worker: LoggedProcess) -> None:
        """Stop one, and do not kill it as long as it may end: a kill can lose a message.

        While Celery waits for its children, the answer to its last ``BRPOP`` is unread. The message is in no key then;
        at its end Celery reads it and gives it back.
        """
        status = await asyncio.to_thread(worker.stop, timeout=CELERYS_GRACE)
        if status != 0:
            self.complaints.append(
                f"Celery worker {worker.pid} ended with {status}:\n{worker.output[-3000:]}"
            )

    async def _start_celeriac(self) -> LoggedProcess:
        options = ["-A", "tests.chaos.tasks", "-c", "10", "-n", f"chaos-{self._next()}@localhost"]
        command = [
            sys.executable,
            "-m",
            "celeriac",
            "worker",
            *options,
            "--grace",
            str(GRACE),
            "-l",
            "warning",
        ]
        worker = await self._begin(command, " ready")
        self.pids.add(worker.pid)
        self._ever.append(worker)
        return worker

    async def _start_celery(self) -> LoggedProcess:
        options = ["-n", f"celery-{self._next()}@localhost", "-c", "2", "-l", "INFO"]
        options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        command = [sys.executable, "-m", "celery", "-A", "tests.chaos.celery_tasks", "worker", *options]
        return await self._begin(command, " ready.")

    async def _begin(self, command: Sequence[str], sign: str) -> LoggedProcess:
        environment: Mapping[str, str] = self._environment
        worker = await asyncio.to_thread(LoggedProcess, command, env=environment, cwd=ROOT)
        await asyncio.to_thread(worker.wait_for, sign)
        return worker

    def _next(self) -> int:
        self._started += 1
        return self._started
