"""The app as users make it: everything below put together."""

from __future__ import annotations

from typing import Any

from celeriac.app import App
from celeriac.backend import Backend
from celeriac.blocking import BACKGROUND
from celeriac.broker import Broker
from celeriac.clock import Clock
from celeriac.settings import Settings


class Celeriac(App):
    """An app: see ``App`` for the parameters; blocking calls run on the process's background loop."""

    def __init__(
        self,
        name: str = "celeriac",
        broker: str | Broker | None = None,
        backend: str | Backend | None = None,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        **given: Any,
    ) -> None:
        super().__init__(name, broker, backend, run=BACKGROUND.run, settings=settings, clock=clock, **given)
