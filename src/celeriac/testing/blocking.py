"""A worker inside a test that blocks: what ``app.testing()`` gives.

Rules: as ``running``, which it is made of: the real worker, messages in Celery's format, a broker and a result store in
memory. The functions of tasks run in the thread of the test.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from celeriac.client.app import App
from celeriac.client.blocking import BackgroundLoop
from celeriac.client.connections import RunBlocking
from celeriac.errors import ConfigError
from celeriac.testing.caller import Caller, InCaller
from celeriac.testing.faults import Faults
from celeriac.testing.worker import PATIENCE, RunningWorker, Sent, running

T = TypeVar("T")

AT_ONCE = 100
"""Tasks that may wait for each other, one inside the other."""


class BlockingWorker:
    """The worker of a test that blocks; see ``Celeriac.testing``."""

    def __init__(self, worker: RunningWorker, caller: Caller, *, eager: bool) -> None:
        self._worker = worker
        self._caller = caller
        self._eager = eager

    @property
    def sent(self) -> Sequence[Sent]:
        """Everything that was sent within the block, in order; a retry is sent anew."""
        return self._worker.sent

    def drain(self, timeout: float = PATIENCE) -> None:
        """Return when everything that was sent, and what that sent in turn, has ended or waits until later.

        Raises ``TimeoutError`` when that takes longer than ``timeout`` seconds.
        """
        self._caller.run(self._worker.drain(timeout, running=self._caller.depth))

    def skip_waits(self) -> int:
        """Let everything that waits (countdown, ETA, retry) be due now; return how many messages that were.

        With ``eager`` they have run when this returns.
        """
        count = self._caller.run(self._worker.skip_waits())
        if self._eager:
            self.drain()
        return count

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Block for what a blocking call of the app awaits; then, with ``eager``, until what it sent has ended."""
        before = len(self.sent)
        value = self._caller.run(coroutine)
        if self._eager and len(self.sent) > before:
            self.drain()
        return value


@contextmanager
def running_here(
    app: App, background: BackgroundLoop, *, eager: bool, faults: Faults | None
) -> Iterator[tuple[BlockingWorker, RunBlocking]]:
    """Run the app's tasks within the block; yield the worker, and what is to run the app's coroutines meanwhile.

    Raises ``ConfigError`` in a coroutine, and as ``running``.
    """
    _refuse_a_loop()
    caller = Caller(background)
    block = running(app, faults=faults, concurrency=AT_ONCE, pool=InCaller(caller))
    worker = BlockingWorker(caller.run(_entered(block)), caller, eager=eager)
    error: BaseException | None = None
    try:
        yield worker, worker.run
    except BaseException as raised:
        error = raised
        raise
    finally:
        kind = None if error is None else type(error)
        caller.run(block.__aexit__(kind, error, None if error is None else error.__traceback__))


async def _entered(block: Any) -> Any:
    return await block.__aenter__()


def _refuse_a_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigError(
        "app.testing() is for tests that block; in a coroutine write async with running(app) of celeriac.testing.worker"
    )
