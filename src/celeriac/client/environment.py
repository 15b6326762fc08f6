"""Reads the URLs of broker and result store from the environment.

Rules: a variable may be meant for another program, such as Celery on the same machine. So a URL that cannot be used
raises its error on the first use of that connection, and not when the app is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from celeriac.errors import ConfigError
from celeriac.servers.url_parts import scheme_of
from celeriac.servers.urls import OpenServer

if TYPE_CHECKING:
    from celeriac.contracts.backend import Backend
    from celeriac.contracts.broker import Broker

BROKER_VARIABLES = ("CELERIAC_BROKER", "CELERY_BROKER_URL")
BACKEND_VARIABLES = ("CELERIAC_BACKEND", "CELERY_RESULT_BACKEND")


class Said:
    """The URL of one connection in the environment.

    :param names: the variables; the first that is set is taken.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._own = names[0]
        self.name = next((name for name in names if os.environ.get(name, "").strip()), "")
        self.url = os.environ.get(self.name, "").strip()

    def opener(self, make: Callable[[], OpenServer], argument: str) -> OpenServer:
        """Return the opener of this URL's server; for a bad URL, one whose server raises the error on first use.

        :param argument: the app's argument that takes precedence over the variable.
        """
        open_server: OpenServer | None = None

        def open_or_not(connections: object | None = None, /) -> Any:
            nonlocal open_server
            try:
                # A scheme is judged when the opener is made, the rest of a URL when the server is opened.
                open_server = open_server or make()
                return open_server(connections)
            except ConfigError as error:
                return Unusable(
                    f"{self.name} in the environment cannot be used: {error}; "
                    f"{self._own} or the app's {argument}= would go before it",
                    keeps_results=argument == "backend",
                )

        return open_or_not


def chosen_urls(name: str, broker: str | Broker | None, backend: str | Backend | None) -> tuple[str, str]:
    """Return the URLs of broker and results: what was given, else the environment's, else the file of that name.

    Empty for an object in place of a URL. Raises ``ConfigError`` where the file is a symbolic link.
    """
    broker_url = broker if isinstance(broker, str) else ""
    if broker is None:
        broker_url = Said(BROKER_VARIABLES).url or f"sqlite:///{_default_file(name)}"
    backend_url = backend if isinstance(backend, str) else ""
    if backend is None:
        local = scheme_of(broker_url) in ("sqlite", "memory", "postgresql", "postgres")
        backend_url = Said(BACKEND_VARIABLES).url or (broker_url if local else "disabled://")
    return broker_url, backend_url


def _default_file(name: str) -> str:
    """Return the default file. Raises for a symbolic link, which another user may have put into this directory."""
    file = Path(f"{name}.db")
    if file.is_symlink():
        raise ConfigError(
            f"{str(file.absolute())!r}, the file that is used where no broker is given, is a symbolic link and is not "
            f"followed: name the file, broker={'sqlite:///' + str(file.resolve())!r}"
        )
    return str(file)


class Unusable:
    """Stands for a server that cannot be opened.

    :param keeps_results: whether results were to be there.
    """

    def __init__(self, text: str, *, keeps_results: bool) -> None:
        self._nothing = cast("Any", _Nothing(text))
        self._keeps_results = keeps_results

    @property
    def broker(self) -> Any:
        """A broker that raises ``ConfigError`` when it is used."""
        return self._nothing

    @property
    def board(self) -> Any:
        """A board that raises ``ConfigError`` when it is used."""
        return self._nothing

    def results(self, url: str) -> Any:
        """Return a result store that raises ``ConfigError`` when it is used."""
        return self._nothing if self._keeps_results else None

    async def close(self) -> None:
        """Nothing is open."""


class _Nothing:
    """A broker or result store whose every attribute raises ``ConfigError``."""

    replies = None
    """A sender may do without the results."""

    connections = None

    def __init__(self, text: str) -> None:
        self._text = text

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(self._text)

    def settlements(self, results: object) -> None:
        """Return ``None``: without a broker no task ends."""

    def check_id(self, task_id: str) -> None:
        """Accept every id: a sender that needs no result is not stopped by the store's URL."""

    async def close(self) -> None:
        """Nothing is open."""
