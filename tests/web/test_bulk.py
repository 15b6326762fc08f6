"""Three hundred failures of three kinds: seen in three groups, and each run again once, however often one asks."""

import asyncio
import html
import re
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from celeriac import Celeriac, Context
from celeriac.monitor.again import RETRY_OF
from tests.servers import RedisServer
from tests.web.site import Site

PARTS = {"shop.pay": 150, "shop.ship": 100, "shop.bill": 50}
RAISED = {"shop.pay": ValueError, "shop.ship": LookupError, "shop.bill": OSError}
ROW = re.compile(
    r'<tr><td data-label="Task">(?P<name>[^<]+)</td>.*?group=(?P<group>[0-9a-f]+)">(?P<error>\w+)<'
    r'.*?data-label="Times">(?P<times>\d+)<',
    re.DOTALL,
)


class Shop:
    """Three tasks that fail until told otherwise; it counts their runs.

    :ivar runs: how often each task ran with each number.
    :ivar retried: of which task each later run says that it is the next.
    """

    def __init__(self, url: str) -> None:
        self.app = Celeriac("shop", url, url, send_events=True)
        self.runs = Counter[tuple[str, int]]()
        self.retried = Counter[str]()
        self.failing = True
        for name, raised in RAISED.items():
            self._define(name, raised)

    def _define(self, name: str, raised: type[Exception]) -> None:
        @self.app.task(name=name)
        async def run(ctx: Context, number: int) -> int:
            self.runs[name, number] += 1
            if RETRY_OF in ctx.headers:
                self.retried[ctx.headers[RETRY_OF]] += 1
            if self.failing:
                raise raised(f"order {number}")
            return number

    async def fail_all(self, site: Site) -> dict[str, str]:
        """Have all tasks fail; return the name of each by its id."""
        calls = [(name, number) for name, parts in PARTS.items() for number in range(parts)]
        sent = await asyncio.gather(*(self.app.send_task(name, [number]) for name, number in calls))
        await asyncio.to_thread(
            site.when, "tasks?state=FAILURE", lambda page: "<p>300 tasks" in page, "300 failures"
        )
        return {result.id: name for result, (name, _) in zip(sent, calls, strict=True)}

    async def until(self, runs: int) -> None:
        """Wait for so many runs; nothing tells of the last."""
        async with asyncio.timeout(60):
            while self.runs.total() < runs:  # noqa: ASYNC110 - bodies count, and know of nobody who waits
                await asyncio.sleep(0.02)


def groups(site: Site) -> dict[str, tuple[str, str, int]]:
    """What the page of errors shows: of each task its group, error and number."""
    found = ROW.finditer(site.page("errors"))
    return {one["name"]: (one["group"], one["error"], int(one["times"])) for one in found}


def run_all_again(site: Site, group: str) -> str:
    """Press the button of a group; return what is said."""
    where = site.post("do/tasks", action="retry", all="yes", group=group, state="FAILURE", back="errors")
    return parse_qs(urlsplit(where).query)["said"][0]


def test_three_hundred_failures(own_redis: RedisServer, tmp_path: Path):
    shop = Shop(own_redis.url())

    async def scenario(site: Site) -> None:
        async with shop.app:
            async with shop.app.worker():
                await asyncio.to_thread(site.shows, "workers", "celeriac@")
                names = await shop.fail_all(site)
                seen = groups(site)
                assert {name: (error, times) for name, (_, error, times) in seen.items()} == {
                    name: (RAISED[name].__name__, parts) for name, parts in PARTS.items()
                }
                assert "The messages of 300 failed tasks are kept whole" in html.unescape(site.page("errors"))
                shop.failing = False

                # A small group is done at once, and pressed twice it is done once.
                assert run_all_again(site, seen["shop.bill"][0]) == "50 tasks sent again"
                assert run_all_again(site, seen["shop.bill"][0]) == (
                    "0 tasks sent again; 50 were sent again before"
                )
                await shop.until(350)
                assert {key for key, runs in shop.runs.items() if runs == 2} == {
                    ("shop.bill", number) for number in range(50)
                }
                assert set(shop.retried) == {id for id, name in names.items() if name == "shop.bill"}

                # A large one goes on by itself.
                assert run_all_again(site, seen["shop.pay"][0]) == "150 tasks: under way, see About"
                await asyncio.to_thread(site.shows, "about", "150 of 150")
                assert run_all_again(site, seen["shop.ship"][0]) == "100 tasks sent again"
                await shop.until(600)
                for group, _, times in seen.values():
                    assert run_all_again(site, group) == f"0 tasks sent again; {times} were sent again before"
                # What was sent before it was taken before it: there is one queue.
                await shop.app.send_task("shop.pay", [-1])
                await shop.until(601)
            del shop.runs["shop.pay", -1]
            assert set(shop.runs.values()) == {2}
            assert shop.retried == Counter(names.keys())
            assert await shop.app.connections().broker.depth("celery") == 0
            assert await shop.app.connections().broker.failed.count() == 0

    with Site(own_redis.url(), tmp_path) as site:
        asyncio.run(scenario(site))


def test_what_failed_anew_is_run_again_and_what_is_forgotten_is_gone(own_redis: RedisServer, tmp_path: Path):
    shop = Shop(own_redis.url())

    async def scenario(site: Site) -> None:
        async with shop.app, shop.app.worker():
            await asyncio.to_thread(site.shows, "workers", "celeriac@")
            await shop.app.send_task("shop.pay", [7])
            await asyncio.to_thread(site.shows, "errors", "shop.pay")
            [(group, _, _)] = groups(site).values()
            assert run_all_again(site, group) == "1 task sent again"
            await asyncio.to_thread(
                site.when, "errors", lambda _: groups(site)["shop.pay"][2] == 2, "two failures"
            )
            assert run_all_again(site, group) == "1 task sent again; 1 were sent again before"
            await asyncio.to_thread(
                site.when, "errors", lambda _: groups(site)["shop.pay"][2] == 3, "three failures"
            )
            assert shop.runs == {("shop.pay", 7): 3}
            site.post("do/tasks", action="forget", all="yes", group=group, back="errors")
            assert groups(site) == {}
            assert "<p>0 tasks" in site.page("tasks")

    with Site(own_redis.url(), tmp_path) as site:
        asyncio.run(scenario(site))
