"""The process that Celery 4.4's client is in: it listens on a socket for what the tests ask, one thing after the other.

Arguments: the URL of the broker, and of the result backend.
"""

import asyncio
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Listener
from typing import Any

from tests.interop.celery44.spoken import LISTENING
from tests.interop.celery_client import CeleryClient, CelerySent
from tests.interop.clients import Build
from tests.interop.errors import OutOfStock

KNOWN = (OutOfStock,)
"""Celery 4 raises a class again when something has imported it, and makes one of the same name when nothing has."""


class Desk:
    """What may be asked; tasks are named by their ids."""

    def __init__(self, client: CeleryClient, line: Connection) -> None:
        self._client = client
        self._line = line
        self._sent: dict[str, CelerySent] = {}

    async def send(self, *args: Any, **options: Any) -> str:
        return self._keep(await self._client.send(*args, **options))

    async def send_chain(self, *steps: tuple[str, Sequence[Any], str]) -> list[str]:
        return [self._keep(sent) for sent in await self._client.send_chain(*steps)]

    async def send_workflow(self, build: Build, queues: Sequence[str]) -> str:
        return self._keep(await self._client.send_workflow(build, queues))

    async def value(self, task_id: str) -> Any:
        return await self._sent[task_id].value()

    async def watch(self, task_id: str) -> Any:
        return await self._sent[task_id].watch(lambda *seen: self._line.send(("state", seen)))

    async def state(self, task_id: str) -> str:
        return await self._sent[task_id].state()

    def _keep(self, sent: CelerySent) -> str:
        self._sent[sent.id] = sent
        return sent.id


async def answer(desk: Desk, call: str, args: Sequence[Any], options: dict[str, Any]) -> tuple[str, Any]:
    """Do what was asked; ``("value", ...)`` or ``("error", ...)``."""
    try:
        return "value", await getattr(desk, call)(*args, **options)
    except Exception as error:
        return "error", error if _passes(error) else RuntimeError(repr(error))


def serve(line: Connection, client: CeleryClient) -> None:
    """Answer until the other side hangs up."""
    desk = Desk(client, line)
    with suppress(EOFError), asyncio.Runner() as runner:
        while True:
            line.send(runner.run(answer(desk, *line.recv())))


def main() -> None:
    """Listen, say where, and serve who comes."""
    with Listener() as listener:
        print(f"{LISTENING}{listener.address}", flush=True)
        serve(listener.accept(), CeleryClient(*sys.argv[1:]))


def _passes(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


if __name__ == "__main__":
    main()
