"""What ``unacked`` says of a message: kombu's ``[message, exchange, routing_key]``, read whatever the message is."""

from __future__ import annotations

import json

import msgspec


class Entry(msgspec.Struct):
    """One entry of ``unacked``."""

    raw: bytes
    exchange: str
    routing_key: str


def parse_entry(value: bytes) -> Entry | None:
    """Return the entry, ``None`` where it cannot be read."""
    try:
        message, exchange, routing_key = msgspec.json.decode(value, type=tuple[msgspec.Raw, str, str])
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _parse_leniently(value)
    raw = bytes(message)
    return Entry(_unwrap(value) if raw.startswith(b'"') else raw, exchange, routing_key)


def _parse_leniently(value: bytes) -> Entry | None:
    """Return the parts of an entry whose message is not UTF-8 or not JSON; the reserving script wrote its end."""
    end = value.rfind(b', "", "')
    try:
        queue = json.loads(value[end + 6 : -1])
    except ValueError:
        return None
    if end < 0 or not isinstance(queue, str):
        return None
    return Entry(_unwrap(value) if value.startswith(b'["') else value[1:end], "", queue)


def _unwrap(value: bytes) -> bytes:
    """Return a message that is no object and was therefore written as text."""
    end = value.rfind(b', "", "')
    text: str = json.loads(value[1:end].decode(errors="surrogateescape"), strict=False)
    return text.encode(errors="surrogateescape")
