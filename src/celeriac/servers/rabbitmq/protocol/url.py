"""The grammar of AMQP URLs: what Celery takes, and celeriac's options.

Rules: parsing touches no network and no file; user, password and vhost are percent-decoded; an option that is not known
is a ``ConfigError`` that names the known ones.
"""

from __future__ import annotations

from typing import Any

import msgspec

from celeriac.errors import ConfigError
from celeriac.servers.tls import OPTIONS as TLS_OPTIONS
from celeriac.servers.tls import read_tls
from celeriac.servers.url_parts import UrlParts, masked, options_of, take_apart, unknown_option

SCHEMES = ("amqp", "amqps", "pyamqp")
"""Schemes that are read here; ``pyamqp`` is Celery's name for the same."""

_PORTS = {"amqp": 5672, "pyamqp": 5672, "amqps": 5671}
_OPTIONS = ("heartbeat", "connection_name", "declare", "queue_type", "max_priority")
_DECLARE = ("auto", "never")
_QUEUE_TYPES = ("classic", "quorum")


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a RabbitMQ, and how to log in there."""

    host: str = "localhost"
    port: int = 5672
    username: str = "guest"
    password: str = "guest"  # noqa: S105 - RabbitMQ's own default
    vhost: str = "/"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []  # what prints fields one by one prints none

    def __str__(self) -> str:
        """Return the place without its password, fit for a message."""
        return f"{self.host}:{self.port}/{'' if self.vhost == '/' else self.vhost}"


class AmqpTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where a RabbitMQ is, and what queues are declared like.

    :param nodes: the next is tried when one cannot be reached, with its own login and vhost.
    :param heartbeat: seconds between signs of life; after two of them without one the connection is given up.
    :param declare: ``auto`` declares what is missing, ``never`` expects everything to be there.
    :param queue_type: ``x-queue-type`` of the queues that are declared; ``None`` leaves it to the broker.
    :param max_priority: ``x-max-priority`` of the queues that are declared.
    """

    nodes: tuple[Node, ...]
    heartbeat: float = 60.0
    tls: dict[str, str] | None = None
    connection_name: str | None = None
    declare: str = "auto"
    queue_type: str | None = None
    max_priority: int | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"

    def __str__(self) -> str:
        """Return the place without its password, fit for a message."""
        scheme = "amqps" if self.tls is not None else "amqp"
        return ";".join(f"{scheme}://{node}" for node in self.nodes)


def parse_amqp_url(url: str) -> AmqpTarget:
    """Return what an AMQP URL says.

    ``amqp://user:password@host:port/vhost`` (Celery: "Using RabbitMQ"; ``pyamqp`` is the same), ``amqps://`` for TLS
    with ``ssl_cert_reqs``, ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_check_hostname``; several nodes
    with ``;`` between their URLs, each with a login and a vhost of its own, as in Celery. No vhost is ``/``. Options:
    ``heartbeat``, ``connection_name``, ``declare=never``, ``queue_type=quorum``, ``max_priority=9``. Raises
    ``ConfigError``.
    """
    places = take_apart(url)
    schemes = {place.scheme for place in places}
    if len(schemes) != 1 or not schemes <= set(SCHEMES):
        raise ConfigError(f"not an AMQP URL: {masked(url)!r}; write amqp://user:password@host:5672/vhost")
    (scheme,) = schemes
    options = options_of(places)
    known = (*_OPTIONS, *TLS_OPTIONS) if scheme == "amqps" else _OPTIONS
    if (error := unknown_option(scheme, options, known)) is not None:
        raise error
    if scheme == "amqps":
        read_tls(options)
    return AmqpTarget(
        nodes=tuple(_node(place, _PORTS[scheme]) for place in places),
        tls={name: options[name] for name in TLS_OPTIONS if name in options} if scheme == "amqps" else None,
        heartbeat=_seconds("heartbeat", options.get("heartbeat", "60")),
        connection_name=options.get("connection_name"),
        declare=_choice("declare", options.get("declare", "auto"), _DECLARE),
        queue_type=_choice("queue_type", options["queue_type"], _QUEUE_TYPES)
        if "queue_type" in options
        else None,
        max_priority=_priority(options["max_priority"]) if "max_priority" in options else None,
    )


def _node(place: UrlParts, default_port: int) -> Node:
    return Node(
        host=place.host or "localhost",
        port=place.port or default_port,
        username=place.username or "guest",
        password=place.password or "guest",
        vhost=place.path[1:] or "/",
    )


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 65535:
        raise ConfigError(f"{name}={text!r} in an AMQP URL: give seconds from 0 (none) to 65535")
    return seconds


def _choice(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise ConfigError(f"{name}={text!r} in an AMQP URL: give {' or '.join(allowed)}")
    return text


def _priority(text: str) -> int:
    if not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= 255:
        raise ConfigError(f"max_priority={text!r} in an AMQP URL: give a whole number from 1 to 255")
    return int(text)
