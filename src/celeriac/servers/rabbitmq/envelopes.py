"""Between an envelope and the properties of an AMQP message.

Rules: pure, but for a random ``message_id``. That id names the publication: it differs from other publications of the
same task, and stays when the message comes back. A message of kombu has none, and is named by a hash of its content.
One publication may stand in several queues, and is a message of its own in each. A header of ours may be forged, so a
value that celeriac does not write is ignored. A priority means what it means in Celery on RabbitMQ: the highest is
taken first, and none is the lowest. With ``lowest_first``, ``9 - priority`` is written, so that 0 is taken first as on
the other brokers. An expiry is never left to RabbitMQ, which would drop the message and tell no caller: it travels in a
header of ours, and the worker reports it. Headers and routing bits that RabbitMQ adds are taken off again.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Mapping
from hashlib import blake2b
from typing import Any, TypeGuard

import msgspec

from celeriac.errors import EncodeError, MalformedMessage
from celeriac.servers.rabbitmq.protocol.content import (
    Properties,
    app_id_of,
    as_forwarded,
    read_properties,
    set_app_id,
    short_text,
)
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.names import HIGHEST_PRIORITY
from celeriac.wire.once import COPY_HEADER, Copy, read_copy
from celeriac.wire.task_headers import TaskHeaders

RAW_CONTENT = "application/data"
"""kombu's content type for bytes that no serializer made."""

EXPIRATION_HEADER = "x-celeriac-expiration"
DUE_HEADER = "x-celeriac-due"
"""Header of a parked message: when it is due, in seconds since the epoch. RabbitMQ does not tell."""

PUT_OFF_HEADER = "x-celeriac-set-by"
"""Marks a message that was put off while a worker worked on it."""

DELIVERY_COUNT_HEADER = "x-delivery-count"
EARLIER_DELIVERIES_HEADER = "x-celeriac-deliveries"
"""Deliveries before it was parked: RabbitMQ counts those of a message that is published anew from zero."""

DELAYED_EXCHANGE = "celery_delayed_delivery"
_DELAYING = "celery_delayed_"

SOON = "celeriac.soon"
"""The queue of delays under a second, which are exact; kombu's are whole seconds, so that less than one is left."""

_LEFT_QUEUE = ("x-last-death-queue", "x-first-death-queue")  # RabbitMQ before 3.13 has only the first

_ADDED_BY_BROKER = frozenset(
    {
        "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason", "x-last-death-exchange",
        "x-last-death-queue", "x-last-death-reason", DELIVERY_COUNT_HEADER, "x-acquired-count",
    }
)  # fmt: skip
_FURTHER_KEYS = frozenset({"CC", "BCC"})
"""Headers by which RabbitMQ copies a message to more queues. A message that moves would be copied there again."""

_NOT_MOVED = _ADDED_BY_BROKER | _FURTHER_KEYS | {EARLIER_DELIVERIES_HEADER}
_NOT_FOR_READERS = _NOT_MOVED | {EXPIRATION_HEADER, DUE_HEADER, COPY_HEADER, PUT_OFF_HEADER}
_TELLING = frozenset(
    {"task", "id", "root_id", "parent_id", "group", "retries", "eta", "expires", "lang", "origin"}
)
_MOST_TOLD = 1000
DELAY_BITS = re.compile(r"^(?:[01]\.){28}")
_OUR_ID = "celeriac-"
_PERSISTENT = 2
_HIGHEST = 255
_MOST_DELIVERIES = 10_000
"""A greater number in a header is taken to be forged."""

_SAME = 0.01
_LEFT = 0.999

_FARTHEST = 253402300800.0
"""The end of the year 9999, in seconds since the epoch."""


def to_properties(envelope: Envelope, *, lowest_first: bool = False) -> Properties:
    """Return the properties of an envelope. Raises ``EncodeError`` for headers that are not the sender's to write.

    :param lowest_first: 0 is to be taken first.
    """
    headers = dict(envelope.headers)
    if not _NOT_FOR_READERS.isdisjoint(headers):
        _check_given(headers)
    if envelope.expiration is not None:
        headers = headers | {EXPIRATION_HEADER: envelope.expiration}
    if envelope.copy is not None:
        headers = headers | {COPY_HEADER: envelope.copy.to_text()}
    properties = Properties(
        envelope.content_type or RAW_CONTENT,
        envelope.content_encoding,
        headers,
        envelope.delivery_mode,
        _flip(envelope.priority) if lowest_first else min(max(envelope.priority, 0), _HIGHEST) or None,
        envelope.correlation_id,
        envelope.reply_to,
        message_id=new_id(),
    )
    if envelope.app_id is not None:
        set_app_id(properties, envelope.app_id)
    return properties


