"""From a page's data to HTML.

Rules: everything is escaped; a page's part that changes by itself is its block ``live``, which can be rendered alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from celeriac.errors import CeleriacError
from celeriac.monitor.monitor import Monitor
from celeriac.web import showing
from celeriac.web.access import Access
from celeriac.web.graph import draw

LINKS = (
    ("", "Overview"),
    ("tasks", "Tasks"),
    ("errors", "Errors"),
    ("queues", "Queues"),
    ("workers", "Workers"),
    ("scheduled", "Scheduled"),
    ("dead", "Dead"),
    ("about", "About"),
)
"""The pages of the menu."""


class Rendered(msgspec.Struct, frozen=True):
    """What a page shows.

    :param template: the name of its file.
    :param status: of HTTP.
    """

    template: str
    title: str
    data: Mapping[str, Any]
    status: int = 200


Page = Callable[[Monitor, Request], Awaitable[Rendered]]


class Site:
    """Renders the pages of a dashboard."""

    def __init__(self, monitor: Monitor, templates: Path) -> None:
        self.monitor = monitor
        self._environment = Environment(
            loader=FileSystemLoader(templates),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"span": showing.span, "shape": showing.shape}
        self._version = version("celeriac")

    async def answer(self, request: Request, page: Page) -> Response:
        """Return the whole page."""
        return self._page(request, await page(self.monitor, request))

    async def live(self, request: Request, page: Page) -> str:
        """Return the part of a page that changes by itself."""
        rendered = await page(self.monitor, request)
        template = self._environment.get_template(rendered.template)
        context = template.new_context(self._context(request, rendered))
        return "".join(template.blocks["live"](context))

    def mistaken(self, request: Request, status: int) -> Response:
        """Return the page for an address that is none of the dashboard's, or takes no such request."""
        text = "There is no such page here." if status == 404 else "Buttons lead here, addresses do not."
        return self._page(request, Rendered("unknown.html", "No such page", {"text": text}, status))

    async def trouble(self, request: Request, error: Exception) -> Response:
        """Return the page that says what is wrong."""
        text = str(error) if isinstance(error, CeleriacError) else repr(error)
        return self._page(request, Rendered("trouble.html", "Something is wrong", {"text": text}, 503))

    def _page(self, request: Request, rendered: Rendered) -> Response:
        template = self._environment.get_template(rendered.template)
        return HTMLResponse(template.render(self._context(request, rendered)), rendered.status)

    def _context(self, request: Request, rendered: Rendered) -> dict[str, Any]:
        now, mask = self.monitor.clock.now(), self.monitor.mask
        up = up_from(request)
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "")).lstrip("/")
        return {
            "title": rendered.title,
            "links": LINKS,
            "here": path.partition("/")[0],
            "path": path,
            "query": request.url.query,
            "up": up,
            "may_write": request.scope.get("celeriac_access", Access.READ) >= Access.WRITE,
            "user": request.scope.get("celeriac_user", ""),
            "said": request.query_params.get("said", "")[:500],
            "now": now,
            "moment": lambda at: showing.moment(at, now),
            "tree": lambda text: showing.tree(text, mask),
            "bars": showing.bars,
            "spark": showing.spark,
            "draw": lambda tasks: draw(tasks, up),
            "version": self._version,
            "trouble": self.monitor.trouble,
            **rendered.data,
        }


def up_from(request: Request) -> str:
    """Return the relative path from a page to the dashboard's root."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", "")).lstrip("/")
    return "../" * path.count("/") or "./"
