"""Keeps several worker processes running, which share nothing.

Rules: a child that ends unasked is started again, after a longer pause each time that it did not last. A signal is
passed on once, as SIGTERM. When the supervisor ends, its children reach the end of their standard input, and stop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from celeriac.clock import Clock, SystemClock, set_within
from celeriac.retry import Backoff
from celeriac.worker.signals import APART, Signals, Stop

logger = logging.getLogger("celeriac.supervisor")

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
STEADY = 30.0
"""Seconds after which a child that dies is started again as if it were the first time."""


class Child(msgspec.Struct, frozen=True):
    """A process to keep running.

    :param name: for the log.
    :param command: the program and its arguments.
    :param environment: variables beside those of this process.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # the environment may hold passwords, so no field is printed


class Supervisor:
    """Starts children, restarts those that die, and passes on SIGTERM and SIGINT.

    A child that ends with 0 was asked to and is not started again.

    :param hopeless: exit codes after which a child is not started again; the others are then stopped too.
    :ivar stopped_by: the first signal that came, once it has run.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        hopeless: Collection[int] = (),
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
    ) -> None:
        self._children = children
        self._hopeless = hopeless
        self._clock = clock
        self._running: set[Process] = set()
        self._stopping = asyncio.Event()
        self.stopped_by: Stop | None = None

    async def run(self) -> int:
        """Run until a signal comes, a child cannot be started, or all ended; return 0 if all did as they were asked."""
        # Twice as far apart: a signal reaches the children later than us, and they must tell two signals apart, too.
        async with Signals(2 * APART) as signals:
            passing_on = [
                asyncio.create_task(self._pass_on(signals.first)),
                asyncio.create_task(self._pass_on(signals.second)),
            ]
            codes = await asyncio.gather(*(self._keep(child) for child in self._children))
            for task in passing_on:
                task.cancel()
            self.stopped_by = signals.stop
        return next((code for code in codes if code != 0), 0)

    async def _keep(self, child: Child) -> int:
        backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        while True:
            started = self._clock.monotonic()
            code = await self._run_once(child)
            if self._stopping.is_set():
                # A child that SIGTERM killed had no handlers yet, so it has taken no messages either.
                return 0 if code == -signal.SIGTERM else code
            if code in self._hopeless:
                self._stop()
                return code
            if code == 0:  # it was asked to in another way, as by remote control
                logger.info("%s ended as it was asked to", child.name)
                return 0
            if self._clock.monotonic() - started > STEADY:
                backoff.reset()
            wait = backoff.pause()
            logger.warning("%s ended (%s), starting it again in %.1f s", child.name, _how(code), wait)
            if await set_within(self._stopping, wait):
                return 0

    async def _run_once(self, child: Child) -> int:
        # The child gets a session of its own, so that Ctrl-C reaches this process alone: passed on, it counts once.
        process = await asyncio.create_subprocess_exec(
            *child.command, stdin=PIPE, start_new_session=True, env={**os.environ, **child.environment}
        )
        self._running.add(process)
        logger.info("%s is process %d", child.name, process.pid)
        if self._stopping.is_set():
            _terminate(process)
        try:
            return await process.wait()
        finally:
            self._running.discard(process)

    async def _pass_on(self, asked: asyncio.Event) -> None:
        await asked.wait()
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for process in self._running:
            _terminate(process)


def _terminate(process: Process) -> None:
    """Ask a child to end, if it has not.

    ``Process.terminate`` would look first whether it has, and take its exit status away from the loop, which then says
    that it was 255.
    """
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
