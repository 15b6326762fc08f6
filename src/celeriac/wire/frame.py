"""kombu's JSON frame: how Redis and SQL brokers carry an envelope.

Rules: ``unpack`` never raises and reads every frame whose content can still be known, whichever program wrote it: a
missing part is a default. The usual frame is read in one typed pass; one that deviates is read again, field by field.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, cast

import msgspec

from celeriac.errors import EncodeError, WireError
from celeriac.wire.envelope import Envelope, Route, Unreadable
from celeriac.wire.extended_json import decode_json, encode_json
from celeriac.wire.names import is_text
from celeriac.wire.task_headers import KnownHeaders, TaskHeaders

DELIVERIES_HEADER = "x-celeriac-deliveries"
"""Header that counts how often a message was taken before."""

MOST_DELIVERIES = 1_000_000
"""Deliveries that are counted; a higher count is none of ours, and read as if there were none."""

_PERSISTENT = 2
_BASE64 = "base64"


class _DeliveryInfo(msgspec.Struct, gc=False):
    exchange: str = ""
    routing_key: str = ""
    priority: int | None = None
    redelivered: bool = False


class _Properties(msgspec.Struct, gc=False):
    correlation_id: str | None = None
    reply_to: str | None = None
    delivery_mode: int = _PERSISTENT
    delivery_info: _DeliveryInfo = msgspec.field(default_factory=_DeliveryInfo)
    priority: int | None = None
    body_encoding: str | None = None
    delivery_tag: str | None = None
    expiration: str | None = None
    app_id: str | None = None
    node_correlation_id: str | None = msgspec.field(default=None, name="correlationId")
    node_reply_to: str | None = msgspec.field(default=None, name="replyTo")


class _Frame(msgspec.Struct, gc=False):
    body: str
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")
    content_type: str | None = msgspec.field(default=None, name="content-type")
    headers: dict[str, Any] | None = None
    properties: _Properties = msgspec.field(default_factory=_Properties)
    redelivered: bool = False


class _TaskFrame(msgspec.Struct, gc=False, kw_only=True):
    """The frame of a task message as Celery and this library write it.

    In kombu's order, as the classes above: the reader looks for each part where it expects it.
    """

    body: bytes
    content_encoding: str | None = msgspec.field(default=None, name="content-encoding")
    content_type: str | None = msgspec.field(default=None, name="content-type")
    headers: KnownHeaders
    properties: _Properties = msgspec.field(default_factory=_Properties)
    redelivered: bool = False


class _Plain(msgspec.Struct, gc=False):
    headers: dict[str, Any]


class _WrittenInfo(msgspec.Struct, gc=False):
    exchange: str
    routing_key: str


class _WrittenProperties(msgspec.Struct, omit_defaults=True):
    correlation_id: str | None
    reply_to: str | None
    delivery_mode: int
    delivery_info: _WrittenInfo
    priority: int
    body_encoding: str
    delivery_tag: str
    expiration: str | None = None
    app_id: str | None = None


class _WrittenFrame(msgspec.Struct, gc=False):
    body: str
    content_encoding: str | None = msgspec.field(name="content-encoding")
    content_type: str | None = msgspec.field(name="content-type")
    headers: msgspec.Raw
    properties: _WrittenProperties


_BODY = b'{"body":"'
"""How a frame begins, before its body."""

_LAST = b'"stamps": {}'
"""The last of Celery's headers, most often."""

_BEHIND = (b"}", b', "x-celeriac-sent"')
"""What is behind the last where the sender added no headers. With headers of its own, a typed reading would fail."""

_read_task = msgspec.json.Decoder(_TaskFrame).decode
_read_plain = msgspec.json.Decoder(_Plain).decode
_read = msgspec.json.Decoder(_Frame).decode
_write = msgspec.json.Encoder().encode

_ODD = (msgspec.MsgspecError, ValueError, RecursionError)
"""What the typed readings raise for text that is not as they expect it."""


