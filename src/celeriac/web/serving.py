"""Serves the dashboard alone, with uvicorn."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager

import uvicorn

from celeriac.client.app import App
from celeriac.errors import ConfigError
from celeriac.monitor.monitor import Monitor
from celeriac.web.access import Authorize
from celeriac.web.dashboard import dashboard

GOODBYE = 1
"""Seconds that open requests have when the server ends."""


class _Server(uvicorn.Server):
    """A server that ends the dashboard's streams first, which would else last as long as the pages are open."""

    def __init__(self, config: uvicorn.Config, end_streams: Callable[[], None]) -> None:
        super().__init__(config)
        self._end_streams = end_streams

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._end_streams()
        await super().shutdown(sockets)


async def serve(
    app: App,
    *,
    host: str,
    port: int,
    history: str,
    authorize: Authorize | None,
    hosts: Sequence[str],
    read_only: bool,
    ready: Callable[[str], None],
    around: Callable[[Monitor], AbstractAsyncContextManager[None]],
) -> None:
    """Serve until SIGTERM or SIGINT.

    :param port: 0 for any that is free.
    :param ready: called with the address once browsers can connect.
    :param around: makes what is entered before and left after.

    Raises ``ConfigError`` where the address is taken, ``CeleriacError`` where the history cannot be used.
    """
    site = dashboard(app, authorize=authorize, history=history, hosts=hosts, read_only=read_only)
    config = uvicorn.Config(site, log_level="warning", lifespan="on", timeout_graceful_shutdown=GOODBYE)
    server = _Server(config, site.end_streams)
    with _listen(host, port) as listener:
        async with app, around(site.monitor):
            await site.start()  # what it raises is one line here, and a traceback of uvicorn's within it
            try:
                ready(_address(listener))
                with _ended_by_signals():
                    await server.serve([listener])
            finally:
                await site.close()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT be an ordinary end: uvicorn raises them again when it has ended for them."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port}: {error.strerror or error}; choose another port with -p"
        ) from error


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
