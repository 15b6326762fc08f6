"""The choice of a worker's pool, and how the pool is made."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from celeriac.client.app import App
from celeriac.errors import ConfigError
from celeriac.quantities import or_none, require, whole
from celeriac.worker.attachments import Attachments
from celeriac.worker.listeners import Listeners
from celeriac.worker.pool import Pool
from celeriac.worker.pools.processes.pool import Processes
from celeriac.worker.pools.solo import Solo
from celeriac.worker.pools.threads import Threads

POOLS = ("threads", "processes", "solo")
START_METHODS = ("forkserver", "spawn")


class PoolChoice(msgspec.Struct, frozen=True):
    """The options of a worker's pool. Raises ``ConfigError`` for a value that is not allowed.

    :param name: one of ``POOLS``, or a pool that is ready.
    :param max_tasks: calls after which a child process is replaced.
    :param max_memory: KiB of peak memory after which a child process is replaced.
    :param start_method: one of ``START_METHODS``, or ``None`` for the one that suits the system.
    :param begin: prepares a child process; it can be pickled.
    :param collect: let each child process collect cyclic garbage as its memory grows.
    :param fills: start the child processes before they are needed.
    """

    name: str | Pool
    max_tasks: int | None = None
    max_memory: int | None = None
    start_method: str | None = None
    begin: Callable[[], None] | None = None
    collect: bool = True
    fills: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.name, str) and self.name not in POOLS:
            raise ConfigError(f"pool {self.name!r} is not known; choose one of {', '.join(POOLS)}")
        require("max_tasks_per_child", self.max_tasks, or_none(whole(1)))
        require("max_memory_per_child", self.max_memory, or_none(whole(1)))
        if self.start_method not in (None, *START_METHODS):
            known = ", ".join(START_METHODS)
            raise ConfigError(f"start_method={self.start_method!r} is not known; choose one of {known}")

    @property
    def title(self) -> str:
        """The name of the pool; of one that was ready, that of its class."""
        return self.name if isinstance(self.name, str) else type(self.name).__name__

    def make(
        self, app: App, concurrency: int, attachments: Attachments, listeners: Listeners, node: str
    ) -> Pool:
        """Return a pool that runs ``limit`` calls at once, for the worker of that name."""
        if not isinstance(self.name, str):
            return self.name
        if self.name == "solo":
            return Solo()
        if self.name == "threads":
            return Threads(concurrency)
        return Processes(
            app.tasks,
            limit=concurrency,
            max_tasks=self.max_tasks,
            max_memory=self.max_memory,
            places=(app.broker_url, app.backend_url),
            begin=self.begin,
            lifespans=attachments.child_lifespans,
            around=attachments.around_bodies,
            start=self.start_method,
            collect=self.collect,
            fills=self.fills,
            on_started=partial(listeners.child_started, node),
            on_stopped=partial(listeners.child_stopped, node),
        )
