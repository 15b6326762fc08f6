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
from celeriac.servers.memory.broker import MemoryBroker
from celeriac.testing.caller import Caller, InCaller
from celeriac.testing.faults import Faults, FaultyBroker
from celeriac.testing.worker import PATIENCE, RunningWorker, Sent, running

T = TypeVar("T")

AT_ONCE = 100
"""Tasks that may wait for each other, one inside the other."""


class Gate:
    """What the worker takes stays with the broker's side while the gate is shut; it is open while somebody is inside.

    Held back is what was taken, not the take: one that is under way already would return the next message.

    :ivar faults: those of the broker to shut off.
    """

    def __init__(self, *, shut: bool) -> None:
        self.faults = Faults()
        self._shuts = shut
        self._inside = 0
        self._shut()

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Leave the gate open while the work is done."""
        self._inside += 1
        if self._pause is not None:
            self._pause.resume()
        try:
            return await work
        finally:
            self._inside -= 1
            if not self._inside:
                self._shut()

    def _shut(self) -> None:
        self._pause = self.faults.pause("take", "after") if self._shuts else None


class BlockingWorker:
    """The worker of a test that blocks; see ``Celeriac.testing``."""

    def __init__(
        self, worker: RunningWorker, background: BackgroundLoop, caller: Caller, gate: Gate, *, eager: bool
    ) -> None:
        self._worker = worker
        self._background = background
        self._caller = caller
        self._gate = gate
        self._eager = eager

    @property
    def sent(self) -> Sequence[Sent]:
        """Everything that was sent within the block, in order; a retry is sent anew."""
        return self._worker.sent

    def drain(self, timeout: float = PATIENCE) -> None:
        """Return when everything that was sent, and what that sent in turn, has ended or waits until later.

        Raises ``TimeoutError`` when that takes longer than ``timeout`` seconds.
        """
        self._ask(self._worker.drain(timeout, running=self._caller.depth))

    def skip_waits(self) -> int:
        """Let everything that waits (countdown, ETA, retry) be due now; return how many messages that were.

        With ``eager`` they have run when this returns.
        """
        if not self._eager:
            return self._background.run(self._worker.skip_waits())
        count = self._ask(self._worker.skip_waits())
        self.drain()
        return count

    def run(self, coroutine: Coroutine[Any, Any, T], *, for_a_result: bool = False) -> T:
        """Block for what a blocking call of the app awaits; then, with ``eager``, until what it sent has ended.

        Without ``eager``, tasks run meanwhile only if the call waits for one to end.
        """
        if not self._eager:
            return self._ask(coroutine) if for_a_result else self._background.run(coroutine)
        before = len(self.sent)
        value = self._ask(coroutine)
        if len(self.sent) > before:
            self.drain()
        return value

    def _ask(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Block for the coroutine, and let tasks run meanwhile."""
        return self._caller.run(self._gate.during(coroutine))


@contextmanager
def running_here(
    app: App, background: BackgroundLoop, *, eager: bool, faults: Faults | None
) -> Iterator[tuple[BlockingWorker, RunBlocking]]:
    """Run the app's tasks within the block; yield the worker, and what is to run the app's coroutines meanwhile.

    Raises ``ConfigError`` in a coroutine, and as ``running``.
    """
    _refuse_a_loop()
    caller, gate = Caller(background), Gate(shut=not eager)
    broker = FaultyBroker(MemoryBroker(app.clock), gate.faults)
    block = running(app, faults=faults, concurrency=AT_ONCE, pool=InCaller(caller), broker=broker)
    worker = BlockingWorker(caller.run(_entered(block)), background, caller, gate, eager=eager)
    error: BaseException | None = None
    try:
        yield worker, worker.run
    except BaseException as raised:
        error = raised
        raise
    finally:
        kind = None if error is None else type(error)
        left = block.__aexit__(kind, error, None if error is None else error.__traceback__)
        caller.run(gate.during(left))


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
