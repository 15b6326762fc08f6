"""Celery 4.4's client for the tests: it is in a process of its own, with the Python that has it."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

from tests.interop.celery44.spoken import LISTENING, RecordingKit
from tests.interop.celery_worker import ROOT
from tests.interop.clients import Build, OnState
from tests.servers import LoggedProcess


class OldSent:
    """What Celery 4.4's client holds of a task."""

    def __init__(self, id: str, ask: Callable[..., Any]) -> None:
        self.id = id
        self._ask = ask

    async def value(self) -> Any:
        return await self._ask("value", self.id)

    async def watch(self, on_state: OnState) -> Any:
        return await self._ask("watch", self.id, on_state=on_state)

    async def state(self) -> str:
        return await self._ask("state", self.id)


class OldCeleryClient:
    """Celery 4.4's client, called as the others are.

    :param python: the interpreter that has it.
    :param url: its broker, and its result backend if no other is given.
    """

    def __init__(self, python: Path, url: str, backend: str | None = None) -> None:
        modules = [f"{__package__}.bygone", f"{__package__}.process"]
        command = [str(python), "-m", *modules, url, backend or url]
        self._process = LoggedProcess(command, cwd=ROOT)
        self._line = Client(self._process.wait_for(LISTENING).partition(LISTENING)[2])
        self._thread = ThreadPoolExecutor(1)

    async def send(self, *args: Any, **options: Any) -> OldSent:
        return self._sent(await self._ask("send", *args, **options))

    async def send_chain(self, *steps: tuple[str, Sequence[Any], str]) -> list[OldSent]:
        """Send a chain of (task, arguments, queue); each step gets the value of the one before in front."""
        return [self._sent(id) for id in await self._ask("send_chain", *steps)]

    async def send_workflow(self, build: Build, queues: Sequence[str]) -> OldSent:
        """Send a workflow, its tasks on these queues in turn; what gives its value."""
        return self._sent(await self._ask("send_workflow", build(RecordingKit()), queues))

    def close(self) -> None:
        self._line.close()
        self._process.stop()
        self._thread.shutdown()

    def _sent(self, id: str) -> OldSent:
        return OldSent(id, self._ask)

    async def _ask(self, call: str, *args: Any, on_state: OnState | None = None, **options: Any) -> Any:
        def ask() -> Any:
            self._line.send((call, args, options))
            while (heard := self._line.recv())[0] == "state" and on_state is not None:
                on_state(*heard[1])
            return heard

        kind, content = await asyncio.get_running_loop().run_in_executor(self._thread, ask)
        if kind == "error":
            raise content
        return content
