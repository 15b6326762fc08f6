"""Open pages: rendered once for all who look, and no more when nobody does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

from starlette.requests import Request

from celeriac.errors import BrokerUnavailable
from celeriac.web.access import Access
from celeriac.web.live import Streams
from celeriac.web.rendering import Page, Site

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
    streams = Streams(cast(Site, rendering), {})
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
    streams = Streams(cast(Site, rendering), {})
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
