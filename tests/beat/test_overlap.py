"""Runs of a periodic task that must not overlap, with workers that run them."""

import asyncio
import time

import pytest

from celeriac.client.periodic import ALONE_HEADER
from tests.beat.places import PATIENCE


@pytest.mark.parametrize("overlap", ["allow", "skip", "queue_one"])
async def test_runs_overlap_only_where_the_entry_allows_it(stored, overlap):
    app = stored.app()
    began, going, most = [], set(), 0
    enough = asyncio.Event()

    @app.periodic(every=0.2, overlap=overlap)
    @app.task
    async def slow() -> None:
        nonlocal most
        mine = object()
        going.add(mine)
        most = max(most, len(going))
        began.append(time.monotonic())
        if len(began) == 3:
            enough.set()
        await asyncio.sleep(0.5)
        going.discard(mine)

    async with app, app.worker():
        await asyncio.wait_for(enough.wait(), PATIENCE)
    assert (most > 1) is (overlap == "allow")


async def test_a_run_that_nobody_ends_stands_in_the_way_for_its_time(shared):
    app = shared.app(ignore_result=True)
    app.schedule("report", "shop.report", 0.2, overlap="skip", overlap_for=1.0)
    async with app, app.worker(queues=["another"]):
        found = await shared.until(app, 2)
        (first, *_) = await app.connections().broker.peek(shared.queue)
        assert first.headers[ALONE_HEADER] is True
    slots = sorted(slot for _, slot in found)
    assert slots[1] - slots[0] > 0.7


async def test_a_failed_run_and_a_retried_one_end_too(stored):
    app = stored.app()
    runs, enough = [], asyncio.Event()

    @app.periodic(every=0.2, overlap="skip")
    @app.task(bind=True)
    async def failing(ctx) -> None:
        runs.append((ctx.id, ctx.retries))
        if len({one for one, _ in runs}) == 2:
            enough.set()
        if ctx.retries == 0:
            ctx.retry(countdown=0.1)
        raise ValueError("as it is")

    async with app, app.worker():
        await asyncio.wait_for(enough.wait(), PATIENCE)
    ids = [one for one, _ in runs]
    assert ids == sorted(ids, key=ids.index)  # one run at a time: its retry before the next one
