"""Keeps an open page up to date by server-sent events (WHATWG HTML, 9.2).

Rules: a page is rendered at most twice a second, and sent only where it differs from what was sent before. Streams end
with the server; no more than ``MOST`` are open.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Match, Route

from celeriac.errors import CeleriacError
from celeriac.web.rendering import Page, Site

MOST = 100
BETWEEN = 1.0
"""Seconds between two looks at a page."""

_RETRY = "retry: 3000\n\n"
_KEEP = ": still here\n\n"
_SILENT = 15


class Streams:
    """The open streams of a dashboard.

    :param pages: what can be followed, by path.
    """

    def __init__(self, site: Site, pages: Mapping[str, Page]) -> None:
        self._site = site
        self._pages = pages
        self._closing = asyncio.Event()
        self._open = 0

    def close(self) -> None:
        """End all of them."""
        self._closing.set()

    def open(self, request: Request) -> Response:
        """Return the stream of the page that the query names as ``path``."""
        wanted = urlsplit(request.query_params.get("path", ""))
        found = _find(self._pages, request, wanted.path, wanted.query)
        if found is None:
            return PlainTextResponse("there is no such page", 404)
        if self._open >= MOST:
            return PlainTextResponse("too many pages are open", 503)
        return StreamingResponse(
            self._changes(*found), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def _changes(self, page: Page, request: Request) -> AsyncIterator[str]:
        self._open += 1
        try:
            yield _RETRY
            before, silent = "", 0
            while not self._closing.is_set():
                html = await self._html(page, request, before)
                if html != before:
                    before, silent = html, 0
                    yield "".join(f"data: {line}\n" for line in html.splitlines()) + "\n"
                elif (silent := silent + 1) >= _SILENT:
                    silent = 0
                    yield _KEEP
                await _either(self._closing, BETWEEN)
        finally:
            self._open -= 1

    async def _html(self, page: Page, request: Request, before: str) -> str:
        try:
            return await self._site.live(request, page)
        except CeleriacError:
            return before  # the broker is away: the page stays as it was


async def _either(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


def _find(pages: Mapping[str, Page], request: Request, path: str, query: str) -> tuple[Page, Request] | None:
    root = request.scope.get("root_path", "")
    scope = {
        **request.scope,
        "path": f"{root}/{path.lstrip('/')}",
        "query_string": query.encode(),
        "method": "GET",
    }
    scope.pop("path_params", None)
    for pattern, page in pages.items():
        match, child = Route(pattern, lambda _: Response(), methods=["GET"]).matches(scope)
        if match is Match.FULL:
            return page, Request({**scope, **child})
    return None
