"""The app as users make it: everything below put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celeriac.backend import Backend
from celeriac.broker import Broker
from celeriac.client.app import App
from celeriac.client.blocking import BACKGROUND
from celeriac.clock import Clock
from celeriac.settings import Settings
from celeriac.worker.worker import Worker


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

    def worker(
        self,
        *,
        concurrency: int | None = None,
        queues: Sequence[str] | None = None,
        name: str | None = None,
        pool: str = "threads",
        grace: float = 30.0,
        max_tasks_per_child: int | None = None,
        max_memory_per_child: int | None = None,
    ) -> Worker:
        """Return a worker for this app's tasks, to run inside this program: see ``Worker``."""
        return Worker(
            self,
            concurrency=concurrency,
            queues=queues,
            name=name,
            pool=pool,
            grace=grace,
            max_tasks_per_child=max_tasks_per_child,
            max_memory_per_child=max_memory_per_child,
        )
