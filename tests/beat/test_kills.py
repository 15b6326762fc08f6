"""Each slot is sent once, though the processes that tick are killed, stand still and are cut off.

``make chaos ARGS=ticks`` does it for minutes, on each kind of broker.
"""

import asyncio

import pytest

from tests.beat.conftest import make_place
from tests.beat.fleet import Fleet
from tests.beat.places import PATIENCE

SHORT = 1.5
"""Seconds for which a process is hampered: longer than a lease."""


@pytest.fixture(params=["redis"])
def stored(request, unique, tmp_path):
    """Where the processes tick."""
    return make_place(request.param, request, unique, tmp_path)


async def test_a_leader_that_stood_still_one_that_is_cut_off_and_one_that_is_killed(stored):
    async with stored.app() as app, Fleet(stored, *stored.urls, entries=6, every=0.25) as fleet:
        first, *others = await asyncio.gather(*(fleet.start() for _ in range(3)))
        await stored.until(app, 4)
        for member in (first, *others):
            await asyncio.to_thread(member.process.wait_for, "always ticked since")
        for how in ("stopped", "cut off", "killed"):
            await fleet.harm(fleet.leader(), how, SHORT)
        assert sum(member.process.running for member in fleet.members) == 2
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            while any(member.hampered for member in fleet.members):  # noqa: ASYNC110 - it ends by itself
                await asyncio.sleep(0.05)
        await stored.until(app, await stored.depth(app) + 5)
        assert await fleet.problems(copies=False) == []
