"""Runs of a periodic task that must not overlap, with workers that run them."""

import asyncio
import time

import pytest

from celeriac.beat.entry import run_id, slot_key
from celeriac.beat.places import places_of
from celeriac.beat.ticking import Ticking
from celeriac.client.periodic import ALONE_HEADER
from celeriac.errors import BackendUnavailable
from celeriac.worker.listeners import Listener
from tests.beat.conftest import make_place
from tests.beat.places import PATIENCE


@pytest.mark.parametrize(
    ("kind", "overlap"),
    [
        ("sqlite", "allow"),
        ("sqlite", "skip"),
        ("redis", "skip"),
        ("redis", "queue_one"),
        ("postgres", "queue_one"),
    ],
)
async def test_runs_overlap_only_where_the_entry_allows_it(kind, overlap, request, unique, tmp_path):
    app = make_place(kind, request, unique, tmp_path).app()
    began, going, most = [], set(), 0
    enough = asyncio.Event()

    @app.periodic(every=0.1, overlap=overlap)
    @app.task
    async def slow() -> None:
        nonlocal most
        mine = object()
        going.add(mine)
        most = max(most, len(going))
        began.append(time.monotonic())
        if len(began) == 2:
            enough.set()
        await asyncio.sleep(0.25)
        going.discard(mine)

    async with app, app.worker():
        await asyncio.wait_for(enough.wait(), PATIENCE)
    assert (most > 1) is (overlap == "allow")


@pytest.mark.parametrize("ignore_result", [False, True])
async def test_a_run_ends_in_the_step_that_settles_it(stored, ignore_result):
    await runs_without_a_call_of_its_own(stored.app(ignore_result=ignore_result))


async def test_where_marks_are_with_the_results_a_run_ends_in_the_step_that_stores_its_result(
    request, unique, tmp_path
):
    place = make_place("rabbitmq+redis", request, unique, tmp_path)
    await runs_without_a_call_of_its_own(place.app())


async def runs_without_a_call_of_its_own(app):
    """Three runs end, though no mark can be removed by a call."""
    enough, runs = asyncio.Event(), set()

    @app.periodic(every=0.1, overlap="skip", overlap_for=600)
    @app.task(bind=True)
    async def report(ctx) -> None:
        runs.add(ctx.id)
        if len(runs) == 3:
            enough.set()

    async def refuse(key, name, value):
        raise BackendUnavailable("marks are removed with what they are about")

    async with app:
        for marks in (board.marks for board in boards_of(app) if board is not None):
            if marks is not None:
                marks.remove = refuse
        async with app.worker():
            await asyncio.wait_for(enough.wait(), PATIENCE)


def boards_of(app):
    connections = app.connections()
    return connections.broker.board, connections.backend.board


class Declined(Listener):
    """Hears of messages that do not run."""

    def __init__(self):
        self.heard = asyncio.Event()

    def declined(self, attempt):
        self.heard.set()


async def test_of_two_copies_of_a_slot_one_runs_and_the_other_ends_no_run(request, unique, tmp_path):
    app, second = make_place("rabbitmq+redis", request, unique, tmp_path).app(), Declined()
    app.schedule("report", "shop.report", 3600, overlap="skip")
    app.listen(second)
    go_on, runs = asyncio.Event(), []

    @app.task(name="shop.report", bind=True)
    async def report(ctx) -> None:
        runs.append(ctx.id)
        await go_on.wait()

    async with app:
        entry, key = app.schedules.declared["report"].entry, slot_key(app.name, "report")
        places, run = places_of(app.connections()), run_id(key, 3600.0)
        message = await app.outbox.prepare(
            Ticking(places, app.outbox, app.send_listeners, {}).call(entry, key, 3600.0)
        )
        assert await places.runs.put(key, run, 600) == run
        for _ in range(2):
            await places.broker.publish_once("a slot", [message])
        async with app.worker(concurrency=2, beat=False):
            await asyncio.wait_for(second.heard.wait(), PATIENCE)
            assert await places.runs.put(key, "another", 600) == run
            go_on.set()
            async with asyncio.timeout(PATIENCE):
                while await places.runs.put(key, "another", 600) == run:  # noqa: ASYNC110 - nothing tells of it
                    await asyncio.sleep(0.02)
    assert runs == [run]


async def test_a_run_that_nobody_ends_stands_in_the_way_for_its_time(shared):
    app = shared.app(ignore_result=True)
    app.schedule("report", "shop.report", 0.1, overlap="skip", overlap_for=0.5)
    async with app, app.worker(queues=["another"]):
        found = await shared.until(app, 2)
        (first, *_) = await app.connections().broker.peek(shared.queue)
        assert first.headers[ALONE_HEADER] is True
    slots = sorted(slot for _, slot in found)
    assert slots[1] - slots[0] > 0.35


async def test_a_failed_run_and_a_retried_one_end_too(stored):
    app = stored.app()
    runs, enough = [], asyncio.Event()

    @app.periodic(every=0.1, overlap="skip")
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