def pack(envelope: Envelope, *, delivery_tag: str | None = None, route: Route | None = None) -> bytes:
    """Return the frame of an envelope, as kombu's virtual transports write Celery's messages on Redis.

    :param delivery_tag: overrides the envelope's; one of the two is needed, and unique.
    :param route: overrides the exchange and routing key of the envelope.
    :raises EncodeError: no delivery tag, or a header cannot be written.
    """
    tag = delivery_tag or envelope.delivery_tag
    if not tag:
        raise EncodeError("an envelope needs a delivery_tag to be framed; give it a fresh uuid")
    place = route or envelope
    # The headers of a frame that was read by its types are no dict, and would be written as the object that they are.
    headers = envelope.headers if type(envelope.headers) is dict else dict(envelope.headers)
    try:
        frame = _write(
            _WrittenFrame(
                "",
                envelope.content_encoding,
                envelope.content_type,
                msgspec.Raw(encode_json(headers, "headers")),
                _WrittenProperties(
                    envelope.correlation_id,
                    envelope.reply_to,
                    envelope.delivery_mode,
                    _WrittenInfo(place.exchange, place.routing_key),
                    envelope.priority,
                    _BASE64,
                    tag,
                    envelope.expiration,
                    envelope.app_id,
                ),
            )
        )
        # Base64 has nothing to escape: put in here, it is not searched for that.
        return b"".join((_BODY, b2a_base64(envelope.body, newline=False), frame[len(_BODY) :]))
    except UnicodeEncodeError as error:
        raise EncodeError(f"a property of the envelope is not text that can be written: {error}") from error


def unpack(raw: bytes) -> Envelope | Unreadable:
    """Return the envelope that a frame holds, or ``Unreadable``. Never raises.

    Reads frames of kombu 3 and newer, gocelery, gopher-celery and celery.node.
    """
    frame: _Frame | _TaskFrame | None = None
    headers: Mapping[str, Any] = {}
    body = b""
    is_marked = False
    last = raw.rfind(_LAST)
    if last > 0 and raw.startswith(_BEHIND, last + len(_LAST)):
        try:
            task = _read_task(raw)
            if task.properties.body_encoding == _BASE64 and not task.headers.stamps:
                frame, body = task, task.body
                headers = cast("Mapping[str, Any]", TaskHeaders(task.headers, raw, _headers_of))
        except _ODD:
            pass
    if frame is None:
        found = _read_any(raw)
        if isinstance(found, str):
            return Unreadable(raw, found)
        frame, body, headers = found
        is_marked = headers.get("redelivered") is True
    properties = frame.properties
    info = properties.delivery_info
    priority = properties.priority
    # In the order of the fields: looking the names up would cost as much again.
    return Envelope(
        body,
        frame.content_type,
        frame.content_encoding,
        headers,
        properties.correlation_id or properties.node_correlation_id,
        properties.reply_to or properties.node_reply_to,
        (info.priority if priority is None else priority) or 0,
        properties.expiration,
        properties.delivery_mode,
        properties.delivery_tag,
        info.exchange,
        info.routing_key,
        frame.redelivered or info.redelivered or is_marked,
        None,
        properties.app_id,
    )


def mark_redelivered(raw: bytes, deliveries: int | None = None) -> bytes:
    """Return the frame marked as delivered before, the way kombu marks what it restores; the rest stays as it is.

    :param deliveries: how often it was taken, kept in the frame's ``x-celeriac-deliveries`` header.
    :returns: ``raw`` itself when it cannot be read as a frame; of a frame that can be read and not be written again,
        what is read of it.
    """
    try:
        frame = decode_json(raw)
    except WireError:
        return _rewrite_redelivered(raw, deliveries)
    if not isinstance(frame, dict):
        return raw
    headers = frame.get("headers")
    if deliveries is not None and not isinstance(headers, dict):
        headers = frame["headers"] = {}  # headers that are no object are never read
    if isinstance(headers, dict):
        headers["redelivered"] = True
        if deliveries is not None:
            headers[DELIVERIES_HEADER] = deliveries
    properties = frame.get("properties")
    info = properties.get("delivery_info") if isinstance(properties, dict) else None
    if isinstance(info, dict):
        info["redelivered"] = True
    try:
        return encode_json(frame, "frame")
    except WireError:
        return _rewrite_redelivered(raw, deliveries)


