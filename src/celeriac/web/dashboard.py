"""The dashboard as an ASGI application.

Rules: it works under any path and behind a proxy that strips one, since every link is relative. It starts to watch with
the first request, or when the server says so, and ends with the server. Every answer forbids scripts and styles from
elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from celeriac.client.app import App
from celeriac.errors import CeleriacError
from celeriac.monitor.history import DEFAULT
from celeriac.monitor.masking import NAMES
from celeriac.monitor.monitor import Monitor
from celeriac.web.access import Access, Authorize, access_of, all_access, refusal
from celeriac.web.doing import ACTIONS
from celeriac.web.live import Streams
from celeriac.web.pages import PAGES
from celeriac.web.rendering import Site

HERE = Path(__file__).parent

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a dashboard behaves.

    :param read_only: nobody may change anything.
    :param hosts: hosts besides the loopback's that may be asked for; ``None`` for any.
    """

    authorize: Authorize | None = None
    read_only: bool = False
    hosts: Sequence[str] | None = None


class Dashboard:
    """An ASGI application that shows a fleet.

    :param monitor: what it shows; it is entered with the first request and left by ``close``.
    """

    def __init__(self, monitor: Monitor, settings: Settings) -> None:
        self.monitor = monitor
        self._settings = settings
        self._starting = asyncio.Lock()
        self._started = False
        self._site = Site(monitor, HERE / "templates")
        self._streams = Streams(self._site, PAGES)
        inner = Starlette(
            routes=[
                *(Route(f"{path}/", _without_slash) for path in PAGES if path != "/" and "{" not in path),
                *(Route(path, self._showing(page), methods=["GET"]) for path, page in PAGES.items()),
                *(Route(path, self._doing(act), methods=["POST"]) for path, act in ACTIONS.items()),
                Route("/live", self._stream, methods=["GET"]),
                Mount("/static", StaticFiles(directory=HERE / "static")),
            ],
            exception_handlers={CeleriacError: self._trouble, HTTPException: self._mistaken},
        )
        # Its redirects name a host and a whole path, which are wrong behind a proxy that strips one.
        inner.router.redirect_slashes = False
        self._inner: ASGIApp = inner

    async def start(self) -> None:
        """Begin to watch; a second time does nothing."""
        async with self._starting:
            if not self._started:
                await self.monitor.__aenter__()
                self._started = True

    def end_streams(self) -> None:
        """End the streams of open pages; new ones end at once."""
        self._streams.close()

    async def close(self) -> None:
        """End the open streams, and stop watching."""
        self.end_streams()
        async with self._starting:
            if self._started:
                self._started = False
                await self.monitor.__aexit__()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            await send(
                {"type": "websocket.close"}
            )  # before it is accepted, which the server answers with 403
            return
        answer = await self._refusal(HTTPConnection(scope))
        if answer is not None:
            await answer(scope, receive, _protected(send))
            return
        await self.start()
        await self._inner(scope, receive, _protected(send))

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start and stop with the server."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await self.start()
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _refusal(self, connection: HTTPConnection) -> Response | None:
        """Return the answer to a request that may not go on, and note what its sender may do."""
        method, headers = connection.scope["method"], dict(connection.headers)
        if (reason := refusal(method, headers, self._hosts())) is not None:
            return PlainTextResponse(reason, 403)
        access = await access_of(self._settings.authorize or all_access, connection)
        if access < Access.READ:
            return PlainTextResponse(
                "who are you?", 401, {"WWW-Authenticate": 'Basic realm="celeriac", charset="UTF-8"'}
            )
        if self._settings.read_only:
            access = Access.READ
        if method not in ("GET", "HEAD") and access < Access.WRITE:
            return PlainTextResponse("you may look, and change nothing", 403)
        connection.scope["celeriac_access"] = access
        return None

    def _hosts(self) -> Sequence[str] | None:
        if self._settings.hosts is None and self._settings.authorize is None:
            return ()  # nobody is asked for a name, so only this machine is answered
        return self._settings.hosts

    def _showing(self, page: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            return await self._site.answer(request, page)

        return endpoint

    def _doing(self, act: Any) -> Any:
        async def endpoint(request: Request) -> Response:
            outcome = await act(self.monitor, request)
            who = request.scope.get("celeriac_user", "somebody")
            await self.monitor.history.note(who, outcome.what, outcome.text)
            return Response(status_code=303, headers={"Location": _with_word(outcome.back, outcome.text)})

        return endpoint

    async def _stream(self, request: Request) -> Response:
        return self._streams.open(request)

    async def _mistaken(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self._site.mistaken(request, error.status_code)

    async def _trouble(self, request: Request, error: Exception) -> Response:
        return await self._site.trouble(request, error)


def dashboard(
    app: App,
    *,
    authorize: Authorize | None = None,
    history: str | Path | None = None,
    read_only: bool = False,
    hosts: Sequence[str] | None = None,
    mask: Sequence[str] = NAMES,
) -> Dashboard:
    """Return the dashboard of an app, to be mounted in an ASGI application, or served alone.

    :param authorize: says what the sender of a request may do; without it only this machine is answered.
    :param history: the file that keeps what became of tasks, ``celeriac-history.db`` by default; or the URL of a
        PostgreSQL database, which keeps it in the schema ``celeriac_history`` or that of the URL.
    :param read_only: nobody may change anything.
    :param hosts: hosts besides the loopback's that may be asked for. With ``authorize`` the default is any.
    :param mask: parts of the names whose values are hidden.
    """
    monitor = Monitor(app, history if history is not None else DEFAULT, mask=tuple(mask))
    return Dashboard(monitor, Settings(authorize=authorize, read_only=read_only, hosts=hosts))


async def _without_slash(request: Request) -> Response:
    """Lead to the page whose path somebody wrote with a slash at its end."""
    name = request.scope["path"].rstrip("/").rpartition("/")[2]
    return Response(status_code=307, headers={"Location": f"../{name}"})


def _protected(send: Send) -> Send:
    """Return what sends answers with the headers that forbid foreign content, and keeping pages."""

    async def protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=_as_scope(message))
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return protected


def _as_scope(message: Message) -> MutableMapping[str, Any]:
    message["headers"] = list(message.get("headers", ()))
    return message


def _with_word(back: str, text: str) -> str:
    return f"{back}{'&' if '?' in back else '?'}said={quote(text, errors='replace')}"
