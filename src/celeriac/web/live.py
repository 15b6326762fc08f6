"""Keeps an open page up to date by server-sent events (WHATWG HTML, 9.2).

Rules: a page is rendered twice a second for all users who look at it with the same rights, less often where that takes
long, and sent only where it differs from what was sent before. Streams end with the server; no more than ``MOST`` are
open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Match, Route

from celeriac.errors import CeleriacError
from celeriac.web.rendering import Page, Site

logger = logging.getLogger(__name__)

MOST = 100
BETWEEN = 0.5
"""Seconds between two looks at a page."""

_SHARE = 0.1
"""The part of the time in which one page may be rendered: one that takes 1 s is rendered every 10 s."""

_RETRY = "retry: 3000\n\n"
_KEEP = ": still here\n\n"
_SILENT = 15.0
"""Seconds without a change after which a sign of life is sent."""


class Streams:
    """The open streams of a dashboard.

    :param pages: what can be followed, by path.
    """

    def __init__(self, site: Site, pages: Mapping[str, Page]) -> None:
        self._site = site
        self._pages = pages
        self._views: dict[object, _View] = {}
        self._closing = False
        self._open = 0

    def close(self) -> None:
        """End all of them."""
        self._closing = True
        for view in self._views.values():
            view.wake()

    def open(self, request: Request) -> Response:
        """Return the stream of the page that the query names as ``path``."""
        wanted = urlsplit(request.query_params.get("path", ""))
        found = _find(self._pages, request, wanted.path, wanted.query)
        if found is None:
            return PlainTextResponse("there is no such page", 404)
        if self._open >= MOST:
            return PlainTextResponse("too many pages are open", 503)
        return StreamingResponse(
            self.changes(*found), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def changes(self, page: Page, request: Request) -> AsyncIterator[str]:
        """Yield the page as events: at once, and whenever it has changed."""
        self._open += 1
        scope = request.scope
        key = (scope["path"], scope.get("root_path"), scope["query_string"], scope.get("celeriac_access"))
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = _View(lambda: self._site.live(request, page))
        view.viewers += 1
        try:
            yield _RETRY
            seen = 0
            while not self._closing:
                if view.version == seen:
                    if not await view.changed(_SILENT):
                        yield _KEEP
                    continue
                seen = view.version
                yield "".join(f"data: {line}\n" for line in view.html.splitlines()) + "\n"
        finally:
            self._open -= 1
            view.viewers -= 1
            if not view.viewers:
                view.end()
                self._views.pop(key, None)


class _View:
    """One page, as all its viewers with the same rights see it.

    :ivar version: how often it has changed.
    """

    def __init__(self, render: Callable[[], Awaitable[str]]) -> None:
        self._render = render
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._follow(), name="celeriac-web-view")
        self.html = ""
        self.version = 0
        self.viewers = 0

    async def changed(self, seconds: float) -> bool:
        """Wait until it changes, or is over; return ``False`` if the time is up before."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """End every wait for a change."""
        self._news.set()
        self._news = asyncio.Event()

    def end(self) -> None:
        """Render it no more."""
        self._task.cancel()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            # While the broker is away the page stays as it was; a fault of one look does not end the others.
            try:
                html = await self._render()
            except CeleriacError:
                html = self.html
            except Exception:
                logger.exception("a page could not be rendered")
                html = self.html
            if html != self.html:
                self.html = html
                self.version += 1
                self.wake()
            await asyncio.sleep(max(BETWEEN, (loop.time() - began) / _SHARE))


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
