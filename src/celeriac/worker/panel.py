"""The methods of remote control, under Celery's names and aliases."""

from __future__ import annotations

from collections.abc import Mapping

from celeriac.broker import Fanout
from celeriac.worker.inspecting import Facts, Inspecting
from celeriac.worker.remote import Method, Remote
from celeriac.worker.steering import Levers, Steering

INSPECT = (
    "active", "active_queues", "clock", "conf", "hello", "ping", "query_task", "registered", "report", "reserved",
    "revoked", "scheduled", "stats",
)  # fmt: skip
CONTROL = (
    "add_consumer", "autoscale", "cancel_consumer", "disable_events", "election", "enable_events", "heartbeat",
    "pool_grow", "pool_restart", "pool_shrink", "revoke", "shutdown", "terminate", "time_limit",
)  # fmt: skip
ALIASES = {
    "dump_active": "active",
    "dump_conf": "conf",
    "dump_reserved": "reserved",
    "dump_revoked": "revoked",
    "dump_schedule": "scheduled",
    "dump_tasks": "registered",
}
"""Older names of some methods, which Celery still accepts."""


def methods_of(inspecting: Inspecting, steering: Steering) -> Mapping[str, Method]:
    """Return the methods by name."""
    methods: dict[str, Method] = {name: getattr(inspecting, name) for name in INSPECT}
    methods |= {name: getattr(steering, name) for name in CONTROL}
    return methods | {alias: methods[name] for alias, name in ALIASES.items()}


def make_remote(fanout: Fanout, facts: Facts, levers: Levers) -> Remote:
    """Return the remote control of one worker."""
    methods = methods_of(Inspecting(facts), Steering(levers))
    app = facts.app
    return Remote(fanout, facts.node, app.settings, methods, app.codecs, facts.clock, app.clock.now)
