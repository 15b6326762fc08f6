"""A process of the pool that runs a Celery app's tasks: it finds the app by what ``-A`` named, and announces itself."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from signal import SIGTERM
from typing import TYPE_CHECKING

import billiard
from celery import Celery, signals
from celery._state import _set_task_join_will_block
from celery.app.backends import by_url
from celery.app.trace import setup_worker_optimizations
from celery.app.utils import find_app
from celery.fixups.django import DjangoFixup

from celeriac.servers.urls import import_driver
from celeriac.worker.pools.processes.child import INDEX
from celeriac.worker.pools.processes.leaving import Left

if TYPE_CHECKING:
    from celeriac.celery_app.app import CeleryApp
    from celeriac.celery_app.task import CeleryTask

_ATTRIBUTE = "_celeriac"

CODE_OF_TERMINATED = SIGTERM - 256
"""The exit code that billiard gives a child which SIGTERM ends: its task was terminated, or past its limit."""


def app_of(target: str) -> CeleryApp:
    """Return the app that stands for the Celery app of that name; it is made once, and found on the Celery app."""
    from celeriac.celery_app.app import CeleryApp  # noqa: PLC0415 - tasks of the app lead here

    celery = find_app(target)
    made: CeleryApp | None = vars(celery).get(_ATTRIBUTE)
    if made is None:
        made = CeleryApp(celery, target)
        setattr(celery, _ATTRIBUTE, made)
        os.register_at_fork(before=partial(_say_before_fork, os.getpid()))
        # Each child decides and writes the endings of its tasks; the driver is loaded once, before they are forked.
        for url in (made.broker_url, made.backend_url):
            import_driver(url)
        # So does Celery's own store of results at the end of a child's first task, whatever that was.
        with suppress(Exception):  # what is wrong with it is told where it is used
            by_url(celery.conf.result_backend, celery.loader)
    made.load_tasks()
    return made


def task_of(target: str, name: str) -> CeleryTask:
    """Return a task of an app, which is how a task is pickled."""
    return app_of(target).repertory[name]


def _say_before_fork(server: int) -> None:
    """Announce a child that the process which imported the app forks; what a task forks in a child is none."""
    if os.getpid() == server:
        signals.worker_before_create_process.send(sender=None)


class ChildLife:
    """The lifespan of each child of the worker of an app.

    It stands among the app's lifespans before the worker has a name: what observes a worker copies them early.

    :ivar node: the name of the worker, known before there are children.
    """

    def __init__(self, target: str) -> None:
        self._target = target
        self.node = ""

    def __call__(self) -> Iterator[None]:
        return live_in_child(self._target, self.node)


def live_in_child(target: str, node: str) -> Iterator[None]:
    """Announce a process that runs tasks, and its end."""
    ours = app_of(target)
    ours.node = node
    app = ours.celery
    _name_process()
    _open_own_log(ours, node)
    setup_worker_optimizations(app, node)
    _set_task_join_will_block(True)
    _let_fixups_close_connections(app)
    begin_process(app, node)
    code = 0
    try:
        yield
    except Left:
        code = CODE_OF_TERMINATED
        raise
    finally:
        signals.worker_process_shutdown.send(sender=node, pid=os.getpid(), exitcode=code)


def _name_process() -> None:
    """Give this process the name that Celery's children have: lines of a log tell by it where a task ran."""
    name = f"ForkPoolWorker-{os.getpid()}"
    multiprocessing.current_process().name = name
    process = billiard.current_process()
    process._name = name  # noqa: SLF001 - Celery's own code and its users' look at this one
    process.index = int(os.environ[INDEX])


def _open_own_log(ours: CeleryApp, node: str) -> None:
    """Write to a file of this process's own, where the name of the log has the number of the process in it.

    Celery keeps the name and the level in variables, for its children.
    """
    file = os.environ.get("CELERY_LOG_FILE", "")
    if "%i" in file.lower():
        ours.celery.log.already_setup = False
        ours.set_up_logging(logging.getLevelName(int(os.environ["CELERY_LOG_LEVEL"])), file, node)


def _let_fixups_close_connections(app: Celery) -> None:
    """Have Django's connections closed around tasks: its fixup begins with a worker's start, which a child has not."""
    for fixup in app._fixups or ():  # noqa: SLF001 - there is no other way to them
        if isinstance(fixup, DjangoFixup):
            fixup.worker_fixup.worker = _ChildFace()
            fixup.worker_fixup.install()


class _ChildFace:
    """What Django's fixup looks at, which closes pools of connections by it."""

    pool_cls = "celery.concurrency.prefork:TaskPool"


def begin_process(app: Celery, node: str) -> None:
    """Announce a process that runs tasks."""
    app.loader.init_worker_process()
    signals.worker_process_init.send(sender=node)
