"""A Celery app's own commands of remote control (Celery: "Writing your own remote control commands").

Rules: they run in threads, so that one that blocks holds up nothing else; what they get as ``state`` has
the facts of a worker of ours, and nothing of Celery's own state.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from celery import Celery
from celery.worker.control import Panel

_CELERYS = Panel.__module__

_AS_CELERY = ("conf",)
"""Celery's own commands that are run as they are, since they ask nothing of its worker."""


class ControllerFace:
    """What a command sees as the worker (Celery: ``WorkController``)."""

    def __init__(self, app: Celery, worker: Any) -> None:
        self.app = app
        self.hostname: str = worker.name
        self.pid = os.getpid()
        self.concurrency: int = worker.concurrency
        self.queues = list(worker.queues)


class ConsumerFace:
    """What a command sees as the consumer; ``add_task_queue`` and ``cancel_task_queue`` work as in Celery.

    :param home: the event loop of the worker.
    """

    def __init__(self, app: Celery, worker: Any, home: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.hostname: str = worker.name
        self.controller = ControllerFace(app, worker)
        self._worker = worker
        self._home = home

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the consumer of a celeriac worker has no {name!r}")

    def add_task_queue(self, queue: str, *_: Any, **__: Any) -> None:
        """Take from this queue too."""
        self._wait_for(self._worker.add_queue(queue))

    def cancel_task_queue(self, queue: str) -> None:
        """Stop taking from this queue."""
        self._wait_for(self._worker.drop_queue(queue))

    def _wait_for(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._home).result()


class State:
    """What a command gets first (Celery: ``state``)."""

    tset = set

    def __init__(self, app: Celery, worker: Any, home: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.hostname: str = worker.name
        self.consumer = ConsumerFace(app, worker, home)


def commands_of(app: Celery, worker: Any, *, inspect_only: bool) -> Mapping[str, Callable[..., Any]]:
    """Return the commands that the app's modules registered, by name, and those of Celery's that say what the app says.

    :param worker: the worker that is to answer.
    :param inspect_only: leave out those that may change something.
    """
    own = {
        name: command
        for name, command in Panel.data.items()
        if command.__module__ != _CELERYS or name in _AS_CELERY
    }
    allowed = {name for name in own if not inspect_only or Panel.meta[name].type == "inspect"}
    return {name: partial(_run, command, app, worker) for name, command in own.items() if name in allowed}


async def _run(command: Callable[..., Any], app: Celery, worker: Any, **arguments: Any) -> Any:
    state = State(app, worker, asyncio.get_running_loop())
    return await asyncio.to_thread(command, state, **arguments)
