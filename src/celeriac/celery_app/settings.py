"""Celery's settings as celeriac's: what each becomes, and what is to be said of those that become nothing.

Rules: pure, but for what is registered with kombu; every name that Celery knows is in ``catalogue``; a value that would
make something else of the app than Celery makes is said, and where it would do harm the worker does not start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar

import msgspec

from celeriac.celery_app.catalogue import HARMLESS, HONOURED, WARNED
from celeriac.celery_app.differences import Departure
from celeriac.celery_app.kombu_codecs import registered
from celeriac.celery_app.urls import Place, broker_url, note_options, result_url, scheme_in
from celeriac.errors import ConfigError
from celeriac.servers.urls import AMQP_SCHEMES, BACKEND_SCHEMES, BROKER_SCHEMES, REDIS_SCHEMES
from celeriac.settings import MOST_AHEAD, Settings
from celeriac.wire.content import COMPRESSIONS
from celeriac.wire.control import CELERYS
from celeriac.wire.event import EVENTS
from celeriac.wire.names import PRIORITY_STEPS

N = TypeVar("N", int, float)

SERIALIZERS: Mapping[str, str] = {
    "json": "json",
    "application/json": "json",
    "msgpack": "msgpack",
    "application/x-msgpack": "msgpack",
    "yaml": "yaml",
    "application/x-yaml": "yaml",
    "pickle": "pickle",
    "application/x-python-serialize": "pickle",
}
"""Celery's names and content types of serializers, and ours."""

POOLS: Mapping[str, str] = {
    "prefork": "processes",
    "processes": "processes",
    "celery.concurrency.prefork:TaskPool": "processes",
    "threads": "threads",
    "celery.concurrency.thread:TaskPool": "threads",
    "solo": "solo",
    "celery.concurrency.solo:TaskPool": "solo",
}
"""Celery's names of pools, and ours."""

_TRANSPORT = frozenset(
    {"visibility_timeout", "priority_steps", "sep", "queue_order_strategy", "queue_name_prefix"}
)
_FANOUT = ("fanout_prefix", "fanout_patterns")
_SQL_TABLES = (
    "database_engine_callback", "database_table_schemas", "database_table_names", "database_short_lived_sessions",
)  # fmt: skip
"""Settings that only Celery's own store of results in a database goes by."""


OWN = ("keep_failed", "keep_failed_days", "max_decompressed_size", "max_decompressed_ratio")
"""celeriac's settings that Celery has no name for; a Celery app sets them with ``celeriac_`` before the name."""

LIMITS: Mapping[str, Any] = {"max_decompressed_size": 512 * 1024 * 1024, "max_decompressed_ratio": 1e9}
"""Celery's clients compress whatever they send, however far it shrinks: as large as a value may be that Redis takes."""


class WorkerDefaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is like where its command line leaves it open.

    :param concurrency: ``None`` is one for each core.
    :param soft_shutdown: seconds that tasks have to end after the second signal; 0: none.
    """

    pool: str = "processes"
    concurrency: int | None = None
    max_tasks_per_child: int | None = None
    max_memory_per_child: int | None = None
    start_method: Literal["spawn"] | None = None
    soft_shutdown: float = 0.0


class Mapped(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a Celery app's settings.

    :param broker: the broker's URL.
    :param backend: the URL of results; ``""`` where they are kept in a store that Celery alone knows.
    :param content_types: those of messages that are read by serializers which the app registered with kombu.
    :param departures: what is to be said. One that refuses is for the worker; what only looks may go on.
    """

    settings: Settings
    broker: str
    backend: str
    worker: WorkerDefaults
    content_types: Sequence[str] = ()
    departures: Sequence[Departure] = ()


