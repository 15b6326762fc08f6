"""Everything that can be set for an app, with what it is by default.

Rules: frozen; a value that cannot be used is refused at once, by name, with what is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from celeriac.canvas.budget import MAX_FOLLOW_UP_BYTES, MAX_FOLLOW_UPS
from celeriac.errors import ConfigError
from celeriac.quantities import RATE, SECONDS, Check, Rate, is_number, number, or_none, require, whole
from celeriac.retry import Retry
from celeriac.schedule.days import zone_of
from celeriac.wire.content import COMPRESSIONS, MAX_DECOMPRESSED_RATIO, MAX_DECOMPRESSED_SIZE
from celeriac.wire.control import CELERYS
from celeriac.wire.event import EVENTS

INSPECT_ONLY = "inspect"
"""The value of ``remote_control`` with which workers answer only what changes nothing."""

MOST_AHEAD = 200
"""Messages that a worker may hold before they can start: more would save few further round trips."""

Delivery: TypeAlias = Literal["at_least_once", "at_most_once"]
Priorities: TypeAlias = Literal["celery", "lowest_first"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of an app. Raises ``ConfigError`` for a bad value.

    :param default_queue: where a task goes that no option and no route sends elsewhere.
    :param serializer: how arguments are written: ``json``, ``msgpack``, ``yaml`` or ``pickle``.
    :param result_serializer: how results are written.
    :param accept_content: the serializers whose messages and results are read. ``pickle`` runs code of the sender.
    :param protocol: Celery's task message protocol to send, 1 or 2.
    :param compression: how bodies are compressed, ``None`` for not at all.
    :param max_decompressed_size: bytes that a compressed message or result may have when it is decompressed.
    :param max_decompressed_ratio: how many times its compressed size that may be, where it is more than 1 MiB.
    :param result_expires: seconds for which results are kept, ``None`` for ever.
    :param result_extended: store name, arguments, worker, retries and queue with each result.
    :param ignore_result: store no results, where the task does not say otherwise.
    :param track_started: store the state STARTED, where the task does not say otherwise.
    :param delivery: ``at_least_once`` acknowledges after the run, ``at_most_once`` before it.
    :param max_deliveries: how often a message is delivered before it is set aside as poison.
    :param max_follow_ups: how many messages what follows one message may be: callbacks, the next step, errbacks.
    :param max_follow_up_bytes: bytes of their bodies together.
    :param keep_failed: how many messages of tasks that failed for good the broker keeps, whole and with nothing hidden,
        so that they can be run again; the oldest go first. 0: none.
    :param keep_failed_days: for how many days.
    :param prefetch: how many messages a worker may hold that cannot start yet, 200 at most; 0: it takes only what
        it can start now.
    :param backlog: how many messages for each slot a worker may hold behind long tasks, from a queue of RabbitMQ's of
        which it is the only consumer, so that RabbitMQ does not drop those that expire; 0: none.
    :param publish_timeout: seconds after which a publish that got no answer raises.
    :param lease: seconds after which the messages of a dead worker are taken by another; at most a week.
    :param visibility_timeout: Celery's Redis setting of that name, in seconds.
    :param priorities: what the numbers of priorities mean: ``celery``, as in Celery on that broker, which is 0 first on
        Redis and SQLite and the highest first on RabbitMQ; ``lowest_first``, 0 first everywhere.
    :param key_prefix: put before every key in Redis (Celery: ``global_keyprefix``).
    :param sqlite_group: make a SQLite file readable and writable for its group too, not for its owner alone.
    :param routes: glob pattern of task names to a queue's name or a mapping of send options; the first match wins.
    :param default_retry: the retry policy of tasks that have none.
    :param soft_time_limit: seconds, for tasks that have none.
    :param time_limit: seconds, for tasks that have none.
    :param rate_limit: how many runs of a task each worker starts, for tasks that have none: ``10/m``, or a number a
        second.
    :param event_exchange: the exchange of events (Celery: ``event_exchange``); only those who use the same hear them.
    :param send_events: let workers tell monitors of every task from their start (Celery: ``worker_send_task_events``);
        otherwise they do so when a monitor asks for it.
    :param send_sent_event: let senders tell monitors of every message (Celery: ``task_send_sent_event``).
    :param event_rate_limit: tasks a second up to which a worker tells monitors of all; of more it tells a share that
        falls with the square of the rate, evenly chosen, and says so. A failure is always told. ``None``: no limit.
    :param remote_control: let workers answer Celery's remote control: ``celery inspect``, ``celery control``, Flower;
        ``inspect``: only what changes nothing.
    :param control_exchange: what the exchanges of remote control are named after (Celery: ``control_exchange``); only
        those who use the same name hear each other.
    :param control_reply_limit: bytes that an answer to remote control may have.
    :param timezone: the time zone of schedules that have none of their own (Celery: ``timezone``).
    :param strict_arguments: check and convert arguments by the task's signature and type hints.
    """

    default_queue: str = "celery"
    serializer: str = "json"
    result_serializer: str = "json"
    accept_content: tuple[str, ...] = ("json",)
    protocol: Literal[1, 2] = 2
    compression: str | None = None
    max_decompressed_size: int = MAX_DECOMPRESSED_SIZE
    max_decompressed_ratio: float = MAX_DECOMPRESSED_RATIO
    result_expires: float | None = 86400.0
    result_extended: bool = False
    ignore_result: bool = False
    track_started: bool = False
    delivery: Delivery = "at_least_once"
    max_deliveries: int = 5
    keep_failed: int = 10_000
    keep_failed_days: float = 7.0
    max_follow_ups: int = MAX_FOLLOW_UPS
    max_follow_up_bytes: int = MAX_FOLLOW_UP_BYTES
    prefetch: int = MOST_AHEAD
    backlog: int = 0
    publish_timeout: float = 5.0
    lease: float = 30.0
    visibility_timeout: float = 3600.0
    priorities: Priorities = "celery"
    key_prefix: str = ""
    sqlite_group: bool = False
    routes: Mapping[str, str | Mapping[str, Any]] = {}
    default_retry: Retry | None = None
    soft_time_limit: float | None = None
    time_limit: float | None = None
    rate_limit: Rate | None = None
    event_exchange: str = EVENTS
    send_events: bool = False
    send_sent_event: bool = False
    event_rate_limit: float | None = 1500.0
    remote_control: bool | Literal["inspect"] = True
    control_exchange: str = CELERYS
    control_reply_limit: int = 1024 * 1024
    timezone: str = "UTC"
    strict_arguments: bool = True

    def __post_init__(self) -> None:
        for name, check in ALLOWED.items():
            require(f"setting {name}", getattr(self, name), check)
        zone_of(self.timezone)
        for name in ("serializer", "result_serializer"):
            # This very app would refuse to read what it wrote.
            if (value := getattr(self, name)) not in self.accept_content:
                raise ConfigError(
                    f"setting {name}={value!r} is not in accept_content={self.accept_content!r}: add it there"
                )


