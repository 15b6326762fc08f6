"""Several processes that tick, of which some die, stand still or are cut off; and the check of what they sent."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from collections import Counter, defaultdict
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from types import TracebackType
from typing import Self

from tests.beat.places import PATIENCE, Place
from tests.servers import LoggedProcess, Proxy

_ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")

SLACK = 3.0
"""Seconds beyond a lease within which somebody ticks, on a machine that is busy."""


@dataclass
class Member:
    """One process, and the lines over which it reaches its servers."""

    process: LoggedProcess
    lines: list[Proxy] = field(default_factory=list)
    hampered: bool = False

    @property
    def led_since(self) -> str:
        """When it last began to lead, as the log has it; empty if it never did."""
        found = [line for line in self.process.output.splitlines() if "this process ticks" in line]
        return found[-1][:19] if found else ""

    @property
    def sound(self) -> bool:
        """Whether it runs and nothing hampers it."""
        return self.process.running and not self.hampered


class Fleet:
    """Processes of one app; ``async with`` kills what is left.

    :param entries: how many periodic tasks they declare; the first runs every ``every`` seconds, others seldomer.
    """

    def __init__(
        self, place: Place, broker: str, backend: str, *, entries: int, every: float, lease: float = 1.0
    ):
        self.place = place
        self.every = every
        self.lease = lease
        self.members: list[Member] = []
        self.mishaps: Counter[str] = Counter()
        self.silences: list[float] = []
        """Seconds from each mishap of a leader until somebody ticked."""
        self._urls = broker, backend
        self._entries = entries
        self._stack = AsyncExitStack()
        self._later: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._later:
            task.cancel()
        await self.kill_all()
        await self._stack.aclose()

    async def start(self) -> Member:
        """Start one more, with lines of its own to the servers."""
        lines: dict[str, Proxy] = {}
        urls = [await self._through(url, lines) for url in self._urls]
        env = {
            **os.environ,
            "NAME": self.place.name,
            "BROKER": urls[0],
            "BACKEND": urls[1],
            "QUEUE": self.place.queue,
            "ENTRIES": str(self._entries),
            "EVERY": str(self.every),
            "LEASE": str(self.lease),
        }
        command = [sys.executable, "-m", "celeriac", "beat", "-A", "tests.beat.beating", "-l", "debug"]
        process = await asyncio.to_thread(LoggedProcess, command, env=env)
        self.members.append(Member(process, list(lines.values())))
        return self.members[-1]

    def leader(self) -> Member | None:
        """Return the one that began to lead last, as far as the logs tell."""
        since = {number: one.led_since for number, one in enumerate(self.members) if one.sound}
        latest = max(since, key=lambda number: since[number], default=None)
        return None if latest is None or not since[latest] else self.members[latest]

    async def trouble(self, seconds: float, seed: int, *, pause: float, long: float) -> None:
        """Kill, stop or cut off one again and again, the leader mostly; there are always two that nothing hampers.

        :param pause: seconds from one mishap to the next, at the most.
        :param long: seconds for which one stands still or is cut off.
        """
        random, ends = Random(seed), time.monotonic() + seconds
        while time.monotonic() < ends:
            await asyncio.sleep(pause * (0.5 + random.random() / 2))
            leader = self.leader()
            if leader is None or random.random() < 0.2:
                leader = random.choice([one for one in self.members if one.sound])
            kinds = ["killed", "stopped", "cut off"] if leader.lines else ["killed", "stopped"]
            await self.harm(leader, random.choice(kinds), long)
            while sum(one.sound for one in self.members) < 3:
                await self.start()

    async def harm(self, member: Member, how: str, long: float) -> None:
        """Kill, stop or cut off one; return when somebody ticks."""
        self.mishaps[how] += 1
        async with self.place.app() as app:
            if how == "killed":
                await asyncio.to_thread(member.process.kill)
            else:
                member.hampered = True
                self._later.add(asyncio.create_task(self._mend(member, how, long)))
            # What is on its way still arrives.
            await asyncio.sleep(0.05)
            began, sent = time.monotonic(), await self.place.depth(app)
            while await self.place.depth(app) == sent:
                assert time.monotonic() < began + PATIENCE, self.logs(f"nobody ticks after one was {how}")
                await asyncio.sleep(0.05)
            self.silences.append(time.monotonic() - began)

    def logs(self, what: str) -> str:
        """Return what the processes have logged last, after what there is to say of it."""
        told = [
            f"{one.process.pid}, sound: {one.sound}\n{one.process.output[-3000:]}" for one in self.members
        ]
        return "\n\n".join([what, *told])

    async def kill_all(self) -> None:
        """Kill all."""
        for member in self.members:
            if member.process.running:
                await asyncio.to_thread(member.process.kill)

    def summary(self) -> str:
        """Say what was done."""
        done = ", ".join(f"{count} {how}" for how, count in sorted(self.mishaps.items()))
        return f"{done}; the longest silence {max(self.silences, default=0.0):.1f} s"

    async def problems(self, *, copies: bool) -> list[str]:
        """Return the slots that were sent twice, those that were left out, and silences that were too long.

        :param copies: a slot may have several copies.
        """
        async with self.place.app() as app:
            found = await self.place.slots(app, 1_000_000)
        wrong = [
            f"nobody ticked for {silence:.1f} s"
            for silence in self.silences
            if silence > self.lease + self.every + SLACK
        ]
        wrong += [
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

    async def _through(self, url: str, lines: dict[str, Proxy]) -> str:
        """Return the URL by way of a proxy, where it is of a server with a port; one for each port."""
        found = _ADDRESS.search(url)
        if found is None:
            return url
        if found[1] not in lines:
            lines[found[1]] = await self._stack.enter_async_context(Proxy(int(found[1])))
        return url.replace(found[0], f"127.0.0.1:{lines[found[1]].port}")

    async def _mend(self, member: Member, how: str, long: float) -> None:
        if how == "stopped":
            os.kill(member.process.pid, signal.SIGSTOP)
        for line in member.lines if how == "cut off" else ():
            line.freeze()
        await asyncio.sleep(long)
        for line in member.lines:
            line.thaw()
        if member.process.running:
            os.kill(member.process.pid, signal.SIGCONT)
        member.hampered = False
