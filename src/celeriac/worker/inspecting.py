"""The answers of a worker to ``celery inspect``, in the fields and types of Celery's answers.

Rules: no method here changes anything. Lists are cut at ``MOST`` entries. Arguments that are large, or that JSON cannot
carry, are answered as text.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import msgspec

from celeriac.broker import Parked
from celeriac.client.app import App, Connections
from celeriac.client.task import Task
from celeriac.errors import EncodeError
from celeriac.servers.url_parts import SCHEME, masked, take_apart
from celeriac.settings import Settings
from celeriac.wire.envelope import Envelope
from celeriac.wire.extended_json import encode_json
from celeriac.wire.preview import preview
from celeriac.wire.task import TaskMessage, decode
from celeriac.worker.attempt import SPENT, Attempt
from celeriac.worker.events.events import Events
from celeriac.worker.listeners import Listener
from celeriac.worker.remote import LogicalClock

try:
    from resource import RUSAGE_SELF, getrusage
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    getrusage = None  # type: ignore[assignment]

MOST = 1000
"""The most entries of a list in an answer."""

LARGE = 4096
"""Bytes of arguments above which an answer has them as text."""

CELERY = "5.7.0"
"""The version of Celery whose answers these are."""

_ETA_PRIORITY = 6
_SETTINGS = {
    "default_queue": "task_default_queue",
    "serializer": "task_serializer",
    "result_serializer": "result_serializer",
    "accept_content": "accept_content",
    "protocol": "task_protocol",
    "compression": "task_compression",
    "result_expires": "result_expires",
    "result_extended": "result_extended",
    "ignore_result": "task_ignore_result",
    "track_started": "task_track_started",
    "soft_time_limit": "task_soft_time_limit",
    "time_limit": "task_time_limit",
}
"""Our settings that Celery has too, by its names."""

_OPTIONS = {"time_limit": "timeout", "soft_time_limit": "soft_timeout"}
"""Celery's names of what a task's options say."""


class Counts(Listener):
    """Counts the tasks that began, by name."""

    def __init__(self) -> None:
        self.started_by_name: Counter[str] = Counter()

    def started(self, attempt: Attempt) -> None:
        self.started_by_name[attempt.message.task] += 1


class Facts(msgspec.Struct, frozen=True):
    """The facts that the answers are made of.

    :param queues: returns the queues that the worker takes from now.
    :param concurrency: returns how many tasks the worker runs at once now.
    :param running: returns the attempts whose bodies run now.
    :param pool: the kind of its pool.
    """

    node: str
    app: App
    connections: Connections
    queues: Callable[[], Sequence[str]]
    concurrency: Callable[[], int]
    running: Callable[[], Sequence[Attempt]]
    pool: str
    counts: Counts
    clock: LogicalClock
    events: Events | None = None


class Inspecting:
    """The methods of ``celery inspect``."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._began = perf_counter()

    async def ping(self, **_: Any) -> dict[str, str]:
        """Say that it lives."""
        return {"ok": "pong"}

    async def clock(self, **_: Any) -> dict[str, int]:
        """Tell the logical clock."""
        return {"clock": self._facts.clock.value}

    async def hello(self, from_node: str, revoked: Any = None, **_: Any) -> dict[str, Any] | None:
        """Greet a worker that starts. It is sent no revocations, because workers read those from the broker."""
        if from_node == self._facts.node:
            return None
        return {"revoked": [], "clock": self._facts.clock.forward()}

    async def active(self, safe: bool = False, **_: Any) -> list[dict[str, Any]]:
        """Tell which tasks run."""
        return [self._of_attempt(attempt, safe=bool(safe)) for attempt in self._facts.running()[:MOST]]

    async def reserved(self, **_: Any) -> list[dict[str, Any]]:
        """Return an empty list: messages that the subscription holds ready are not decoded yet."""
        return []

    async def scheduled(self, **_: Any) -> list[dict[str, Any]]:
        """Tell which tasks of its queues are parked, the next one first."""
        return [
            {
                "eta": _eta(parked, message),
                "priority": _ETA_PRIORITY,
                "request": self._of_parked(parked, message),
            }
            for parked, message in await self._parked()
        ]

    async def query_task(self, ids: Any, **_: Any) -> dict[str, Any]:
        """Tell the state of tasks that run here, or are parked for its queues."""
        wanted = {ids} if isinstance(ids, str) else set(ids)
        found: dict[str, Any] = {}
        for parked, message in await self._parked():
            if message.id in wanted:
                found[message.id] = ["scheduled", self._of_parked(parked, message)]
        for attempt in self._facts.running():
            if attempt.message.id in wanted:
                found[attempt.message.id] = ["active", self._of_attempt(attempt, safe=False)]
        return found

    async def registered(self, taskinfoitems: Any = None, builtins: bool = False, **_: Any) -> list[str]:
        """Tell which tasks it knows, with the named options that they have."""
        items = [item for item in taskinfoitems or () if isinstance(item, str) and not item.startswith("_")]
        return [_described(task, items) for _, task in sorted(self._facts.app.tasks.items())]

    async def revoked(self, **_: Any) -> list[str]:
        """Tell which tasks were revoked."""
        return sorted((await self._facts.connections.revocations.load()).ids)[-MOST:]

    async def active_queues(self, **_: Any) -> list[dict[str, Any]]:
        """Tell which queues it takes from."""
        return [_queue(name) for name in self._facts.queues()]

    async def conf(self, with_defaults: bool = False, **_: Any) -> dict[str, Any]:
        """Tell the settings that Celery knows too; no secrets."""
        return self._conf(with_defaults=bool(with_defaults))

    async def report(self, **_: Any) -> dict[str, str]:
        """Describe the installation."""
        app = self._facts.app
        lines = [
            "",
            f"software -> celery:{CELERY} (celeriac) py:{platform.python_version()}",
            f"platform -> system:{platform.system()} imp:{platform.python_implementation()}",
            f"settings -> transport:{_scheme(app.broker_url)} results:{masked(app.backend_url)}",
            "",
            *(f"{name}: {value!r}" for name, value in self._conf(with_defaults=False).items()),
            "",
        ]
        return {"ok": "\n".join(lines)}

    async def stats(self, **_: Any) -> dict[str, Any]:
        """Tell numbers."""
        facts, settings = self._facts, self._facts.app.settings
        concurrency, running = facts.concurrency(), len(facts.running())
        return {
            "total": dict(facts.counts.started_by_name),
            "pid": os.getpid(),
            "clock": str(facts.clock.value),
            "uptime": int(perf_counter() - self._began),
            "pool": {
                "implementation": f"celeriac.worker.pools.{facts.pool}",
                "max-concurrency": concurrency,
                "processes": [os.getpid()],
                "max-tasks-per-child": "N/A",
                "put-guarded-by-semaphore": False,
                "timeouts": [settings.soft_time_limit or 0, settings.time_limit or 0],
            },
            "broker": _broker(facts.app.broker_url),
            "prefetch_count": concurrency,
            "rusage": _usage(),
            "celeriac": {
                "pool": facts.pool,
                "slots": {"running": running, "free": max(0, concurrency - running)},
                "events": None if facts.events is None else facts.events.numbers(),
            },
        }

    def _conf(self, *, with_defaults: bool) -> dict[str, Any]:
        app = self._facts.app
        values: dict[str, Any] = {
            "broker_url": masked(app.broker_url),
            "result_backend": masked(app.backend_url),
        }
        defaults = Settings()
        for ours, name in _SETTINGS.items():
            value = getattr(app.settings, ours)
            if with_defaults or value != getattr(defaults, ours):
                values[name] = list(value) if isinstance(value, tuple) else value
        return values

    async def _parked(self) -> list[tuple[Parked, TaskMessage]]:
        queues, codecs = set(self._facts.queues()), self._facts.app.codecs
        found = []
        for parked in await self._facts.connections.broker.schedule.list(MOST):
            if parked.queue in queues and isinstance(parked.envelope, Envelope):
                message = decode(parked.envelope, codecs)
                if isinstance(message, TaskMessage):
                    found.append((parked, message))
        return found

    def _of_attempt(self, attempt: Attempt, *, safe: bool) -> dict[str, Any]:
        began = self._facts.app.clock.now() - (perf_counter() - attempt.started)
        told = self._told(attempt.message, attempt.queue, redelivered=attempt.delivery.redelivered, safe=safe)
        return told | {
            "time_start": began,
            "acknowledged": attempt.receipt is SPENT,
            "worker_pid": os.getpid(),
        }

    def _of_parked(self, parked: Parked, message: TaskMessage) -> dict[str, Any]:
        return self._told(message, parked.queue, redelivered=False, safe=False)

    def _told(self, message: TaskMessage, queue: str, *, redelivered: bool, safe: bool) -> dict[str, Any]:
        args, kwargs = _arguments(message, safe=safe)
        return {
            "id": message.id,
            "name": message.shadow or message.task,
            "args": args,
            "kwargs": kwargs,
            "type": message.task,
            "hostname": self._facts.node,
            "time_start": None,
            "acknowledged": False,
            "delivery_info": {
                "exchange": "",
                "routing_key": queue,
                "priority": 0,
                "redelivered": redelivered,
            },
            "worker_pid": None,
        }


