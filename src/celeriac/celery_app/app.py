"""A ``celery.Celery`` app, unmodified, as the app of a celeriac worker."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import msgspec
from celery import Celery

from celeriac.beat.schedules import Schedules
from celeriac.celery_app.awaiting import let_await
from celeriac.celery_app.beat import read_schedules
from celeriac.celery_app.beat_sources import source_of
from celeriac.celery_app.children import ChildLife
from celeriac.celery_app.coroutines import Coroutines
from celeriac.celery_app.found import Found
from celeriac.celery_app.life import Life, begin_beat
from celeriac.celery_app.log import CeleryLog
from celeriac.celery_app.publishing import AppPublisher
from celeriac.celery_app.run import is_inline
from celeriac.celery_app.task import Repertory
from celeriac.celery_app.writing import divert
from celeriac.client.blame import last_line
from celeriac.client.connections import Connections
from celeriac.errors import ConfigError
from celeriac.worker.attachments import Attachments
from celeriac.worker.judging import Judge
from celeriac.worker.listeners import Made
from celeriac.worker.plans import Plans
from celeriac.worker.worker import Worker


class CeleryApp(Found):
    """Runs the tasks of a Celery app; settings, routes and tasks are the app's own, and Celery's code runs them."""

    def __init__(self, celery: Celery, target: str) -> None:
        super().__init__(celery, target)
        self.attachments = Attachments()
        self._child_life = ChildLife(target)
        self.attachments.child_lifespans.append(self._child_life)
        self.attachments.log = CeleryLog()
        self.coroutines = Coroutines()
        self._said: dict[str, Any] = {}
        self.attachments.listen(Life(celery, self._live_with, self.coroutines, self._said))
        self.repertory = Repertory(self)
        self.node = ""
        """The name of the worker that this process runs tasks for; known in child processes."""

    def require_runnable(self) -> None:
        """Import the modules of the app's tasks. Raises ``ConfigError`` where a worker of this app would do harm."""
        self.load_tasks()
        super().require_runnable()

    def load_tasks(self) -> None:
        """Import the modules of the app's tasks, as Celery's worker does."""
        if not self.tasks:
            try:
                self.celery.loader.import_default_modules()
                _take_djangos_tasks(self.celery)
                self.celery.finalize()
            except Exception as error:
                where = last_line(error)
                text = (
                    f"importing the modules of its tasks failed at {where}: {type(error).__name__}: {error}"
                )
                raise ConfigError(f"-A {self.target}: {text}") from error
            divert(self.celery)
            for task in dict.values(
                self.celery.tasks
            ):  # one that is applied inside another need never be sent
                let_await(task, self.coroutines)
            self.tasks = self.repertory = Repertory(self)  # type: ignore[assignment]

    @cached_property
    def schedules(self) -> Schedules:
        """The periodic tasks of its ``beat_schedule``. Raises ``ConfigError`` for one that cannot be read."""
        self.load_tasks()
        schedules = read_schedules(self, self.celery)
        schedules.source = source_of(self.celery)
        schedules.on_begin = partial(begin_beat, self.celery)
        return schedules

    @property
    def calls_back_unknown(self) -> bool:
        """Not, as with Celery's worker."""
        return False

    @property
    def code_after_interrupt(self) -> int:
        """1, as with Celery's worker."""
        return 1

    def note_options(self, said: Mapping[str, Any]) -> None:
        """Keep what was said on the command line for receivers of ``celeryd_init``."""
        self._said.update(said)

    def use_scheduler(self, name: str) -> None:
        """Read the periodic tasks where this scheduler of Celery's keeps them, as with ``celery beat --scheduler``."""
        self.celery.conf.beat_scheduler = name

    def worker(self, *, queues: Sequence[str] | None = None, **options: Any) -> Worker:
        """Return a worker for this app's tasks: see ``Worker``; what is not given is as the app's settings say."""
        self.require_runnable()
        given = {**self.worker_options, **options}
        return Worker(self, queues=queues or self.queues, attachments=self.attachments, **given)

    @cached_property
    def judge(self) -> Judge:
        """What decides the endings of tasks in a child process."""
        backend = super()._open().backend  # of which nothing but its encoding is used
        return Judge(
            self.settings,
            Plans(self.settings),
            backend,
            self.repertory,
            lambda errback: is_inline(self.celery, errback.to_dict()),
            self.clock.now,
            self.node,
        )

    def _live_with(self, worker: Made) -> None:
        """Let the processes of a worker announce themselves."""
        self._child_life.node = worker.name

    def _open(self) -> Connections:
        connections = super()._open()
        publisher = AppPublisher(self.celery, connections.broker, self.codecs, self.settings, self.clock)
        return msgspec.structs.replace(connections, publisher=publisher)


def _take_djangos_tasks(celery: Celery) -> None:
    """Register the tasks of Django's own framework that the setting ``TASKS`` gives to this app."""
    if "django.conf" in sys.modules:
        from celeriac.integrations.django_bridge.taking import take_tasks  # noqa: PLC0415 - Django is optional

        take_tasks(celery)
