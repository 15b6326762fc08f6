"""Between an envelope and the properties of an AMQP message.

Rules: pure, but for a random ``message_id``: it tells a publication from others of the same task, and is kept by what
comes back. Where a message has none, as kombu's, its content does. A priority of 0 is the first to be taken, as
everywhere in celeriac; RabbitMQ takes the highest first, so ``9 - priority`` is written. An expiry is never left to
RabbitMQ, which would drop the message without a word to the caller: it travels in a header of ours, and the worker
reports it. What RabbitMQ adds on its ways (``x-death``, the bits of a delay) is taken off again.
"""

from __future__ import annotations

import contextlib
import os
import re
from hashlib import blake2b
from typing import Any

from celeriac.errors import MalformedMessage
from celeriac.servers.rabbitmq.protocol.content import Properties, read_properties
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.names import HIGHEST_PRIORITY
from celeriac.wire.once import COPY_HEADER, Copy, read_copy

RAW_CONTENT = "application/data"
"""kombu's content type for bytes that no serializer made."""

EXPIRATION_HEADER = "x-celeriac-expiration"
DUE_HEADER = "x-celeriac-due"
"""When a parked message is due, in seconds since the epoch: RabbitMQ does not tell."""

SET_BY_HEADER = "x-celeriac-set-by"
"""Marks a message that came back before, while somebody worked on it."""

DELIVERY_COUNT_HEADER = "x-delivery-count"
EARLIER_DELIVERIES_HEADER = "x-celeriac-deliveries"
"""Deliveries before it was parked: RabbitMQ counts those of a message that is published anew from zero."""

DELAYED_EXCHANGE = "celery_delayed_delivery"

_ADDED_BY_BROKER = frozenset(
    {
        "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange",
        "x-last-death-queue", "x-last-death-reason", DELIVERY_COUNT_HEADER, "x-acquired-count",
    }
)  # fmt: skip
_NOT_MOVED = _ADDED_BY_BROKER | {EARLIER_DELIVERIES_HEADER}
_NOT_FOR_READERS = _NOT_MOVED | {EXPIRATION_HEADER, DUE_HEADER, COPY_HEADER, SET_BY_HEADER}
_DELAY_BITS = re.compile(r"^(?:[01]\.){28}")
_OUR_ID = "celeriac-"
_PERSISTENT = 2


def to_properties(envelope: Envelope) -> Properties:
    """Return the properties of an envelope."""
    headers = envelope.headers
    if envelope.expiration is not None:
        headers = headers | {EXPIRATION_HEADER: envelope.expiration}
    if envelope.copy is not None:
        headers = headers | {COPY_HEADER: envelope.copy.to_text()}
    return Properties(
        envelope.content_type or RAW_CONTENT,
        envelope.content_encoding,
        headers,
        envelope.delivery_mode,
        _flip(envelope.priority),
        envelope.correlation_id,
        envelope.reply_to,
        message_id=new_id(),
    )


def read(message: Inbound) -> tuple[Envelope | Unreadable, int]:
    """Return the envelope of a message, and how often it was handed out. Never raises.

    Only quorum queues count, and they count what was given back on purpose too; elsewhere the number is 1.
    """
    try:
        properties = read_properties(message.header)
    except MalformedMessage as error:
        return Unreadable(message.body, str(error)), 1
    headers = properties.headers or {}
    deliveries = 1 + _earlier(headers)
    if not properties.content_type:
        return Unreadable(message.body, "no content type says what the body is"), deliveries
    expiration, copy, set_by = properties.expiration, None, False
    if not _NOT_FOR_READERS.isdisjoint(headers):
        expiration = _text(headers.get(EXPIRATION_HEADER)) or expiration
        copy = read_copy(headers.get(COPY_HEADER))
        set_by = SET_BY_HEADER in headers
        headers = {name: value for name, value in headers.items() if name not in _NOT_FOR_READERS}
    exchange, routing_key = message.exchange, message.routing_key
    if exchange == DELAYED_EXCHANGE:
        exchange, routing_key = "", _DELAY_BITS.sub("", routing_key)
    envelope = Envelope(
        body=message.body,
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=headers,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        priority=_flip(properties.priority or 0),
        expiration=expiration,
        delivery_mode=properties.delivery_mode or _PERSISTENT,
        delivery_tag=_tag_of(properties, message.body),
        exchange=exchange,
        routing_key=routing_key,
        redelivered=message.redelivered or set_by,
        copy=copy,
    )
    return envelope, deliveries