def _arguments(message: TaskMessage, *, safe: bool) -> tuple[Any, Any]:
    if not safe:
        try:
            if len(encode_json([message.args, message.kwargs])) <= LARGE:
                return message.args, message.kwargs
        except EncodeError:
            pass
    return message.args_repr or preview(tuple(message.args)), message.kwargs_repr or preview(message.kwargs)


def _eta(parked: Parked, message: TaskMessage) -> str:
    return (message.eta or datetime.fromtimestamp(parked.due, UTC)).isoformat()


def _described(task: Task[Any, Any], items: Sequence[str]) -> str:
    values = {item: getattr(task.options, _OPTIONS.get(item, item), None) for item in items}
    told = " ".join(f"{item}={value}" for item, value in values.items() if value is not None)
    return f"{task.name} [{told}]" if told else task.name


def _queue(name: str) -> dict[str, Any]:
    exchange = {
        "name": name,
        "type": "direct",
        "arguments": None,
        "durable": True,
        "passive": False,
        "auto_delete": False,
        "delivery_mode": None,
        "no_declare": False,
    }
    nothing = (
        "queue_arguments", "binding_arguments", "consumer_arguments", "alias", "no_declare", "expires", "message_ttl",
        "max_length", "max_length_bytes", "max_priority",
    )  # fmt: skip
    return {
        "name": name,
        "exchange": exchange,
        "routing_key": name,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "bindings": [],
        **dict.fromkeys(nothing),
    }


