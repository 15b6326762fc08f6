"""Where to connect, as the environment says.

Rules: what stands in the environment may be meant for others, Celery beside us most of all. So a URL from there that
cannot be used is an error of whoever uses that connection, and of nobody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, cast

from celeriac.errors import ConfigError
from celeriac.servers.urls import OpenServer

BROKER_VARIABLES = ("CELERIAC_BROKER", "CELERY_BROKER_URL")
BACKEND_VARIABLES = ("CELERIAC_BACKEND", "CELERY_RESULT_BACKEND")


class Said:
    """What the environment says of one connection.

    :param names: the variables; the first that is set is taken.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._own = names[0]
        self.name = next((name for name in names if os.environ.get(name, "").strip()), "")
        self.url = os.environ.get(self.name, "").strip()

    def opener(self, make: Callable[[], OpenServer], argument: str) -> OpenServer:
        """Return what opens the server of this URL, or what puts off the error to the first use of the connection.

        :param argument: the app's argument that would go before the variable.
        """
        try:
            return make()
        except ConfigError as error:
            text = (
                f"{self.name} in the environment cannot be used: {error}; "
                f"{self._own} or the app's {argument}= would go before it"
            )
        return lambda connections=None, /: Unusable(text, keeps_results=argument == "backend")


class Unusable:
    """Stands for a server that cannot be opened.

    :param keeps_results: whether results were to be there.
    """

    def __init__(self, text: str, *, keeps_results: bool) -> None:
        self._nothing = cast("Any", _Nothing(text))
        self._keeps_results = keeps_results

    @property
    def broker(self) -> Any:
        """What raises ``ConfigError`` when it is used."""
        return self._nothing

    def results(self, url: str) -> Any:
        """Return what raises ``ConfigError`` when it is used."""
        return self._nothing if self._keeps_results else None

    async def close(self) -> None:
        """Nothing is open."""


class _Nothing:
    """A broker or result store of which all that is asked raises ``ConfigError``."""

    replies = None
    """A sender may do without the results."""

    connections = None

    def __init__(self, text: str) -> None:
        self._text = text

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(self._text)

    def settlements(self, results: object) -> None:
        """Return nothing: no ending gets that far."""

    async def close(self) -> None:
        """Nothing is open."""