def moved(message: Inbound, extra: dict[str, Any] | None = None) -> Properties:
    """Return the properties of a message that goes elsewhere, without what would end it on the way.

    RabbitMQ drops a message that its ``x-death`` shows to have been in a queue before, and one whose ``expiration``
    passes while it is parked or dead.

    :param extra: headers to add.
    """
    try:
        properties = read_properties(message.header)
    except MalformedMessage:
        properties = Properties(delivery_mode=_PERSISTENT)
    headers = {name: value for name, value in (properties.headers or {}).items() if name not in _NOT_MOVED}
    if properties.expiration is not None:
        headers.setdefault(EXPIRATION_HEADER, properties.expiration)
        properties.expiration = None
    if headers or extra or properties.headers is not None:
        properties.headers = headers | (extra or {})
    return properties


def parked(message: Inbound, earlier: int = 0) -> Properties:
    """Return the properties of a message that goes away to come back: as ``moved``, and its deliveries go on counting.

    It may be parked twice, when an answer is lost, so it is a copy of what it was.

    :param earlier: deliveries that the message itself does not tell of.
    """
    tag, copy, counted = _known_of(message, earlier)
    key = tag if copy is None else f"{copy.key}.{copy.number}"
    properties = moved(message, counted | _copy_of(key))
    (properties.headers or {}).pop(SET_BY_HEADER, None)
    properties.message_id = new_id()
    return properties


def set_by(message: Inbound, earlier: int = 0) -> Properties:
    """Return the same for one that goes away while somebody may still work on it: it stays the publication it is."""
    tag, copy, counted = _known_of(message, earlier)
    properties = moved(message, counted | ({} if copy else _copy_of(f"{tag}.set-by")) | {SET_BY_HEADER: True})
    properties.message_id = tag
    return properties


def _known_of(message: Inbound, earlier: int) -> tuple[str, Copy | None, dict[str, Any]]:
    """Return what tells the publication, the copy that it is, and the header that counts its deliveries."""
    tag, copy = new_id(), None
    with contextlib.suppress(MalformedMessage):
        properties = read_properties(message.header)
        headers = properties.headers or {}
        tag, copy = _tag_of(properties, message.body), read_copy(headers.get(COPY_HEADER))
        earlier += _earlier(headers)
    return tag, copy, {EARLIER_DELIVERIES_HEADER: earlier} if earlier else {}


def _copy_of(key: str) -> dict[str, Any]:
    """Return the header of a copy of what is parked: each parking has a key of its own."""
    short = blake2b(key.encode(), digest_size=12).hexdigest()
    return {COPY_HEADER: Copy(f"{short}.parked", "", new_id()).to_text()}


def _earlier(headers: dict[str, Any]) -> int:
    counts = (headers.get(name) for name in (DELIVERY_COUNT_HEADER, EARLIER_DELIVERIES_HEADER))
    return sum(count for count in counts if isinstance(count, int))


def new_id() -> str:
    """Return a ``message_id`` that no other publication has."""
    return _OUR_ID + os.urandom(12).hex()


def _tag_of(properties: Properties, body: bytes) -> str:
    """Return what tells a publication from others of its task, the same for every delivery of it."""
    known, headers = properties.message_id, properties.headers or {}
    if known is not None and known.startswith(_OUR_ID):
        return known
    told = (known, properties.correlation_id, *(headers.get(name) for name in ("id", "retries", "eta")))
    return _OUR_ID + blake2b(repr(told).encode() + body, digest_size=12).hexdigest()


def _flip(priority: int) -> int:
    return HIGHEST_PRIORITY - min(max(priority, 0), HIGHEST_PRIORITY)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
