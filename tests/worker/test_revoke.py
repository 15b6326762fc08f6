"""Tasks that were revoked do not run, or run no further, on every broker."""

import asyncio
import threading
import time
from typing import cast

import pytest

from celeriac import Celeriac, TaskRevoked
from celeriac.client.revocations import Revocations, stamp
from celeriac.wire.task import TaskMessage
from celeriac.worker.revocations import RevocationList

WAIT = 60.0


async def test_a_queued_task_that_was_revoked_before_any_worker_ran_never_runs(app: Celeriac):
    ran: list[str] = []

    @app.task
    async def note(name: str) -> None:
        ran.append(name)

    revoked = await note.send("revoked")
    kept = await note.send("kept")
    await app.connections().revocations.add([revoked.id])
    async with app.worker():
        await kept.wait(WAIT)
        with pytest.raises(TaskRevoked, match="revoked"):
            await revoked.wait(WAIT)
    assert ran == ["kept"]


async def test_a_whole_workflow_is_revoked_by_its_root(app: Celeriac):
    @app.task
    async def note() -> None: ...

    members = [await note.using(root_id="the-root").send() for _ in range(3)]
    await app.connections().revocations.add([], roots=["the-root"])
    async with app.worker():
        for member in members:
            with pytest.raises(TaskRevoked):
                await member.wait(WAIT)


async def test_a_running_coroutine_is_cancelled_and_may_clean_up(app: Celeriac):
    inside, cleaned = asyncio.Event(), asyncio.Event()

    @app.task
    async def endless() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    async with app.worker():
        result = await endless.send()
        await inside.wait()
        await app.connections().revocations.add([result.id])
        with pytest.raises(TaskRevoked, match="terminated"):
            await result.wait(WAIT)
    assert cleaned.is_set()
    assert await app.connections().broker.depth(app.settings.default_queue) == 0


async def test_a_running_function_in_a_thread_cannot_be_stopped_and_ends_as_it_does(app: Celeriac):
    inside, release = threading.Event(), threading.Event()

    @app.task
    def slow() -> str:
        inside.set()
        release.wait(WAIT)
        return "done"

    async with app.worker() as worker:
        result = await slow.send()
        await asyncio.to_thread(inside.wait, WAIT)
        await app.connections().revocations.add([result.id], terminate=True)
        loop = asyncio.get_running_loop()
        loop.call_later(1.5, release.set)  # one look at the revocations later
        assert await result.wait(WAIT) == "done"
    assert worker.tally.ended["REVOKED"] == 0


async def test_a_worker_that_starts_later_knows_what_was_revoked(app: Celeriac):
    @app.task
    async def note() -> None: ...

    await app.connections().revocations.add(["an-id"])
    async with app.worker():
        with pytest.raises(TaskRevoked):
            await (await note.using(task_id="an-id").send()).wait(WAIT)


async def test_a_revocation_counts_while_it_is_stored(app: Celeriac):
    """Its sender may have sent the task next, and the message may be here before the broker has answered."""
    known = RevocationList(app.connections().revocations, time.monotonic)
    red = TaskMessage(id="red", task="paint", stamps={"color": ["red"]})
    blue = TaskMessage(id="blue", task="paint", stamps={"color": ["blue"]})
    with known.ahead(ids=["blue"]), known.ahead(stamps=[stamp("color", "red")]):
        await known.look()
        assert known.revoked.names(red)
        assert known.revoked.names(blue)
    assert not known.revoked.names(red)
    assert not known.revoked.names(blue)


async def test_an_idle_worker_looks_for_no_revocations_and_a_busy_one_does(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("celeriac.worker.revocations.LOOK_EVERY", 0.01)
    asked, changed, running = [], asyncio.Event(), set[str]()

    class Source:
        async def revision(self) -> int:
            return 0

    def is_busy() -> bool:
        asked.append(None)
        return bool(running)

    revocations = RevocationList(cast("Revocations", Source()), time.monotonic)
    watching = asyncio.create_task(revocations.watch(is_busy, changed.set))
    try:
        await asyncio.sleep(0.1)
        assert len(asked) == 1
        running.add("a body")
        revocations.taken.set()
        await asyncio.wait_for(changed.wait(), WAIT)
    finally:
        watching.cancel()
