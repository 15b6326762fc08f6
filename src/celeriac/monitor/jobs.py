"""Does one thing to many tasks, in steps, and says how far it is.

Rules: what is small is done at once; what is large goes on by itself, and a person may stop it between two steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

import msgspec

from celeriac.errors import CeleriacError
from celeriac.monitor.actions import Partly

logger = logging.getLogger(__name__)

SMALL = 100
"""So many tasks are done at once."""

STEP = 100
REMEMBERED = 20

Work = Callable[[Sequence[str]], Awaitable[int]]
"""Does it to some tasks, given by their ids; returns how many it was done to."""


class Job(msgspec.Struct):
    """What is done to many tasks.

    :param done: to how many so far.
    :param trouble: the first reason why some were left out.
    """

    number: str
    what: str
    total: int
    done: int = 0
    tried: int = 0
    trouble: str = ""
    under_way: bool = True
    stopped: bool = False


class Jobs:
    """The jobs that run, and those that ended lately."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._numbers = count(1)

    def all(self) -> list[Job]:
        """Return them, the latest first."""
        return list(reversed(self._jobs.values()))

    async def run(self, what: str, ids: Sequence[str], work: Work) -> Job:
        """Do it, and return when it is done, or when it goes on by itself."""
        job = Job(str(next(self._numbers)), what, len(ids))
        self._jobs[job.number] = job
        while len(self._jobs) > REMEMBERED and (old := next(iter(self._jobs))) not in self._running:
            del self._jobs[old]
        if len(ids) <= SMALL:
            await self._do(job, ids, work)
        else:
            task = self._running[job.number] = asyncio.create_task(self._do(job, ids, work))
            task.add_done_callback(lambda _: self._running.pop(job.number, None))
        return job

    def stop(self, number: str) -> bool:
        """Stop one after its present step; return whether it was under way."""
        job = self._jobs.get(number)
        if job is None or not job.under_way:
            return False
        job.stopped = True
        return True

    async def close(self) -> None:
        """Stop all."""
        for job in self._jobs.values():
            job.stopped = True
        await asyncio.gather(*self._running.values())

    async def _do(self, job: Job, ids: Sequence[str], work: Work) -> None:
        try:
            for start in range(0, len(ids), STEP):
                if job.stopped:
                    break
                step = ids[start : start + STEP]
                job.done += await self._step(job, step, work)
                job.tried += len(step)
        finally:
            job.under_way = False

    async def _step(self, job: Job, ids: Sequence[str], work: Work) -> int:
        try:
            return await work(ids)
        except CeleriacError as error:
            job.trouble = job.trouble or str(error)
            return error.done if isinstance(error, Partly) else 0
        except Exception as error:
            logger.exception("%s failed", job.what)
            job.trouble = job.trouble or repr(error)
            return 0
