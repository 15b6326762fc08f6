"""One thing done to many tasks."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from celeriac.monitor.jobs import Jobs, Partly, Progress


async def test_a_small_job_is_done_at_once():
    async def work(ids: Sequence[str]) -> int:
        return len(ids)

    job = await Jobs().run("retry", ["a", "b"], work)
    assert (job.done, job.total, job.under_way, job.trouble) == (2, 2, False, "")


async def test_a_large_job_goes_on_by_itself_and_can_be_stopped():
    jobs, begun, go = Jobs(), asyncio.Event(), asyncio.Event()

    async def work(ids: Sequence[str]) -> int:
        begun.set()
        await go.wait()
        return len(ids)

    job = await jobs.run("retry", [str(number) for number in range(1000)], work)
    await begun.wait()
    assert (job.under_way, job.done) == (True, 0)
    assert jobs.stop(job.number)
    go.set()
    await jobs.close()
    assert (job.under_way, job.stopped, job.done, job.total) == (False, True, 100, 1000)
    assert not jobs.stop(job.number)


async def test_what_was_left_out_is_said():
    async def work(ids: Sequence[str]) -> int:
        raise Partly(len(ids) - 1, "the arguments are not known")

    job = await Jobs().run("retry", ["a", "b", "c"], work)
    assert (job.done, job.trouble) == (2, "the arguments are not known")


async def test_what_goes_in_steps_by_itself_can_be_stopped():
    jobs, go = Jobs(), asyncio.Event()

    async def steps() -> AsyncIterator[Progress]:
        yield Progress(60, 1)
        await go.wait()
        yield Progress(60, 2)
        raise AssertionError("it was stopped")

    running = asyncio.create_task(jobs.follow("delete", 100, steps()))
    while not jobs.all() or not jobs.all()[0].tried:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    assert jobs.stop(jobs.all()[0].number)
    go.set()
    job = await running
    assert (job.under_way, job.done, job.tried, job.trouble) == (False, 3, 100, "")
