"""From a Celery app to the app of celeriac's that stands for it: its settings mapped, what is not followed noted.

Rules: the Celery app itself stays as it is, but for what the command line says in its place.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from signal import Signals
from typing import Any

from celery import Celery
from celery.app.defaults import NAMESPACES, flatten

from celeriac.celery_app.catalogue import HONOURED
from celeriac.celery_app.commands import commands_of
from celeriac.celery_app.differences import Departure
from celeriac.celery_app.kombu_codecs import KombuCodecs
from celeriac.celery_app.preflight import look_at
from celeriac.celery_app.queues import take_directly
from celeriac.celery_app.results import CeleryResults
from celeriac.celery_app.settings import OWN, Mapped, map_settings
from celeriac.client.app import App
from celeriac.client.blocking import BACKGROUND
from celeriac.errors import ConfigError


class Found(App):
    """Stands for a Celery app: connects to where its settings say, and sends as they say.

    :ivar celery: the app that it stands for.
    :ivar target: what ``-A`` names it by; child processes find it by that.
    :ivar mapped: what became of its settings.
    """

    def __init__(self, celery: Celery, target: str) -> None:
        self.celery = celery
        self.target = target
        self.mapped = settings_of(celery)
        self._overruled: set[str] = set()
        super().__init__(
            celery.main or "celery",
            self._broker(),
            self.mapped.backend or CeleryResults(celery),
            run=BACKGROUND.run,
            settings=self.mapped.settings,
        )
        if self.mapped.content_types:
            self.codecs = KombuCodecs(self.settings, self.mapped.content_types)
            self._connect_to(*self._given)

    @property
    def departures(self) -> Sequence[Departure]:
        """What is to be said of it; of its tasks only what is loaded, and of URLs nothing that others stand for."""
        said = (*self.mapped.departures, *look_at(self.celery))
        return [departure for departure in said if departure.about not in self._overruled]

    @property
    def queues(self) -> Sequence[str]:
        """The queues of ``task_queues``, or the default queue where it names none (Celery: ``consume_from``)."""
        return list(self.celery.amqp.queues.consume_from)

    @property
    def remarks(self) -> Sequence[str]:
        """The departures that a worker lives with."""
        return [str(departure) for departure in self.departures if departure.level == "warn"]

    @property
    def worker_options(self) -> Mapping[str, Any]:
        """What the settings say of workers."""
        usual = self.mapped.worker
        options = {
            "pool": usual.pool,
            "concurrency": usual.concurrency,
            "max_tasks_per_child": usual.max_tasks_per_child,
            "max_memory_per_child": usual.max_memory_per_child,
            "start_method": usual.start_method,
            "last_grace": usual.soft_shutdown,
        }
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        # A task of Celery's is acknowledged before it runs: what is cut short is lost. So nothing is, as with Celery;
        # and its processes are there before a message is taken, since one that fails to start would lose it.
        if self.celery.conf.worker_direct:
            given["own_queue"] = partial(take_directly, self.celery)
        return given | {"grace": None, "quick_signals": _quick_signals(), "fill_pool": True}

    def control_methods(self, worker: object, *, inspect_only: bool) -> Mapping[str, Callable[..., Any]]:
        """Return the commands that the app's modules registered with Celery's panel."""
        return commands_of(self.celery, worker, inspect_only=inspect_only)

    def set_up_logging(self, level: str, file: str | None, node: str) -> bool:
        """Log as Celery's worker does: its formats, the signals by which apps set up logging, prints as log lines."""
        conf = self.celery.conf
        self.celery.log.setup(
            level.upper(),
            file,
            redirect_stdouts=conf.worker_redirect_stdouts,
            redirect_level=conf.worker_redirect_stdouts_level,
            hostname=node,
        )
        return True

    def require_runnable(self) -> None:
        """Raise ``ConfigError`` where a worker of this app would do harm, with one line for each reason."""
        refused = [str(departure) for departure in self.departures if departure.level == "refuse"]
        if refused:
            raise ConfigError("\n".join(refused))

    def connect_to(
        self, broker: str | None = None, backend: str | None = None, *, lease: float | None = None
    ) -> None:
        """As ``App.connect_to``; what its tasks send goes there too, as with Celery's ``--broker``."""
        super().connect_to(broker, backend, lease=lease)
        if broker is not None:
            self.celery.conf.broker_url = broker
            self.celery.conf.broker_read_url = self.celery.conf.broker_write_url = None
            self._overruled.add("broker_url")
        if backend is not None:
            self._overruled.add("result_backend")
            self.celery.conf.result_backend = backend

    def _broker(self) -> str:
        if not self.mapped.broker:
            said = next(departure for departure in self.departures if departure.about == "broker_url")
            raise ConfigError(said.text)
        return self.mapped.broker


def _quick_signals() -> Sequence[Signals]:
    """Return the signals by which Celery's worker stops at once, rather than when its tasks have ended."""
    remapped = os.environ.get("REMAP_SIGTERM") == "SIGQUIT"
    return (Signals.SIGQUIT, Signals.SIGTERM) if remapped else (Signals.SIGQUIT,)


def settings_of(celery: Celery) -> Mapped:
    """Return what becomes of an app's settings. Raises ``ConfigError`` for a value that cannot be used."""
    defaults: dict[str, Any] = {name: option.default for name, option in flatten(NAMESPACES)}
    newer = {name: None for name in HONOURED if name not in defaults}  # than the installed Celery
    own = {
        name: value for name in OWN if (value := getattr(celery.conf, f"celeriac_{name}", None)) is not None
    }
    conf = {name: getattr(celery.conf, name) for name in defaults}
    conf |= {name: celery.conf.get(name) for name in newer}
    return map_settings(conf, defaults | newer, own)


def include(celery: Celery, modules: Sequence[str]) -> None:
    """Let the app import further modules with its own, as ``celery worker --include`` does."""
    if modules:
        celery.conf.include = (*(celery.conf.include or ()), *modules)
