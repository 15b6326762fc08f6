"""Where a message goes: from a task's name, the options of a call and the routes of an app.

Rules: pure; what a call says wins over what its task says, and that over the first route whose pattern matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from fnmatch import translate
from typing import Any, Literal, TypeAlias

import msgspec

from celeriac.canvas.nodes import Node
from celeriac.errors import ConfigError
from celeriac.quantities import OPTIONS, require
from celeriac.retry import Retry
from celeriac.wire.envelope import Route

Link: TypeAlias = Mapping[str, Any] | Node[Any]
"""A callback or errback of a task: a workflow, or Celery's dictionary of one."""


class SendOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How one call is sent; ``None`` leaves a matter to the task, the routes and the settings, in this order.

    :param queue: the queue's name. Without ``exchange`` the message goes straight to it.
    :param exchange: a named exchange, used with ``routing_key``.
    :param routing_key: without ``exchange`` and ``queue`` this names the queue.
    :param priority: 0 to 9, with the meaning that it has in Celery on that broker: on Redis and SQLite 0 is taken
        first, on RabbitMQ 9. ``Settings.priorities`` can give it one meaning everywhere.
    :param countdown: seconds until the task may run.
    :param eta: the time before which it must not run; aware.
    :param expires: seconds from now, or the aware time, after which it must not run any more.
    :param task_id: the call's id; made up where absent.
    :param headers: custom headers, visible in the task's ``Context.headers``.
    :param serializer: name of the serializer of arguments.
    :param compression: name of the compression of the body.
    :param retry: publish again as this policy says while the broker is away. A publish that timed out may have
        arrived, so the message may be there twice, with one id.
    :param time_limit: hard limit in seconds for this call.
    :param soft_time_limit: soft limit in seconds for this call.
    :param shadow: a name to show in logs and monitors instead of the task's.
    :param link: signatures (``task.s(...)``, or Celery's dictionaries) to send when the task succeeds.
    :param link_error: signatures to send when it fails.
    :param protocol: 1 or 2, Celery's task message protocol.
    :param reply_to: queue for results, for backends that send them.
    """

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    countdown: float | None = None
    eta: datetime | None = None
    expires: float | datetime | None = None
    task_id: str | None = None
    headers: Mapping[str, Any] | None = None
    serializer: str | None = None
    compression: str | None = None
    retry: Retry | None = None
    ignore_result: bool | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    shadow: str | None = None
    link: Link | Sequence[Link] | None = None
    link_error: Link | Sequence[Link] | None = None
    protocol: Literal[1, 2] | None = None
    reply_to: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None

    def __post_init__(self) -> None:
        for name in GIVEN_OFTEN_WRONG:
            value = getattr(self, name)
            if value is not None:
                GIVEN_OFTEN_WRONG[name](name, value)
        for name, check in OPTIONS.items():
            if (value := getattr(self, name)) is not None:
                require(f"option {name}", value, check)

    def over(self, defaults: SendOptions) -> SendOptions:
        """Return these options, with what they leave open taken from ``defaults``."""
        if defaults is NO_OPTIONS:
            return self
        if self is NO_OPTIONS:
            return defaults
        given = {name: value for name in OPTION_NAMES if (value := getattr(self, name)) is not None}
        if "queue" in given or "exchange" in given or "routing_key" in given:
            # A destination is taken whole: a route's exchange does not go with a call's queue.
            defaults = msgspec.structs.replace(defaults, queue=None, exchange=None, routing_key=None)
        return msgspec.structs.replace(defaults, **given)


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or (not value and name != "exchange"):
        raise ConfigError(f"option {name}={value!r}: give a name")


def _policy(name: str, value: object) -> None:
    if not isinstance(value, Retry):
        raise ConfigError(f"option {name}={value!r}: give a Retry, such as Retry(max_attempts=5)")


def _headers(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"option {name}={value!r}: give a mapping")


def _choice(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"option {name}={value!r}: give True or False")


def _links(name: str, value: object) -> None:
    links = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(link, Node) or _names_a_task(link) for link in links):
        raise ConfigError(f"option {name}={value!r:.200}: give signatures, such as task.s(1)")


def _names_a_task(link: object) -> bool:
    return isinstance(link, Mapping) and isinstance(link.get("task"), str)


GIVEN_OFTEN_WRONG: Mapping[str, Callable[[str, object], None]] = {
    "queue": _text,
    "exchange": _text,
    "routing_key": _text,
    "task_id": _text,
    "serializer": _text,
    "compression": _text,
    "retry": _policy,
    "headers": _headers,
    "ignore_result": _choice,
    "shadow": _text,
    "link": _links,
    "link_error": _links,
    "reply_to": _text,
    "root_id": _text,
    "parent_id": _text,
    "group_id": _text,
}

OPTION_NAMES = SendOptions.__struct_fields__
NO_OPTIONS = SendOptions()


def send_options(given: Mapping[str, Any]) -> SendOptions:
    """Make options of a mapping. Raises ``ConfigError`` for an unknown name, with the nearest known one."""
    for name in given:
        if name not in OPTION_NAMES:
            near = get_close_matches(name, OPTION_NAMES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(OPTION_NAMES)}"
            raise ConfigError(f"unknown option {name!r}: {hint}")
    return SendOptions(**given) if given else NO_OPTIONS


class Routes:
    """Options by task name: the first pattern that matches wins.

    :param routes: glob pattern (``shop.*``) to a queue's name or a mapping of options.

    Raises ``ConfigError`` naming the pattern that cannot be used.
    """

    def __init__(self, routes: Mapping[str, str | Mapping[str, Any]]) -> None:
        self._table = [
            (re.compile(translate(pattern)), _target(pattern, to)) for pattern, to in routes.items()
        ]

    def match(self, task: str) -> SendOptions:
        """Return the options of the first route for this name, or empty ones."""
        for pattern, options in self._table:
            if pattern.match(task):
                return options
        return NO_OPTIONS


def _target(pattern: str, to: str | Mapping[str, Any]) -> SendOptions:
    try:
        return send_options({"queue": to} if isinstance(to, str) else dict(to))
    except (ConfigError, TypeError, ValueError) as error:
        raise ConfigError(
            f"setting routes, pattern {pattern!r}: {error}; give a queue name or options"
        ) from error


def route(options: SendOptions, default_queue: str) -> Route:
    """Return where a message with these options goes.

    A queue alone is reached through the default exchange, as Celery 4 and newer publish. A queue with another
    routing key is reached through the exchange named like the queue (Celery's automatic queues).
    """
    queue, exchange, key = options.queue, options.exchange, options.routing_key
    if exchange is None:
        if queue is None:
            queue = key or default_queue
        exchange = "" if key is None or key == queue else queue
    return Route(key or queue or default_queue, exchange, queue)
