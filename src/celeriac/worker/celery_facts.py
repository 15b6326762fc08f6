"""Facts of a worker in the form that Celery's answers to ``inspect`` have them in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.servers.url_parts import masked, scheme_of, take_apart

try:
    from resource import RUSAGE_SELF, getrusage
except ModuleNotFoundError:  # Windows: clients import this too, workers do not run there
    getrusage = None  # type: ignore[assignment]


def queue_facts(name: str) -> dict[str, Any]:
    """Return a queue as ``active_queues`` has it."""
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


def masked_as_celery(url: str) -> str:
    """Return the URL with Celery's sign for a password."""
    return masked(url).replace("***", "********")


def broker_facts(url: str) -> Mapping[str, Any]:
    """Return what Celery's answer says of its connection; the password is no part of it."""
    scheme = scheme_of(url)
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


def usage() -> Mapping[str, float]:
    """Return what this process has used, as ``stats`` has it under ``rusage``."""
    used = getrusage(RUSAGE_SELF)
    names = (name.removeprefix("ru_") for name in dir(used) if name.startswith("ru_"))
    return {name: getattr(used, f"ru_{name}") for name in names}
