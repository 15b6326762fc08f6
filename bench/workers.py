"""The workers that are compared, as the command lines their users type; and one of them, running."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
from tests.servers import LoggedProcess

ROOT = Path(__file__).parent.parent
STOP_TIMEOUT = 20.0


@dataclass(frozen=True)
class Contender:
    """A worker's name in the tables and its command line."""

    name: str
    command: tuple[str, ...]

    @contextmanager
    def running(self, env: Mapping[str, str]) -> Iterator["Running"]:
        """Start it, and stop it as a supervisor would. Raises ``WorkerFailed`` when it does not end in order."""
        worker = Running(self, env)
        try:
            yield worker
        except BaseException:
            worker.kill()
            raise
        worker.stop()


def celeriac(*options: str) -> Contender:
    """A celeriac worker, one process."""
    command = (sys.executable, "-m", "celeriac", "worker", "-A", "bench.tasks", "-l", "warning", *options)
    return Contender(" ".join(("celeriac", *options)), command)


def unguarded() -> Contender:
    """The same without what loses and repeats no task; see ``bench.unguarded``."""
    command = (sys.executable, "-m", "bench.unguarded", "worker", "-A", "bench.tasks", "-l", "warning")
    return Contender("celeriac, unguarded", command)


def bare_rabbit() -> Contender:
    """A loop that takes, publishes and acknowledges; see ``bench.bare_rabbit``."""
    return Contender("bare loop", (sys.executable, "-m", "bench.bare_rabbit"))


def celery(children: int) -> Contender:
    """A Celery worker with so many children."""
    command = f"{sys.executable} -m celery -A bench.celery_tasks worker -l WARNING -P prefork -c {children}"
    return Contender("celery" if children == 2 else f"celery -c {children}", tuple(command.split()))


def of_celery_app(side: str, pool: str, slots: int) -> Contender:
    """A worker of the one Celery app that both run: ``side`` is ``celery`` or ``celeriac``."""
    theirs = {"processes": "prefork"}
    named = theirs.get(pool, pool) if side == "celery" else pool
    command = f"{sys.executable} -m {side} -A bench.celery_app worker -l WARNING -P {named} -c {slots}"
    return Contender(f"{side}, a Celery app", tuple(command.split()))


CELERY = celery(2)
HAS_UVLOOP = find_spec("uvloop") is not None


class WorkerFailed(Exception):
    """A worker did not do what it was started for; says what it printed."""


class Running:
    """A worker's process and its children."""

    def __init__(self, contender: Contender, env: Mapping[str, str]) -> None:
        self.contender = contender
        self._process = LoggedProcess(contender.command, env={**os.environ, **env}, cwd=ROOT)
        self._top = psutil.Process(self._process.pid)

    def cpu_seconds(self) -> float:
        """What the worker's processes have used so far, in user and system mode."""
        times = [process.cpu_times() for process in self._tree()]
        return sum(time.user + time.system for time in times)

    def fine_cpu_seconds(self) -> float:
        """The same to the nanosecond, for threads that are still there: the kernel's own ticks are 10 ms."""
        stats = [
            stat.read_text()
            for process in self._tree()
            for stat in Path(f"/proc/{process.pid}/task").glob("*/schedstat")
        ]
        return sum(int(stat.split()[0]) for stat in stats) / 1e9

    def memory(self) -> float:
        """Resident megabytes now (RSS); pages that processes share are counted in each."""
        return sum(process.memory_info().rss for process in self._tree()) / 1e6

    def own_memory(self) -> float:
        """The same with every page divided by the number of processes that share it (PSS)."""
        return sum(process.memory_full_info().pss for process in self._tree()) / 1e6

    def memory_of_children(self) -> float:
        """Megabytes (PSS) of the processes that run tasks: those that are the farthest from the worker's own."""
        level = found = [self._top]
        while level := [child for process in level for child in process.children()]:
            found = level
        return sum(process.memory_full_info().pss for process in found) / 1e6

    def peak_memory(self) -> float:
        """The most resident megabytes there ever were, by the kernel's own high-water mark."""
        marks = [Path(f"/proc/{process.pid}/status").read_text() for process in self._tree()]
        return sum(int(mark.partition("VmHWM:")[2].split()[0]) * 1024 for mark in marks) / 1e6

    def connections(self, port: int) -> int:
        """How many connections the worker's processes have to a local port."""
        return sum(
            bool(connection.raddr) and connection.raddr.port == port
            for process in self._tree()
            for connection in process.net_connections("tcp")
        )

    def require_alive(self) -> None:
        """Raise ``WorkerFailed`` when it has ended by itself."""
        if not self._process.running:
            raise self.failure("ended by itself")

    def failure(self, what: str) -> WorkerFailed:
        """Make the error that says what happened, and what the worker printed."""
        return WorkerFailed(f"{self.contender.name} {what}; it printed:\n{self._process.output[-4000:]}")

    def stop(self) -> None:
        """Send SIGTERM and wait for the end."""
        self.require_alive()
        status = self._process.stop(timeout=STOP_TIMEOUT)
        if status != 0:
            raise self.failure(f"ended with exit status {status} after SIGTERM")

    def kill(self) -> None:
        """End it and its children at once."""
        for process in self._tree():
            process.kill()
        self._process.kill()

    def _tree(self) -> list[psutil.Process]:
        return [self._top, *self._top.children(recursive=True)] if self._process.running else []


def run_client(
    module: str, *arguments: object, env: Mapping[str, str], package: str = "bench.clients"
) -> str:
    """Run a client program to its end and return what it printed. Raises ``WorkerFailed`` when it failed."""
    command = [sys.executable, "-m", f"{package}.{module}", *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, **env}, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise WorkerFailed(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
    return done.stdout
