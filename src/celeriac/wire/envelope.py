"""The envelope and the route: a message as every broker carries it, and where it goes.

Rules: an ``Envelope`` is content plus the properties that AMQP carries natively and that kombu's JSON frame carries
on Redis and SQL. Bytes that cannot be read as one are an ``Unreadable``, never an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.wire.once import Copy


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a message goes, and when.

    :param routing_key: the routing key; with the default exchange this is the queue's name.
    :param exchange: ``""`` is the default exchange, as Celery 4 and newer use it for direct queues.
    :param queue: the queue to declare before the first publish; ``None`` when only exchange and key are known.
    :param due: seconds since the epoch until which the broker may park it; this is a hint, not part of the message.
    """

    routing_key: str
    exchange: str = ""
    queue: str | None = None
    due: float | None = None


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One message as a broker carries it.

    ``body`` is the serialized (and perhaps compressed) content, already free of any transfer encoding such as base64.
    ``headers`` holds the application headers; protocol 2 keeps its fields there. ``exchange`` and ``routing_key`` are
    those the message was published with. ``expiration`` is milliseconds as text, as AMQP has it. ``copy`` is set
    where the broker could not tell whether the message was published before. ``app_id`` is the sender's own.
    """

    body: bytes
    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] = {}
    correlation_id: str | None = None
    reply_to: str | None = None
    priority: int = 0
    expiration: str | None = None
    delivery_mode: int = 2
    delivery_tag: str | None = None
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    copy: Copy | None = None
    app_id: str | None = None


class Unreadable(msgspec.Struct, frozen=True):
    """Bytes that are no envelope, and why."""

    raw: bytes
    reason: str
    delivery_tag: None = None