def settings_from(given: Mapping[str, Any]) -> Settings:
    """Make settings of a mapping. Raises ``ConfigError`` for an unknown name, with the nearest known one."""
    known = Settings.__struct_fields__
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"unknown setting {name!r}: {hint}")
    accepted = given.get("accept_content")
    if isinstance(accepted, list | set | frozenset):
        given = {**given, "accept_content": tuple(accepted)}
    return Settings(**given)


def _one_of(*allowed: Any) -> Check:
    return " or ".join(repr(value) for value in allowed), lambda value: value in allowed and value is not True


NAME: Check = ("a name", lambda value: isinstance(value, str) and bool(value))
FLAG: Check = ("True or False", lambda value: isinstance(value, bool))
PRIORITIES: Check = _one_of(*get_args(Priorities))
SERIALIZER: Check = _one_of("json", "msgpack", "yaml", "pickle")

ALLOWED: Mapping[str, Check] = {
    "default_queue": NAME,
    "serializer": SERIALIZER,
    "result_serializer": SERIALIZER,
    "accept_content": (
        "a tuple of serializer names, such as ('json',)",
        lambda value: isinstance(value, tuple) and bool(value) and all(SERIALIZER[1](name) for name in value),
    ),
    "protocol": _one_of(1, 2),
    "compression": or_none(
        (
            f"one of {', '.join(COMPRESSIONS)}",
            lambda value: (
                isinstance(value, str) and (value in COMPRESSIONS or value in COMPRESSIONS.values())
            ),
        )
    ),
    "max_decompressed_size": whole(1),
    "max_decompressed_ratio": number(1),
    "result_expires": or_none(SECONDS),
    "result_extended": FLAG,
    "ignore_result": FLAG,
    "track_started": FLAG,
    "delivery": _one_of(*get_args(Delivery)),
    "max_deliveries": whole(1),
    "keep_failed": whole(0),
    "keep_failed_days": (
        "days, more than 0 and at most 3650",
        lambda value: is_number(value) and 0 < value <= 3650,
    ),
    "max_follow_ups": whole(1),
    "max_follow_up_bytes": whole(1),
    "prefetch": (
        f"a whole number from 0 to {MOST_AHEAD}",
        lambda value: whole(0)[1](value) and value <= MOST_AHEAD,
    ),
    "backlog": whole(0),
    "publish_timeout": SECONDS,
    "lease": (
        "seconds, more than 0 and at most 604800, a week",
        lambda value: SECONDS[1](value) and value <= 604800,
    ),
    "visibility_timeout": SECONDS,
    "priorities": PRIORITIES,
    "key_prefix": ("text", lambda value: isinstance(value, str)),
    "sqlite_group": FLAG,
    "routes": ("a mapping of patterns to queues or options", lambda value: isinstance(value, Mapping)),
    "default_retry": or_none(("a Retry", lambda value: isinstance(value, Retry))),
    "soft_time_limit": or_none(SECONDS),
    "time_limit": or_none(SECONDS),
    "rate_limit": or_none(RATE),
    "event_exchange": NAME,
    "send_events": FLAG,
    "send_sent_event": FLAG,
    "event_rate_limit": or_none(
        ("a number of tasks a second, more than 0", lambda value: number(0)[1](value) and value > 0)
    ),
    "remote_control": (
        "True, False or 'inspect'",
        lambda value: isinstance(value, bool) or value == INSPECT_ONLY,
    ),
    "control_exchange": (
        "a name of 1 to 100 ASCII characters",
        lambda value: isinstance(value, str) and 0 < len(value) <= 100 and value.isascii(),
    ),
    "control_reply_limit": whole(1024),
    "timezone": NAME,
    "strict_arguments": FLAG,
}
