"""Does one thing to many tasks, in steps, and says how far it is.

Rules: what is small is done at once; what is large goes on by itself, and a person may stop it between two steps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import count

import msgspec

from celeriac.errors import CeleriacError
from celeriac.monitor.again import Refused

logger = logging.getLogger(__name__)

SMALL = 100
"""So many tasks are done at once."""

STEP = 100
REMEMBERED = 20

PATIENCE = 2.0
"""Seconds after which what goes in steps goes on by itself."""

Work = Callable[[Sequence[str]], Awaitable[int]]
"""Does it to some tasks, given by their ids; returns how many it was done to."""


class Partly(Refused):
    """Some of it was done.

    :param done: how many.
    """

    def __init__(self, done: int, text: str) -> None:
        super().__init__(text)
        self.done = done


class Progress(msgspec.Struct, frozen=True):
    """What one step did.

    :param tried: to how many.
    :param done: to how many it could be done.
    """

    tried: int
    done: int


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
        """Do it to tasks by their ids, and return when it is done, or when it goes on by itself."""
        job = self._note(what, len(ids))
        steps = _work_through(job, ids, work)
        if len(ids) <= SMALL:
            await self._do(job, steps)
        else:
            self._go_on(job, steps)
        return job

    async def follow(self, what: str, total: int, steps: AsyncIterator[Progress]) -> Job:
        """Do what goes in steps by itself, and return when it is done, or after ``PATIENCE`` seconds.

        :param total: of how many each step tells a part.
        """
        job = self._note(what, total)
        await asyncio.wait([self._go_on(job, steps)], timeout=PATIENCE)
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

    def _note(self, what: str, total: int) -> Job:
        job = Job(str(next(self._numbers)), what, total)
        self._jobs[job.number] = job
        while len(self._jobs) > REMEMBERED and (old := next(iter(self._jobs))) not in self._running:
            del self._jobs[old]
        return job

    def _go_on(self, job: Job, steps: AsyncIterator[Progress]) -> asyncio.Task[None]:
        task = self._running[job.number] = asyncio.create_task(self._do(job, steps))
        task.add_done_callback(lambda _: self._running.pop(job.number, None))
        return task

    async def _do(self, job: Job, steps: AsyncIterator[Progress]) -> None:
        try:
            async for step in steps:
                job.done += step.done
                job.tried = min(job.total, job.tried + step.tried)
                if job.stopped:
                    break
        except CeleriacError as error:
            job.trouble = job.trouble or str(error)
        except Exception as error:
            logger.exception("%s failed", job.what)
            job.trouble = job.trouble or repr(error)
        finally:
            job.under_way = False


async def _work_through(job: Job, ids: Sequence[str], work: Work) -> AsyncIterator[Progress]:
    """Do the work to these tasks; what fails for some of them is noted, and the others go on."""
    for start in range(0, len(ids), STEP):
        step = ids[start : start + STEP]
        yield Progress(len(step), await _try_step(job, step, work))


async def _try_step(job: Job, ids: Sequence[str], work: Work) -> int:
    try:
        return await work(ids)
    except CeleriacError as error:
        job.trouble = job.trouble or str(error)
        return error.done if isinstance(error, Partly) else 0
    except Exception as error:
        logger.exception("%s failed", job.what)
        job.trouble = job.trouble or repr(error)
        return 0
