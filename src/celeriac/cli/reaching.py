"""From the options that say which app to what asks its workers.

Rules: of a URL alone no more is imported than a question needs; an app imports what sends and stores, too. What is
wrong with the options is said by ``loading``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self

from celeriac.cli.source import Source
from celeriac.client.asker import Asker
from celeriac.client.environment import BROKER_VARIABLES, Said
from celeriac.errors import ConfigError
from celeriac.servers.urls import fanout_alone

if TYPE_CHECKING:
    from celeriac.client.control import Control


class Asks(Protocol):
    """Asks workers within its block."""

    @property
    def control(self) -> Control:
        """What asks."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...


def load_asking(source: Source) -> Asks:
    """Return what asks the workers of the app that is named, or of the broker. Raises as ``loading.load_existing``."""
    asker = None
    if source.target is None and source.backend is None:
        with suppress(ConfigError):
            open_fanout = fanout_alone(source.broker or Said(BROKER_VARIABLES).url)
            asker = None if open_fanout is None else Asker(open_fanout)
    return asker or _app_of(source)


def _app_of(source: Source) -> Asks:
    from celeriac.cli.loading import load_existing

    return load_existing(source)
