"""The methods of remote control, under Celery's names and aliases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from celeriac.client.app import App, Connections
from celeriac.contracts.fanout import Fanout
from celeriac.settings import INSPECT_ONLY
from celeriac.worker.assembly import Parts
from celeriac.worker.autoscaling import Autoscaler
from celeriac.worker.elections import Elections
from celeriac.worker.events.events import Events
from celeriac.worker.events.heart import utcoffset
from celeriac.worker.inspecting import Facts, Inspecting
from celeriac.worker.logical_clock import LogicalClock
from celeriac.worker.pool import Pool
from celeriac.worker.pools.choice import PoolChoice
from celeriac.worker.remote import AnswerTally, Method, Remote
from celeriac.worker.steering import Ending, Levers, Steering
from celeriac.worker.tally import Tally

INSPECT = (
    "active", "active_queues", "clock", "conf", "hello", "memdump", "memsample", "objgraph", "ping", "query_task",
    "registered", "report", "reserved", "revoked", "scheduled", "stats",
)  # fmt: skip
CONTROL = (
    "add_consumer", "autoscale", "cancel_consumer", "disable_events", "election", "enable_events",
    "follow_pauses", "heartbeat", "pool_grow", "pool_restart", "pool_shrink", "rate_limit",
    "revoke", "revoke_by_stamped_headers", "shutdown", "terminate", "time_limit",
)  # fmt: skip
HARMLESS = {"election", "follow_pauses", "heartbeat"}
"""Those of ``CONTROL`` that change nothing."""

ALIASES = {
    "dump_active": "active",
    "dump_conf": "conf",
    "dump_reserved": "reserved",
    "dump_revoked": "revoked",
    "dump_schedule": "scheduled",
    "dump_tasks": "registered",
}
"""Older names of some methods, which Celery still accepts."""


class Steered(Protocol):
    """A worker as its remote control sees it."""

    name: str
    tally: Tally

    @property
    def queues(self) -> Sequence[str]:
        """The queues that it takes from."""
        ...

    async def add_queue(self, queue: str) -> None:
        """Take from this queue too."""
        ...

    async def drop_queue(self, queue: str) -> None:
        """Stop taking from this queue."""
        ...

    async def grow(self, by: int = 1) -> int:
        """Run more tasks at once."""
        ...

    async def shrink(self, by: int = 1) -> int:
        """Run fewer tasks at once."""
        ...


def methods_of(inspecting: Inspecting, steering: Steering, *, inspect_only: bool) -> Mapping[str, Method]:
    """Return the methods by name.

    :param inspect_only: refuse those that change something.
    """
    methods: dict[str, Method] = {name: getattr(inspecting, name) for name in INSPECT}
    methods |= {name: getattr(steering, name) for name in CONTROL}
    if inspect_only:
        methods |= dict.fromkeys(set(CONTROL) - HARMLESS, _refuse)
    return methods | {alias: methods[name] for alias, name in ALIASES.items()}


async def _refuse(**_: Any) -> None:
    """Refuse a method that changes something."""
    raise ValueError(f"this worker answers questions only: its setting remote_control is {INSPECT_ONLY!r}")


def make_remote(
    worker: Steered,
    app: App,
    connections: Connections,
    parts: Parts,
    pool: Pool,
    choice: PoolChoice,
    ending: Ending,
    autoscaler: Autoscaler,
    fanout: Fanout,
    clock: LogicalClock,
    events: Events | None,
) -> Remote:
    """Return the remote control of one worker."""
    answers = AnswerTally()
    facts = Facts(
        worker.name,
        app,
        connections,
        lambda: worker.queues,
        parts.slots,
        parts.bodies.running,
        parts.consumer.intake,
        parts.rate_limits,
        parts.bodies.limits,
        autoscaler,
        pool,
        choice.title,
        choice.max_tasks,
        worker.tally,
        answers,
        clock,
        parts.revocations.hear,
        lambda: parts.revocations.revoked.ids,
        events,
    )
    levers = Levers(
        connections,
        app.clock,
        lambda: list(app.tasks),
        parts.bodies,
        parts.rate_limits,
        autoscaler,
        pool,
        parts.revocations,
        app.codecs,
        worker.add_queue,
        worker.drop_queue,
        partial(parts.pausing.follow, parts.consumer),
        worker.grow,
        worker.shrink,
        ending,
        events,
    )
    inspect_only = app.settings.remote_control == INSPECT_ONLY
    methods = methods_of(Inspecting(facts), Steering(levers), inspect_only=inspect_only)
    methods = {**methods, **app.control_methods(worker, inspect_only=inspect_only)}
    elections = Elections(
        fanout, worker.name, app.settings.event_exchange, app.codecs, clock, app.clock, utcoffset()
    )
    return Remote(
        fanout, worker.name, app.settings, methods, app.codecs, clock, answers, elections, app.clock.now
    )
