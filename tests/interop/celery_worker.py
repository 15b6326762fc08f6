"""A real Celery worker in a process of its own, which can be told to take from further queues."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from celery import Celery

from tests.servers import LoggedProcess

ROOT = Path(__file__).resolve().parents[2]


class CeleryWorker:
    """``with CeleryWorker(url) as worker`` starts a prefork worker of two processes and ends it.

    :param url: its broker, and its result backend if no other is given.
    :param arguments: further arguments of its command line.
    :param environment: further variables that ``celery_side`` reads.
    :param celery: how Celery's command line is started.
    :param sociable: whether it greets other workers, gossips and sends heartbeats.
    """

    def __init__(
        self,
        url: str,
        backend: str | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        celery: Sequence[str] = (sys.executable, "-m", "celery"),
        *,
        sociable: bool = False,
    ) -> None:
        self.name = f"interop-{uuid4().hex[:8]}@localhost"
        self.queue = f"celery-{uuid4().hex}"
        self.url = url
        self.backend = backend or url
        self._arguments = arguments
        self._environment = environment or {}
        self._celery = celery
        self._sociable = sociable
        self._control = Celery("control", broker=url, set_as_current=False)

    def __enter__(self) -> Self:
        environment = {
            **os.environ,
            **self._environment,
            "INTEROP_BROKER": self.url,
            "INTEROP_BACKEND": self.backend,
            "INTEROP_QUEUE": self.queue,
            "C_FORCE_ROOT": "1",
        }
        command = [*self._celery, "-A", "tests.interop.celery_side", "worker"]
        command += ["-n", self.name, "-c", "2", "-P", "prefork", "-l", "INFO"]
        if not self._sociable:
            command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        command += self._arguments
        self.process = LoggedProcess(command, env=environment, cwd=ROOT)
        self.process.wait_for(f"{self.name} ready.", timeout=90)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()
        self._control.close()

    def consume(self, queue: str) -> None:
        """Take from this queue too; returns when the worker does."""
        self._tell("add_consumer", queue)

    def cancel(self, queue: str) -> None:
        """Take from this queue no longer."""
        self._tell("cancel_consumer", queue)

    def received(self, ids: Sequence[str]) -> list[int]:
        """The order in which it took these tasks, by their places; returns when it has taken all."""
        lines = [self.process.wait_for(f"[{task_id}]") for task_id in ids]
        return sorted(range(len(ids)), key=lambda place: self.process.lines.index(lines[place]))

    def _tell(self, command: str, queue: str) -> None:
        tell = getattr(self._control.control, command)
        # kombu's client can miss a reply when the timeout is under a second.
        [reply] = tell(queue, destination=[self.name], reply=True, timeout=60, limit=1)
        assert "ok" in reply[self.name], reply
