"""Each slot is sent once, though the processes that tick are killed and stand still."""

import asyncio
import os
import signal

import pytest

from tests.beat.conftest import make_place
from tests.beat.fleet import Fleet
from tests.beat.places import PATIENCE


@pytest.fixture(params=["sqlite", "redis"])
def stored(request, unique, tmp_path):
    """Where the processes tick; ``make beat-chaos`` has the others."""
    return make_place(request.param, request, unique, tmp_path)


@pytest.fixture
def fleet(stored):
    made = Fleet(stored, *stored.urls, entries=6, every=0.25)
    yield made
    made.end()


async def test_a_leader_that_is_killed_and_one_that_stood_still(stored, fleet):
    app = stored.app()
    async with app:
        first = fleet.start()
        await stored.until(app, 4)
        second, third = fleet.start(), fleet.start()
        for process in (second, third):
            await asyncio.to_thread(process.wait_for, "always ticked since")
        first.kill()
        sent = sum((await stored.slots(app)).values())
        await stored.until(app, sent + 5)
        leader = fleet.leader()
        os.kill(leader.pid, signal.SIGSTOP)
        sent = sum((await stored.slots(app)).values())
        await stored.until(app, sent + 5)
        os.kill(leader.pid, signal.SIGCONT)
        sent = sum((await stored.slots(app)).values())
        await stored.until(app, sent + 5)
        assert second.running
        assert third.running
        async with asyncio.timeout(PATIENCE):
            assert await fleet.problems(copies=app.connections().broker.may_repeat) == []