def _check_given(headers: Mapping[str, Any]) -> None:
    for name in _NOT_FOR_READERS.intersection(headers):
        if name not in _FURTHER_KEYS:
            raise EncodeError(
                f"headers: {name!r} is written by RabbitMQ or celeriac itself; use another name"
            )
        keys = headers[name]
        if not isinstance(keys, list | tuple) or not all(isinstance(key, str) for key in keys):
            raise EncodeError(
                f"headers: {name!r} names further routing keys to RabbitMQ, which takes nothing but a list of texts"
            )
        for key in keys:
            short_text(key, f"headers: a routing key of {name!r}")


def has_further_keys(properties: Properties) -> bool:
    """Whether RabbitMQ is to put the message into more queues than that of its routing key."""
    return not _FURTHER_KEYS.isdisjoint(properties.headers or {})


def shortened(properties: Properties, kept: Collection[str]) -> Properties:
    """Return the properties with the headers that identify the task, and with those of ``kept``."""
    headers = {
        name: value
        for name, value in (properties.headers or {}).items()
        if name in kept or (name in _TELLING and len(str(value)) <= _MOST_TOLD)
    }
    return msgspec.structs.replace(properties, headers=headers)


def read(message: Inbound, *, lowest_first: bool = False) -> tuple[Envelope | Unreadable, int]:
    """Return the envelope of a message, and the number of deliveries by its own headers. Never raises."""
    try:
        properties = read_properties(message.header)
    except MalformedMessage as error:
        return Unreadable(message.body, str(error)), 1
    headers, deliveries = properties.headers, 1
    if headers is None:
        headers = {}
    expiration, copy, was_put_off = properties.expiration, None, False
    if not isinstance(headers, TaskHeaders) and not _NOT_FOR_READERS.isdisjoint(headers):
        deliveries += _count_in(headers, EARLIER_DELIVERIES_HEADER)
        expiration = _text(headers.get(EXPIRATION_HEADER)) or expiration
        copy = read_copy(headers.get(COPY_HEADER))
        was_put_off = PUT_OFF_HEADER in headers
        headers = {name: value for name, value in headers.items() if name not in _NOT_FOR_READERS}
    if not properties.content_type:
        return Unreadable(message.body, "no content type says what the body is"), deliveries
    exchange, routing_key = message.exchange, message.routing_key
    if _was_delayed(message):
        exchange, routing_key = "", DELAY_BITS.sub("", routing_key)
    # In the order of the fields: looking the names up would cost as much again.
    envelope = Envelope(
        message.body,
        properties.content_type,
        properties.content_encoding,
        headers,
        properties.correlation_id,
        properties.reply_to,
        _flip(properties.priority or 0) if lowest_first else properties.priority or 0,
        expiration,
        properties.delivery_mode or _PERSISTENT,
        _publication_of(properties, headers, message.body),
        exchange,
        routing_key,
        message.redelivered or was_put_off,
        copy,
        app_id_of(properties) if properties.rest_flags else None,
    )
    return envelope, deliveries


def _was_delayed(message: Inbound) -> bool:
    """Whether it comes from the queues of delays, of which the last names the exchange that it was put into."""
    return message.exchange.startswith(_DELAYING) and DELAY_BITS.match(message.routing_key) is not None


def kept_until(message: Inbound) -> float | None:
    """Return until when RabbitMQ kept the message, if it was exact; else ``None``. Never raises."""
    if not _was_delayed(message):
        return None
    try:
        headers = read_properties(message.header).headers or {}
    except MalformedMessage:
        return None
    left = next((headers[name] for name in _LEFT_QUEUE if name in headers), None)
    due = headers.get(DUE_HEADER)
    return due if left == SOON and is_moment(due) else None


def left_of_delay(message: Inbound, due: float, now: float) -> float:
    """Return until when a message is to be kept that is due then by our clock, which may be wrong.

    One that RabbitMQ kept for whole seconds already is due within another second.
    """
    if not _was_delayed(message):
        return due
    known = None
    with contextlib.suppress(MalformedMessage):
        known = (read_properties(message.header).headers or {}).get(DUE_HEADER)
    is_same = not is_moment(known) or abs(known - due) < _SAME
    return min(due, now + _LEFT) if is_same else due