def _scheme(url: str) -> str:
    match = SCHEME.match(url)
    return match["scheme"].lower() if match else ""


def _broker(url: str) -> Mapping[str, Any]:
    """Return what Celery tells of its connection; the password is no part of it."""
    scheme = _scheme(url)
    place = take_apart(url)[0] if scheme not in ("", "sqlite", "memory") else None
    return {
        "hostname": place.host or None if place else None,
        "userid": place.username or None if place else None,
        "virtual_host": place.path.lstrip("/") or "/" if place else None,
        "port": place.port if place else None,
        "insist": False,
        "ssl": scheme in ("rediss", "valkeys", "sentinels", "amqps"),
        "transport": "amqp" if scheme in ("amqp", "amqps", "pyamqp") else scheme,
        "connect_timeout": 4,
        "transport_options": {},
        "login_method": "PLAIN" if scheme in ("amqp", "amqps", "pyamqp") else None,
        "uri_prefix": None,
        "heartbeat": 0,
        "failover_strategy": "round-robin",
        "alternates": [],
        "credential_provider": None,
    }


def _usage() -> Mapping[str, float]:
    usage = getrusage(RUSAGE_SELF)
    names = (name.removeprefix("ru_") for name in dir(usage) if name.startswith("ru_"))
    return {name: getattr(usage, f"ru_{name}") for name in names}
