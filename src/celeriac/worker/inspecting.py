"""The answers of a worker to ``celery inspect``, in the fields and types of Celery's answers.

Rules: no method here changes anything. Lists are cut at ``MOST`` entries. Arguments that are large, or that JSON cannot
carry, are answered as text.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from time import perf_counter
from typing import Any

import msgspec

from celeriac.client.app import App, Connections
from celeriac.client.pausing import OURS
from celeriac.client.task import Task
from celeriac.contracts.broker import Delivery
from celeriac.errors import EncodeError
from celeriac.quantities import require, whole
from celeriac.servers.url_parts import masked, scheme_of
from celeriac.settings import Settings
from celeriac.wire.envelope import Envelope
from celeriac.wire.extended_json import encode_json
from celeriac.wire.preview import preview
from celeriac.wire.task import TaskMessage, decode
from celeriac.worker.attempt import SPENT, Attempt
from celeriac.worker.autoscaling import Autoscaler
from celeriac.worker.celery_facts import broker_facts, masked_as_celery, queue_facts, usage
from celeriac.worker.decision import Settle
from celeriac.worker.events.events import Events
from celeriac.worker.intake import Intake
from celeriac.worker.logical_clock import LogicalClock
from celeriac.worker.memory_samples import MemorySamples
from celeriac.worker.pool import Pool
from celeriac.worker.rate_limits import RateLimits
from celeriac.worker.remote import AnswerTally
from celeriac.worker.revocations import MOST_TOLD
from celeriac.worker.slots import Slots
from celeriac.worker.tally import Tally

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
    "rate_limit": "task_default_rate_limit",
    "control_exchange": "control_exchange",
}
"""Our settings that Celery has too, by its names."""

_ITEMS = ("exchange", "routing_key", "rate_limit")
"""The options that ``registered`` tells where the request names none, as in Celery."""

_OPTIONS = {"time_limit": "timeout", "soft_time_limit": "soft_timeout"}
"""Celery's names of what a task's options say."""


_Due = tuple[float, TaskMessage, dict[str, Any]]
"""When a message is due, in seconds since the epoch, the message, and what is told of it."""


class Facts(msgspec.Struct, frozen=True):
    """The facts that the answers are made of.

    :param queues: returns the queues that the worker takes from now.
    :param running: returns the attempts whose bodies run now.
    :param intake: what was taken from its queues and has not begun.
    :param limits: the soft and hard time limits that remote control changed, by the names of tasks.
    :param pool_name: the kind of its pool.
    :param hear_revoked: takes over ids that a worker of Celery has revoked.
    :param revoked: returns the ids that are revoked here.
    """

    node: str
    app: App
    connections: Connections
    queues: Callable[[], Sequence[str]]
    slots: Slots
    running: Callable[[], Sequence[Attempt]]
    intake: Intake
    rate_limits: RateLimits
    limits: Mapping[str, tuple[float | None, float | None]]
    autoscaler: Autoscaler
    pool: Pool
    pool_name: str
    max_tasks_per_child: int | None
    tally: Tally
    answers: AnswerTally
    clock: LogicalClock
    hear_revoked: Callable[[Iterable[str]], None]
    revoked: Callable[[], Iterable[str]]
    events: Events | None = None


class Inspecting:
    """The methods of ``celery inspect``."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._began = perf_counter()
        self._memory = MemorySamples()

    async def ping(self, **_: Any) -> dict[str, str]:
        """Say that it lives."""
        return {"ok": "pong"}

    async def clock(self, **_: Any) -> dict[str, int]:
        """Return the logical clock."""
        return {"clock": self._facts.clock.value}

    async def hello(self, from_node: str, revoked: Any = None, **_: Any) -> dict[str, Any] | None:
        """Greet a worker that starts: take over what it has revoked, and tell what was revoked here.

        Workers of ours read that from the broker; Celery's, which keep it in memory, were not there to hear of it.
        """
        if from_node == self._facts.node:
            return None
        # Celery 4 sends a mapping of ids to times.
        self._facts.hear_revoked([id for id in revoked or () if isinstance(id, str)])
        return {"revoked": list(self._facts.revoked())[:MOST_TOLD], "clock": self._facts.clock.forward()}

    async def active(self, safe: bool = False, **_: Any) -> list[dict[str, Any]]:
        """Tell which tasks run."""
        return [self._of_attempt(attempt, safe=bool(safe)) for attempt in self._facts.running()[:MOST]]

    async def reserved(self, **_: Any) -> list[dict[str, Any]]:
        """Tell which tasks were taken from their queues and have no slot yet."""
        return [self._told_of(*one) for one in self._held(for_later=False)]

    async def scheduled(self, **_: Any) -> list[dict[str, Any]]:
        """Tell which tasks of its queues are parked, or about to be, the next one first."""
        return [
            {"eta": _eta(due, message), "priority": _ETA_PRIORITY, "request": request}
            for due, message, request in await self._scheduled()
        ]

    async def query_task(self, ids: Any, **_: Any) -> dict[str, Any]:
        """Tell the state of tasks that run here, or are parked for its queues."""
        wanted = {ids} if isinstance(ids, str) else set(ids)
        found: dict[str, Any] = {}
        for _due_at, message, request in await self._scheduled():
            if message.id in wanted:
                found[message.id] = ["scheduled", request]
        for delivery, message in self._held(for_later=False):
            if message.id in wanted:
                found[message.id] = ["reserved", self._told_of(delivery, message)]
        for attempt in self._facts.running():
            if attempt.message.id in wanted:
                found[attempt.message.id] = ["active", self._of_attempt(attempt, safe=False)]
        return found

    async def registered(self, taskinfoitems: Any = None, builtins: bool = False, **_: Any) -> list[str]:
        """Tell which tasks it knows, with the named options that they have."""
        items = [
            item for item in taskinfoitems or _ITEMS if isinstance(item, str) and not item.startswith("_")
        ]
        tasks = sorted(self._facts.app.tasks.items())
        return [
            self._described(task, items) for name, task in tasks if builtins or not name.startswith("celery.")
        ]

    async def revoked(self, **_: Any) -> list[str]:
        """Tell which tasks were revoked."""
        kept = (await self._facts.connections.revocations.load()).ids
        return sorted(kept.union(self._facts.revoked()))[-MOST:]

    async def active_queues(self, **_: Any) -> list[dict[str, Any]]:
        """Tell which queues it takes from."""
        return [queue_facts(name) for name in self._facts.queues()]

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
            f"settings -> transport:{scheme_of(app.broker_url)} results:{masked(app.backend_url)}",
            "",
            *(f"{name}: {value!r}" for name, value in self._conf(with_defaults=False).items()),
            "",
        ]
        return {"ok": "\n".join(lines)}

    async def stats(self, **_: Any) -> dict[str, Any]:
        """Tell numbers."""
        facts, scaling = self._facts, self._facts.autoscaler
        told = {
            "total": dict(facts.tally.started),
            "pid": os.getpid(),
            "clock": str(facts.clock.value),
            "uptime": int(perf_counter() - self._began),
            "pool": self._of_pool(),
            "broker": broker_facts(facts.app.broker_url),
            "prefetch_count": facts.slots.total + len(facts.intake.held()),
            "rusage": usage(),
            OURS: {
                "version": version("celeriac"),
                "pool": facts.pool_name,
                "loop": type(asyncio.get_running_loop()).__module__.partition(".")[0],
                "slots": {
                    "running": facts.slots.running,
                    "free": facts.slots.free,
                    "settling": facts.slots.settling,
                },
                "held": facts.tally.held,
                "refused": facts.tally.refused,
                "lost": facts.tally.lost,
                "dead": facts.tally.dead,
                "lag_ms": await _lag(),
                "control": {"answered": facts.answers.answered, "cut": facts.answers.cut},
                "events": None if facts.events is None else facts.events.numbers(),
            },
        }
        if scaling.is_on:
            told["autoscaler"] = {
                "max": scaling.scaling.most,
                "min": scaling.scaling.least,
                "current": facts.slots.total,
                "qty": facts.slots.running,
            }
        return told

    async def memsample(self, **_: Any) -> str | None:
        """Tell the memory of this process, and remember it for ``memdump``."""
        return self._memory.take()

    async def memdump(self, samples: int = 10, **_: Any) -> str:
        """Tell the samples of ``memsample`` since the last dump."""
        require("samples", samples, whole(1))
        return self._memory.dump(samples)

    async def objgraph(self, **_: Any) -> None:
        """Refuse: nothing here draws graphs of objects."""
        raise ImportError("no graphs of objects are drawn: use objgraph in the program of the worker")

    def _of_pool(self) -> dict[str, Any]:
        facts, settings = self._facts, self._facts.app.settings
        children = facts.pool.children
        processes = [] if children is None else list(children.processes)
        told: dict[str, Any] = {
            "implementation": f"celeriac.worker.pools.{facts.pool_name}",
            "max-concurrency": facts.slots.total,
            "processes": processes or [os.getpid()],
            "max-tasks-per-child": facts.max_tasks_per_child or "N/A",
            "put-guarded-by-semaphore": False,
            "timeouts": [settings.soft_time_limit or 0, settings.time_limit or 0],
        }
        if children is not None:
            contexts = [attempt.context for attempt in facts.running() if attempt.context is not None]
            busy = sum(children.process_of(context) is not None for context in contexts)
            told["writes"] = {
                "total": sum(facts.tally.started.values()),
                "strategy": "fair",
                "inqueues": {"total": len(processes), "active": busy},
            }
        return told

    def _conf(self, *, with_defaults: bool) -> dict[str, Any]:
        app = self._facts.app
        values: dict[str, Any] = {
            "broker_url": masked_as_celery(app.broker_url),
            "result_backend": masked_as_celery(app.backend_url),
        }
        values |= {
            "deprecated_settings": None,
            "include": [],
            "worker_disable_prefetch": app.settings.prefetch == 0,
        }
        defaults = Settings()
        for ours, name in _SETTINGS.items():
            value = getattr(app.settings, ours)
            if with_defaults or value != getattr(defaults, ours):
                values[name] = list(value) if isinstance(value, tuple) else value
        return values

    def _described(self, task: Task[Any, Any], items: Sequence[str]) -> str:
        values = {item: getattr(task.options, _OPTIONS.get(item, item), None) for item in items}
        if "name" in values:
            values["name"] = task.name
        if "rate_limit" in values:
            values["rate_limit"] = self._facts.rate_limits.of(task.name)
        if task.name in self._facts.limits:
            changed = dict(zip(("soft_time_limit", "time_limit"), self._facts.limits[task.name], strict=True))
            values |= {item: changed[item] for item in values.keys() & changed.keys()}
        told = " ".join(f"{item}={value}" for item, value in values.items() if value is not None)
        return f"{task.name} [{told}]" if told else task.name

    def _held(self, *, for_later: bool) -> list[tuple[Delivery, TaskMessage]]:
        """Return what has no slot yet: what is to be parked once it has one, or what is to run."""
        now = self._facts.app.clock.now()
        read = [(one, self._read(one)) for one in self._facts.intake.held()[:MOST]]
        return [(one, message) for one, message in read if message and _is_later(message, now) == for_later]

    async def _scheduled(self) -> list[_Due]:
        """Return what is parked for its queues, or was taken and is about to be, in the order of their times."""
        await self._facts.intake.catch_up()
        # First what is on its way: what is parked meanwhile is found there, too.
        on_their_way = list(self._on_their_way())
        found = await self._parked()
        known = {message.id for _, message, _ in found}
        found += [one for one in on_their_way if one[1].id not in known]
        return sorted(found, key=lambda one: one[0])[:MOST]

    def _on_their_way(self) -> Iterator[_Due]:
        for delivery, message in self._held(for_later=True):
            yield _due(message), message, self._told_of(delivery, message)
        now = self._facts.app.clock.now()
        for attempt in self._facts.intake.not_begun()[:MOST]:
            decision, delivery = attempt.decision, attempt.delivery
            if decision is None and (read := self._read(delivery)) and _is_later(read, now):
                yield _due(read), read, self._told_of(delivery, read)
            elif decision is not None and decision.settle is Settle.PARK:
                yield decision.until, attempt.message, self._told_of(delivery, attempt.message)

    async def _parked(self) -> list[_Due]:
        queues, codecs = set(self._facts.queues()), self._facts.app.codecs
        found = []
        for parked in await self._facts.connections.broker.schedule.list(MOST):
            if parked.queue in queues and isinstance(parked.envelope, Envelope):
                message = decode(parked.envelope, codecs)
                if isinstance(message, TaskMessage):
                    told = self._told(message, parked.queue, redelivered=False, safe=False)
                    found.append((parked.due, message, told))
        return found

    def _read(self, delivery: Delivery) -> TaskMessage | None:
        if not isinstance(delivery.envelope, Envelope):
            return None
        message = decode(delivery.envelope, self._facts.app.codecs)
        return message if isinstance(message, TaskMessage) else None

    def _of_attempt(self, attempt: Attempt, *, safe: bool) -> dict[str, Any]:
        began = self._facts.app.clock.now() - (perf_counter() - attempt.started)
        told = self._told(attempt.message, attempt.queue, redelivered=attempt.delivery.redelivered, safe=safe)
        return told | {
            "time_start": began,
            "acknowledged": attempt.receipt is SPENT,
            "worker_pid": self._process_of(attempt),
        }

    def _process_of(self, attempt: Attempt) -> int:
        children = self._facts.pool.children
        if children is None or attempt.context is None:
            return os.getpid()
        return children.process_of(attempt.context) or os.getpid()

    def _told_of(self, delivery: Delivery, message: TaskMessage) -> dict[str, Any]:
        return self._told(message, delivery.queue, redelivered=delivery.redelivered, safe=False)

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
                "priority": message.priority,
                "redelivered": redelivered,
            },
            "worker_pid": None,
        }


async def _lag() -> float:
    """Return the milliseconds that a turn of the event loop takes now: by so much all that it does is late."""
    began = perf_counter()
    await asyncio.sleep(0)
    return round(1000 * (perf_counter() - began), 3)


def _arguments(message: TaskMessage, *, safe: bool) -> tuple[Any, Any]:
    if not safe:
        try:
            if len(encode_json([message.args, message.kwargs])) <= LARGE:
                return message.args, message.kwargs
        except EncodeError:
            pass
    return message.args_repr or preview(tuple(message.args)), message.kwargs_repr or preview(message.kwargs)


def _eta(due: float, message: TaskMessage) -> str:
    return (message.eta or datetime.fromtimestamp(due, UTC)).isoformat()


def _is_later(message: TaskMessage, now: float) -> bool:
    return message.eta is not None and message.eta.timestamp() > now


def _due(message: TaskMessage) -> float:
    return message.eta.timestamp() if message.eta is not None else 0.0