def _rewrite_redelivered(raw: bytes, deliveries: int | None) -> bytes:
    envelope = unpack(raw)
    if isinstance(envelope, Unreadable):
        return raw
    headers = {**envelope.headers, "redelivered": True}
    if deliveries is not None:
        headers[DELIVERIES_HEADER] = deliveries
    tag = envelope.delivery_tag or blake2b(raw, digest_size=16).hexdigest()
    try:
        return pack(msgspec.structs.replace(envelope, headers=headers), delivery_tag=tag)
    except EncodeError:
        return raw


def earlier_deliveries(envelope: Envelope) -> int:
    """Return how often the message was taken and neither settled nor given back on purpose.

    A peer of kombu's kind marks what it restores and counts nothing: such a message was taken once at least.
    """
    headers = envelope.headers
    # What was read by its types has Celery's headers alone.
    count = None if isinstance(headers, TaskHeaders) else headers.get(DELIVERIES_HEADER)
    if type(count) is int and 0 <= count <= MOST_DELIVERIES:
        return count
    return 1 if envelope.redelivered else 0


def _headers_of(raw: bytes) -> dict[str, Any]:
    return _read_plain(raw).headers


def _read_any(raw: bytes) -> tuple[_Frame, bytes, dict[str, Any]] | str:
    """Return any frame with its body and headers, or why there is none."""
    try:
        frame = _read(raw) if raw.find(b"__type__") < 0 else _read_leniently(raw)
    except _ODD:
        frame = _read_leniently(raw)
    if isinstance(frame, str):
        return frame
    try:
        body = a2b_base64(frame.body) if frame.properties.body_encoding == _BASE64 else frame.body.encode()
    except ValueError as error:
        return f"body: {error}"
    return frame, body, frame.headers or {}


def _read_leniently(raw: bytes) -> _Frame | str:
    """Return the frame, with a default for every part that is not of its usual type, or why there is none."""
    try:
        frame = decode_json(raw)
    except WireError as error:
        return str(error)
    if not isinstance(frame, dict):
        return f"a frame is an object, not {type(frame).__name__}"
    body = frame.get("body")
    if not isinstance(body, str):
        return f"frame without a body: it has the keys {sorted(frame)!r:.200}"
    headers = frame.get("headers")
    return _Frame(
        body=body,
        content_encoding=_text(frame.get("content-encoding")),
        content_type=_text(frame.get("content-type")),
        headers=headers if isinstance(headers, dict) else None,
        properties=_read_properties(_object(frame.get("properties"))),
        redelivered=frame.get("redelivered") is True,
    )


def _read_properties(properties: dict[str, Any]) -> _Properties:
    info = _object(properties.get("delivery_info"))
    return _Properties(
        correlation_id=_text(properties.get("correlation_id")),
        reply_to=_text(properties.get("reply_to")),
        delivery_mode=_number(properties.get("delivery_mode")) or _PERSISTENT,
        expiration=_text(properties.get("expiration")),
        delivery_info=_DeliveryInfo(
            exchange=_text(info.get("exchange")) or "",
            routing_key=_text(info.get("routing_key")) or "",
            priority=_number(info.get("priority")),
            redelivered=info.get("redelivered") is True,
        ),
        priority=_number(properties.get("priority")),
        body_encoding=_text(properties.get("body_encoding")),
        delivery_tag=_text(properties.get("delivery_tag")),
        app_id=_text(properties.get("app_id")),
        node_correlation_id=_text(properties.get("correlationId")),
        node_reply_to=_text(properties.get("replyTo")),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    """Return text that can be written again; a lone surrogate cannot."""
    return value if isinstance(value, str) and is_text(value) else None


def _number(value: Any) -> int | None:
    """Return a whole number; peers written in Go or JavaScript may send ``3.0``."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
