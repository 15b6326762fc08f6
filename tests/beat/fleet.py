"""Several processes that tick, of which some die, stand still and come back; and the check of what they sent."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import defaultdict
from itertools import pairwise
from random import Random

from tests.beat.places import Place
from tests.servers import LoggedProcess


class Fleet:
    """Processes of one app.

    :param entries: how many periodic tasks they declare; the first runs every ``every`` seconds, others seldomer.
    """

    def __init__(
        self, place: Place, broker: str, backend: str, *, entries: int, every: float, lease: float = 1.0
    ):
        self.place = place
        self._env = {
            **os.environ,
            "NAME": place.name,
            "BROKER": broker,
            "BACKEND": backend,
            "QUEUE": place.queue,
            "ENTRIES": str(entries),
            "EVERY": str(every),
            "LEASE": str(lease),
        }
        self.every = every
        self.processes: list[LoggedProcess] = []

    def start(self) -> LoggedProcess:
        """Start one more."""
        command = [sys.executable, "-m", "celeriac", "beat", "-A", "tests.beat.beating", "-l", "debug"]
        self.processes.append(LoggedProcess(command, env=self._env))
        return self.processes[-1]

    def leader(self) -> LoggedProcess | None:
        """Return the one that began to lead last, as far as the logs tell."""
        leading = [one for one in self.processes if one.running and "this process ticks" in one.output]
        return leading[-1] if leading else None

    async def trouble(self, seconds: float, seed: int, *, pause: float) -> None:
        """Kill or stop a random one again and again; one that is killed is followed by a new one."""
        random = Random(seed)
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while loop.time() < ends:
            await asyncio.sleep(pause * (0.5 + random.random()))
            victim = random.choice([one for one in self.processes if one.running])
            if random.random() < 0.6:
                victim.kill()
                self.start()
            else:
                os.kill(victim.pid, signal.SIGSTOP)
                loop.call_later(pause, _go_on, victim)

    def end(self) -> None:
        """Kill all."""
        for process in self.processes:
            if process.running:
                process.kill()

    async def problems(self, *, copies: bool) -> list[str]:
        """Return the slots that were sent twice, and those that were left out between the first and the last.

        :param copies: a slot may have several copies.
        """
        async with self.place.app() as app:
            found = await self.place.slots(app, 1_000_000)
        wrong = [
            f"{task} {slot}: {times} times"
            for (task, slot), times in found.items()
            if times > 1 and not copies
        ]
        slots = defaultdict(list)
        for task, slot in found:
            slots[task].append(slot)
        for task, known in slots.items():
            step = self.every * (1 + int(task.removeprefix("shop.task")) % 3)
            for slot, later in pairwise(sorted(known)):
                if abs(later - slot - step) > 1e-3:
                    wrong.append(f"{task}: nothing between {slot} and {later}")
        return wrong


def _go_on(process: LoggedProcess) -> None:
    if process.running:
        os.kill(process.pid, signal.SIGCONT)