def map_settings(
    conf: Mapping[str, Any], defaults: Mapping[str, Any], own: Mapping[str, Any] | None = None
) -> Mapped:
    """Return celeriac's settings for those of a Celery app.

    :param conf: the value of each of Celery's settings, under its new name in small letters.
    :param defaults: Celery's own values, to tell what was set.
    :param own: celeriac's settings of ``OWN`` that the app has.

    Raises ``ConfigError`` for a value that celeriac cannot use, with the name of the setting.
    """
    return _Mapping(conf, defaults, own or {}).map()


def unclassified(names: Iterable[str]) -> list[str]:
    """Return those of Celery's settings of which nothing is known here: a newer Celery may have brought them."""
    return [name for name in names if not any(name in fates for fates in (HONOURED, HARMLESS, WARNED))]


class _Mapping:
    """One walk through the settings, which collects what is to be said."""

    def __init__(self, conf: Mapping[str, Any], defaults: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self._conf = conf
        self._own = own
        self._defaults = defaults
        self._findings: dict[Departure, None] = {}

    def map(self) -> Mapped:
        """Return everything."""
        self._note_warned()
        broker, backend = self._broker(), self._backend()
        settings = self._settings()
        return Mapped(
            settings=settings,
            broker=broker,
            backend=backend,
            worker=self._worker(),
            content_types=self._content_types(),
            departures=tuple(self._findings),
        )

    def _note_warned(self) -> None:
        for name in WARNED:
            if self._is_set(name):
                self._warn(name, f"has no effect here: {WARNED[name]}")
        for name in unclassified(self._conf):
            if self._is_set(name):
                self._warn(
                    name, "is not known to this version of celeriac: look whether the app relies on it"
                )

    # --- servers

    def _broker(self) -> str:
        conf = self._conf
        options = conf.get("broker_transport_options") or {}
        place = Place(
            name="broker_url",
            options=options,
            options_name="broker_transport_options",
            tls=conf.get("broker_use_ssl"),
            tls_name="broker_use_ssl",
            scheme=conf.get("broker_transport") or "",
            host=conf.get("broker_host") or "",
            port=self._whole("broker_port"),
            username=conf.get("broker_user") or "",
            password=conf.get("broker_password") or "",
            path=conf.get("broker_vhost") or "",
            heartbeat=self._seconds("broker_heartbeat") or 0,
        )
        given = conf.get("broker_read_url") or conf.get("broker_url")
        url = broker_url(given, place, self._note)
        if not url:
            schemes = ", ".join(f"{name}://" for name in BROKER_SCHEMES)
            self._refuse(
                "broker_url", f"celeriac does not take from {_scheme_of(given)}://: known are {schemes}"
            )
        note_options(place, (*_TRANSPORT, *_FANOUT), self._note)
        self._check_order(options, scheme_in(url))
        written = conf.get("broker_write_url")
        if written and written != given:
            self._warn(
                "broker_write_url",
                "retries, callbacks and next steps of a chain go to broker_read_url, only what tasks send themselves "
                "goes there: let workers take from both, or give one broker_url",
            )
        return url

    def _check_order(self, options: Mapping[str, Any], scheme: str) -> None:
        """Refuse what makes other workers and senders write where this worker does not read."""
        name = "broker_transport_options"
        if scheme not in REDIS_SCHEMES:
            return
        if tuple(options.get("priority_steps") or PRIORITY_STEPS) != tuple(PRIORITY_STEPS):
            text = (
                f"priority_steps must be {list(PRIORITY_STEPS)}: messages in other lists would not be found"
            )
            self._refuse(name, text)
        if options.get("sep", "\x06\x16") != "\x06\x16":
            self._refuse(name, "sep must be left at its default: messages in other lists would not be found")
        if options.get("queue_order_strategy", "round_robin") != "round_robin":
            self._warn(name, "queue_order_strategy has no effect: priority goes before the order of queues")

    def _backend(self) -> str:
        """Return the URL of results, ``""`` for a store of Celery's own."""
        conf = self._conf
        given = conf.get("result_backend")
        if not given or not isinstance(given, str):
            return "" if given else "disabled://"
        alias = given if "://" not in given else ""
        if alias in ("disabled", "rpc", "redis"):
            given = f"{alias}://"
        if registered(conf.get("result_serializer")) and scheme_in(given) != "disabled":
            if scheme_in(given) in ("rpc", "amqp"):
                text = "with rpc:// use json, msgpack, yaml or pickle: its messages are written by celeriac"
                self._refuse("result_serializer", text)
            return ""  # Celery's own code writes results with it
        if scheme_in(given) == "db+sqlite" and any(self._is_set(name) for name in _SQL_TABLES):
            return ""
        if (
            scheme_in(given) not in BACKEND_SCHEMES
            or scheme_in(given) in AMQP_SCHEMES
            or ("://" not in given)
        ):
            return ""
        is_redis = scheme_in(given) in REDIS_SCHEMES
        options = conf.get("result_backend_transport_options") or {}
        tls = conf.get("redis_backend_use_ssl") if is_redis else conf.get("broker_use_ssl")
        place = Place(
            name="result_backend",
            options=options,
            options_name="result_backend_transport_options",
            tls=tls,
            tls_name="redis_backend_use_ssl" if is_redis else "broker_use_ssl",
            host=(conf.get("redis_host") or "") if is_redis else "",
            port=self._whole("redis_port") if is_redis else None,
            username=(conf.get("redis_username") or "") if is_redis else "",
            password=(conf.get("redis_password") or "") if is_redis else "",
            path=str(conf.get("redis_db") or "") if is_redis else "",
        )
        note_options(place, ("visibility_timeout", *_TRANSPORT), self._note)
        return result_url(given, place, self._note)

    # --- the app

    def _settings(self) -> Settings:
        conf = self._conf
        serializer = self._serializer("task_serializer")
        result_serializer = self._serializer("result_serializer")
        accepted = self._accepted()
        transport = conf.get("broker_transport_options") or {}
        return _checked(
            default_queue=conf.get("task_default_queue") or "celery",
            serializer=serializer,
            result_serializer=result_serializer,
            accept_content=tuple(dict.fromkeys((*accepted, serializer, result_serializer))),
            protocol=1 if conf.get("task_protocol") == 1 else 2,
            compression=self._compression(),
            result_expires=self._seconds("result_expires"),
            result_extended=bool(conf.get("result_extended")),
            ignore_result=bool(conf.get("task_ignore_result")),
            # STARTED is stored by Celery's own code, where the task says so.
            track_started=False,
            delivery="at_least_once" if conf.get("task_acks_late") else "at_most_once",
            prefetch=self._prefetch(),
            backlog=self._backlog(),
            visibility_timeout=float(transport.get("visibility_timeout") or 3600),
            soft_time_limit=self._seconds("task_soft_time_limit"),
            time_limit=self._seconds("task_time_limit"),
            remote_control=bool(conf.get("worker_enable_remote_control", True)),
            send_events=bool(conf.get("worker_send_task_events")),
            event_exchange=conf.get("event_exchange") or EVENTS,
            control_exchange=conf.get("control_exchange") or CELERYS,
            # Celery's functions check their arguments themselves.
            strict_arguments=False,
            **{**LIMITS, **self._own},
        )

    def _serializer(self, name: str) -> str:
        given = self._conf.get(name) or "json"
        if given in SERIALIZERS:
            return SERIALIZERS[given]
        if registered(given):
            return "json"  # of what celeriac writes without Celery's code, which is nothing of a task's
        reason = "celeriac signs no messages" if given == "auth" else "celeriac does not know it"
        self._refuse(name, f"{given!r}: {reason}; use json, msgpack, yaml or pickle")
        return "json"

    def _accepted(self) -> Sequence[str]:
        """Return the serializers that are read here; those of the app's own are ``_content_types``."""
        found: dict[str, None] = {}
        for setting in ("accept_content", "result_accept_content"):
            for given in self._conf.get(setting) or ():
                if given in SERIALIZERS:
                    found[SERIALIZERS[given]] = None
                elif not registered(given):
                    self._warn(
                        setting, f"messages in {given!r} are not read: write json, msgpack, yaml or pickle"
                    )
        for name in ("task_serializer", "result_serializer"):
            given = self._conf.get(name) or "json"
            if given in SERIALIZERS and SERIALIZERS[given] not in found:
                # Celery's own workers would refuse what their own tasks write.
                found[SERIALIZERS[given]] = None
                self._warn("accept_content", f"{given} is read too, since the app writes it: add it there")
        return tuple(found)

    def _content_types(self) -> Sequence[str]:
        given = (*(self._conf.get("accept_content") or ()), self._conf.get("task_serializer"))
        return tuple(dict.fromkeys(filter(None, map(registered, given))))

    def _compression(self) -> str | None:
        given = self._conf.get("task_compression")
        if not given or given in COMPRESSIONS or given in COMPRESSIONS.values():
            return given or None
        self._warn("task_compression", f"{given!r} is not known: messages are written without compression")
        return None

    def _prefetch(self) -> int:
        """Celery: "Prefetch Limits". With a multiplier of 1 none is taken ahead, to wait behind a long task."""
        multiplier = self._conf.get("worker_prefetch_multiplier")
        return 0 if multiplier == 1 or self._conf.get("worker_disable_prefetch") else MOST_AHEAD

    def _backlog(self) -> int:
        """What Celery holds for each process. Its 0, no limit, is here as many as may be held ahead of all."""
        multiplier = self._whole("worker_prefetch_multiplier")
        return MOST_AHEAD if multiplier is None else max(multiplier, 0) or MOST_AHEAD

    # --- the worker

    def _worker(self) -> WorkerDefaults:
        conf = self._conf
        pool = conf.get("worker_pool") or "prefork"
        known = POOLS.get(str(pool))
        if known is None:
            text = f"there is no pool {pool} here: use -P threads, or -P processes, which is the default"
            self._refuse("worker_pool", text)
        return WorkerDefaults(
            pool=known or "processes",
            concurrency=self._whole("worker_concurrency") or None,
            max_tasks_per_child=self._whole("worker_max_tasks_per_child"),
            max_memory_per_child=self._whole("worker_max_memory_per_child"),
            start_method="spawn" if conf.get("worker_pool_start_method") == "spawn" else None,
            soft_shutdown=self._seconds("worker_soft_shutdown_timeout") or 0.0,
        )

    def _whole(self, name: str) -> int | None:
        return self._number(name, int)

    def _seconds(self, name: str) -> float | None:
        """Return seconds; ``None`` for what Celery takes as no limit."""
        value = self._conf.get(name)
        return value.total_seconds() if isinstance(value, timedelta) else self._number(name, float) or None

    def _number(self, name: str, kind: Callable[[Any], N]) -> N | None:
        value = self._conf.get(name)
        try:
            return None if value is None or value == "" else kind(value)
        except (TypeError, ValueError):
            raise ConfigError(f"the Celery app's {name}={value!r} is not a number") from None

    # --- what is said

    def _is_set(self, name: str) -> bool:
        value, default = self._conf.get(name), self._defaults.get(name)
        return value != default and not (not value and not default)

    def _note(self, departure: Departure) -> None:
        self._findings[departure] = None

    def _warn(self, about: str, text: str) -> None:
        self._note(Departure("warn", about, text))

    def _refuse(self, about: str, text: str) -> None:
        self._note(Departure("refuse", about, text))


def _checked(**given: Any) -> Settings:
    try:
        return Settings(**given)
    except ConfigError as error:
        raise ConfigError(f"a setting of the Celery app cannot be used: {error}") from error


def _scheme_of(given: Any) -> str:
    first = given if isinstance(given, str) else next(iter(given or ()), "")
    return scheme_in(first)