def counted_by_broker(message: Inbound) -> int | None:
    """Return how often RabbitMQ says that a message was handed out before, ``None`` where it does not say so.

    Only quorum queues count, and they count deliveries that were given back on purpose too. In other queues the
    number is the sender's, and is not to be used.
    """
    try:
        headers = read_properties(message.header).headers or {}
    except MalformedMessage:
        return None
    return _count_in(headers, DELIVERY_COUNT_HEADER) if DELIVERY_COUNT_HEADER in headers else None


def moved(message: Inbound, extra: dict[str, Any] | None = None) -> Properties:
    """Return the properties of a message that moves to another place, without those by which RabbitMQ would drop it.

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
    properties = as_forwarded(properties)
    if headers or extra or properties.headers is not None:
        properties.headers = headers | (extra or {})
    return properties


def parked(message: Inbound, earlier: int = 0) -> Properties:
    """Return the properties of a message that is parked: as ``moved``, with the number of its deliveries.

    It is marked as a copy, since it is parked twice if an answer is lost.

    :param earlier: deliveries that its headers do not count.
    """
    publication, copy, counted = _known_of(message, earlier)
    key = publication if copy is None else f"{copy.key}.{copy.number}"
    properties = moved(message, counted | _copy_of(key, message.queue))
    headers = properties.headers or {}
    properties.headers = {name: value for name, value in headers.items() if name != PUT_OFF_HEADER}
    properties.message_id = new_id()
    return properties


def put_off(message: Inbound, earlier: int = 0) -> Properties:
    """Return the same for one that is put off while a worker may still work on it: it stays the same publication."""
    publication, copy, counted = _known_of(message, earlier)
    again = {} if copy else _copy_of(f"{publication}.set-by", message.queue)
    properties = moved(message, counted | again | {PUT_OFF_HEADER: True})
    properties.message_id = publication
    return properties


def _known_of(message: Inbound, earlier: int) -> tuple[str, Copy | None, dict[str, Any]]:
    """Return the name of the publication, the copy that it is, and the header that counts its deliveries."""
    publication, copy = new_id(), None
    with contextlib.suppress(MalformedMessage):
        properties = read_properties(message.header)
        headers = properties.headers or {}
        publication = _publication_of(properties, headers, message.body)
        copy = read_copy(headers.get(COPY_HEADER))
        earlier += _count_in(headers, EARLIER_DELIVERIES_HEADER)
    return publication, copy, {EARLIER_DELIVERIES_HEADER: min(earlier, _MOST_DELIVERIES)} if earlier else {}


def _copy_of(key: str, queue: str) -> dict[str, Any]:
    """Return the header that marks a copy; each parking in each queue has a key of its own."""
    short = blake2b(f"{key}\0{queue}".encode(), digest_size=12).hexdigest()
    return {COPY_HEADER: Copy(f"{short}.parked", "", new_id()).to_text()}


def _count_in(headers: Mapping[str, Any], name: str) -> int:
    """Return the count that a header holds, 0 if it holds anything else."""
    count = headers.get(name)
    return count if type(count) is int and 0 <= count <= _MOST_DELIVERIES else 0


def is_moment(value: object) -> TypeGuard[float]:
    """Whether this is a time as we write it: seconds since the epoch, up to the year 9999."""
    return isinstance(value, float) and 0 <= value < _FARTHEST


def new_id() -> str:
    """Return a ``message_id`` that no other publication has."""
    return _OUR_ID + os.urandom(12).hex()


def _publication_of(properties: Properties, headers: Mapping[str, Any], body: bytes) -> str:
    """Return the name of a publication, which is the same for every delivery of it."""
    known = properties.message_id
    if known is not None and known.startswith(_OUR_ID):
        return known
    if isinstance(headers, TaskHeaders):
        told: tuple[Any, ...] = (known, properties.correlation_id, headers.known.id, 0, None)
    else:
        told = (
            known,
            properties.correlation_id,
            headers.get("id"),
            headers.get("retries"),
            headers.get("eta"),
        )
    return _OUR_ID + blake2b(repr(told).encode() + body, digest_size=12).hexdigest()


def _flip(priority: int) -> int:
    return HIGHEST_PRIORITY - min(max(priority, 0), HIGHEST_PRIORITY)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
