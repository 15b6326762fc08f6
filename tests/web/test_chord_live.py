"""A workflow that runs while its page is open: what ends is seen within a second."""

import asyncio
import html
import http.client
import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from celeriac import Celeriac, Result, chord
from tests.web.site import PATIENCE, Site

PARTS = 100
SOON = 1.0
"""Seconds within which an ending is seen."""

MEASURED, ROUNDS = 9, 6
"""Endings whose median must be soon, and how often a machine that is busy with other things may try."""

DONE = re.compile(rf"(\d+) of {PARTS} part")


class Stream:
    """What the server sends to an open page."""

    def __init__(self, site: Site, path: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)
        self.connection.request("GET", f"/live?path={path}")
        self._response = self.connection.getresponse()

    def pages(self) -> Iterator[str]:
        """Yield each page when it has come."""
        lines = list[str]()
        while line := self._response.readline().decode():
            if line.startswith("data: "):
                lines.append(html.unescape(line.removeprefix("data: ")))
            elif lines and not line.strip():
                yield "".join(lines)
                lines.clear()

    def until(self, done: int) -> float:
        """Return when so many parts were seen to have ended, by this process's clock."""
        for page in self.pages():
            found = DONE.search(page)
            if found and int(found[1]) >= done:
                return time.monotonic()
        raise AssertionError("the stream ended")


class Shop:
    """A chord of a hundred parts that end when they are let."""

    def __init__(self, url: str) -> None:
        self.app = Celeriac("shop", url, url, send_events=True)
        self.let = asyncio.Semaphore(0)
        self.ended = asyncio.Queue[float]()
        self.broken = -1

        @self.app.task(name="shop.part")
        async def part(number: int) -> int:
            async with asyncio.timeout(PATIENCE):
                await self.let.acquire()
            self.ended.put_nowait(time.monotonic())
            if number == self.broken:
                raise ValueError("broken")
            return number

        @self.app.task(name="shop.total")
        async def total(numbers: list[int]) -> int:
            return sum(numbers)

        self.part, self.total = part, total

    async def begin(self, site: Site) -> Result[int]:
        """Send the chord; return its result when its page shows all parts."""
        result = await chord([self.part.s(number) for number in range(PARTS)], self.total.s()).send()
        await asyncio.to_thread(site.shows, f"tasks/{await self.first(site)}", f"0 of {PARTS} part")
        return result

    async def first(self, site: Site) -> str:
        """Return the id of a part, as the page of tasks has it."""
        page = await asyncio.to_thread(
            site.when, "tasks?name=shop.part", lambda page: f"<p>{PARTS} tasks" in page, "all parts"
        )
        [id, *_] = re.findall(r'aria-label="choose ([0-9a-f-]{36})"', page)
        return id


async def measured(shop: Shop, stream: Stream) -> list[float]:
    """Let parts end, one after another; return the seconds until each was seen, of the rounds up to a good one."""
    for ends in range(1, ROUNDS + 1):
        found = list[float]()
        for number in range(MEASURED):
            shop.let.release()
            seen = await asyncio.to_thread(stream.until, (ends - 1) * MEASURED + number + 1)
            found.append(seen - shop.ended.get_nowait())
        if sorted(found)[MEASURED // 2] <= SOON:
            return found
    raise AssertionError(f"an ending is seen after {sorted(found)} s")


@pytest.fixture
def url(tmp_path: Path) -> str:
    (tmp_path / "shop.db").touch()  # the dashboard makes no file, which would hide a mistyped name
    return f"sqlite:///{tmp_path}/shop.db"


def test_the_drawing_of_a_chord_follows_within_a_second(url: str, tmp_path: Path):
    async def scenario(site: Site) -> None:
        shop = Shop(url)
        async with shop.app, shop.app.worker(concurrency=PARTS + 1):
            await asyncio.to_thread(site.shows, "workers", "celeriac@")
            result = await shop.begin(site)
            stream = await asyncio.to_thread(Stream, site, f"tasks/{await shop.first(site)}")
            with closing(stream.connection):
                await measured(shop, stream)
                for _ in range(PARTS):
                    shop.let.release()
                await asyncio.to_thread(stream.until, PARTS)
                assert await result == sum(range(PARTS))
                for page in stream.pages():
                    if re.search(r'state-success"><title>shop\.total SUCCESS', page):
                        break
            assert re.search(r'state-success"><title>shop\.part SUCCESS', page)

    with Site(url, tmp_path) as site:
        asyncio.run(scenario(site))


def test_a_part_that_failed_is_red_and_runs_again_from_the_workflow(url: str, tmp_path: Path):
    async def scenario(site: Site) -> None:
        shop = Shop(url)
        shop.broken = 42
        async with shop.app, shop.app.worker(concurrency=PARTS + 1):
            await asyncio.to_thread(site.shows, "workers", "celeriac@")
            await shop.begin(site)
            for _ in range(PARTS + 1):
                shop.let.release()
            part = await shop.first(site)
            page = await asyncio.to_thread(
                site.shows, f"tasks/{part}", 'state-failure"><title>shop.part FAILURE'
            )
            [root] = re.findall(r'tasks\?root=([0-9a-f-]{36})">as a list', page)
            shop.broken = -1
            said = await asyncio.to_thread(
                site.post, "do/tasks", action="retry", all="yes", root=root, state="FAILURE", name="shop.part",
                back="tasks",
            )  # fmt: skip
            assert "1%20task%20sent%20again" in said
            await asyncio.to_thread(
                site.when, f"tasks?root={root}&name=shop.part&state=SUCCESS",
                lambda page: f"<p>{PARTS} tasks" in page, "the part's second run",
            )  # fmt: skip

    with Site(url, tmp_path) as site:
        asyncio.run(scenario(site))
