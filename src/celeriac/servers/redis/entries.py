"""Reads the entries of ``unacked``: kombu's ``[message, exchange, routing_key]``, even with a broken message inside.

Rules: no entry raises an error, whatever it holds. An entry that names no queue counts as unreadable.
"""

from __future__ import annotations

import json

import msgspec

from celeriac.wire.names import is_text

_END = b', "", "'
"""The text between the message and the queue in an entry that a reserving script wrote."""

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


class Entry(msgspec.Struct):
    """One entry of ``unacked``."""

    raw: bytes
    exchange: str
    routing_key: str


def parse_entry(value: bytes) -> Entry | None:
    """Return the entry, ``None`` where it cannot be read. Never raises."""
    try:
        entry = _parse(value)
    except _UNREADABLE:
        try:
            entry = _parse_leniently(value)
        except _UNREADABLE:
            return None
    return entry if entry.routing_key or entry.exchange else None


def _parse(value: bytes) -> Entry:
    message, exchange, routing_key = msgspec.json.decode(value, type=tuple[msgspec.Raw, str, str])
    return Entry(_unwrap(bytes(message)), exchange, routing_key)


def _parse_leniently(value: bytes) -> Entry:
    """Return the parts of an entry whose message is not UTF-8, not JSON or nested too deeply.

    The reserving script wrote its end. Raises ``ValueError`` for any other.
    """
    end = value.rindex(_END)
    queue = json.loads(value[end + len(_END) - 1 : -1])
    if value[:1] != b"[" or value[-1:] != b"]" or not isinstance(queue, str) or not is_text(queue):
        raise ValueError("no entry of the reserving script")
    return Entry(_unwrap(value[1:end]), "", queue)


def _unwrap(message: bytes) -> bytes:
    """Return the message as it was pushed: unless it was an object, it stands in the entry as a string."""
    if not message.startswith(b'"'):
        return message
    text: str = json.loads(message.decode(errors="surrogateescape"), strict=False)
    return text.encode(errors="surrogateescape")
