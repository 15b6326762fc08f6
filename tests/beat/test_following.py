"""Entries that another program keeps: its own scheduler is seen, whoever writes last."""

import asyncio
import time

import pytest

from celeriac.beat.source import Reading, SourceTaken
from celeriac.beat.ticker import Ticker
from tests.beat.conftest import make_place
from tests.beat.places import PATIENCE
from tests.beat.test_ticker import declaring


class Table:
    """A source that is looked at once only, with one entry, which another scheduler may send too."""

    name = "a table"
    every = 3600.0

    def __init__(self, entry):
        self.entry = entry
        self.shared = False
        self.ran = {}
        self.told = asyncio.Queue()

    async def read(self):
        return Reading({self.entry.name: self.entry}, dict(self.ran), frozenset([self.entry.name]))

    async def ticked(self, slots):
        if self.shared and self.ran:
            self.ran = {self.entry.name: time.time() - 0.03}  # the moment at which it sent, which is no slot
        before, self.ran = self.ran, self.ran | dict(slots)
        self.told.put_nowait(dict(slots))
        return before


@pytest.fixture(params=["memory", "sqlite"])
async def table(request, unique, tmp_path):
    app = declaring(make_place(request.param, request, unique, tmp_path))
    source = Table(app.schedules.declared.pop("report").entry)
    async with app, asyncio.timeout(PATIENCE):
        yield source, Ticker(app, [], {}, source)


async def test_what_is_written_hides_no_other_scheduler(table):
    """The note of the other scheduler is there when ours takes its place, and not when the source is looked at."""
    source, ticker = table
    source.shared = True
    with pytest.raises(SourceTaken, match="report was sent by another scheduler"):
        await ticker.run()


async def test_what_this_process_wrote_is_no_other_scheduler(table):
    source, ticker = table
    running = asyncio.create_task(ticker.run())
    told = [await source.told.get() for _ in range(4)]
    ticker.stop()
    await running
    assert len({slots["report"] for slots in told}) == 4
