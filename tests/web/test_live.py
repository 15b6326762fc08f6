"""Open pages: rendered once for all who look, and no more when nobody does."""

import asyncio
import http.client
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

from starlette.requests import Request

from celeriac.errors import BrokerUnavailable
from celeriac.web.access import Access
from celeriac.web.live import Streams
from celeriac.web.rendering import Page
from celeriac.web.rendering import Site as Rendered
from tests.web.site import Site

WAIT = 10.0


class Rendering:
    """A site whose page is what it is told."""

    def __init__(self) -> None:
        self.html = "one\ntwo"
        self.renders = 0
        self.away = False

    async def live(self, request: Request, page: Page) -> str:
        self.renders += 1
        if self.away:
            raise BrokerUnavailable("away")
        return f"{self.html} {request.scope['celeriac_access'].name}"


def request(access: Access = Access.READ) -> Request:
    return Request(
        {"type": "http", "path": "/tasks", "query_string": b"", "headers": [], "celeriac_access": access}
    )


async def following(stream: AsyncIterator[str]) -> str:
    async with asyncio.timeout(WAIT):
        return await anext(stream)


async def test_all_who_look_share_one_rendering():
    rendering = Rendering()
    streams = Streams(cast(Rendered, rendering), {})
    page = cast(Page, None)
    viewers: list[Any] = [streams.changes(page, request()) for _ in range(3)]
    for viewer in viewers:
        assert (await following(viewer)).startswith("retry:")
        assert await following(viewer) == "data: one\ndata: two READ\n\n"
    assert rendering.renders == 1
    writer: Any = streams.changes(page, request(Access.WRITE))
    await following(writer)
    assert await following(writer) == "data: one\ndata: two WRITE\n\n"
    rendering.html = "three"
    assert [await following(viewer) for viewer in viewers] == 3 * ["data: three READ\n\n"]
    for viewer in (*viewers, writer):
        await viewer.aclose()
    before = rendering.renders
    await asyncio.sleep(0)
    assert rendering.renders == before
    assert not [
        task
        for task in asyncio.all_tasks()
        if task.get_name() == "celeriac-web-view" and not task.cancelling()
    ]


async def test_streams_end_with_the_server_also_while_the_broker_is_away():
    rendering = Rendering()
    rendering.away = True
    streams = Streams(cast(Rendered, rendering), {})
    stream: Any = streams.changes(cast(Page, None), request())
    await following(stream)
    waiting = asyncio.create_task(following(stream))
    await asyncio.sleep(0)
    streams.close()
    try:
        await waiting
    except StopAsyncIteration:
        return
    raise AssertionError("the stream goes on")


def test_a_server_with_open_streams_ends_at_once(redis_url: str, tmp_path: Path):
    with ExitStack() as stack:
        site = Site(redis_url, tmp_path)
        site.start()
        for _ in range(20):
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=WAIT)
            stack.callback(connection.close)
            connection.request("GET", "/live?path=tasks")
            assert connection.getresponse().readline() == b"retry: 3000\n"
        began = time.monotonic()
        assert site.process.stop(timeout=WAIT) == 0
        assert time.monotonic() - began < WAIT / 2  # it is a second where the machine has nothing else to do
