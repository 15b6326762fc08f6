"""The content of a message: its properties and header table, as bytes.

Rules: pure. Tables are written as py-amqp writes them (32-bit integers, 64-bit floats, null as void), so that every
Celery client can read them; every type of field that RabbitMQ knows is read. Properties that are not used here are
carried along as bytes. A table that was read can be written. RabbitMQ ends a connection over a table that it cannot
read, such as one with a number that is not finite, so such a table is refused here.
Source: AMQP 0-9-1, sections 2.3.5 and 4.2, with RabbitMQ's errata for field types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from struct import Struct
from typing import Any, TypeAlias

import msgspec

from celeriac.errors import EncodeError, MalformedMessage
from celeriac.servers.rabbitmq.protocol.task_headers import read_sole_task

BASIC = 60

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 0x8000, 0x4000, 0x2000, 0x1000
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION = 0x0800, 0x0400, 0x0200, 0x0100
_MESSAGE_ID, _REST = 0x0080, 0x007F
_TIMESTAMP, _TYPE, _USER_ID, _APP_ID = 0x0040, 0x0020, 0x0010, 0x0008
_PERSISTENT = 2

_HEAD = Struct(">HHQH")
_HEAD_SIZE = _HEAD.size
_U16, _U32, _I16, _I32, _I64 = Struct(">H"), Struct(">I"), Struct(">h"), Struct(">i"), Struct(">q")
_U64 = Struct(">Q")
_SIZE_AT, _FLAGS_AT = 4, 12
_F32, _F64 = Struct(">f"), Struct(">d")
_u32_at = _U32.unpack_from

LONGEST_NAME = 255
"""Bytes of a name: of a queue, a routing key, a header, and of every property that is a text."""

_LENGTHS = tuple(bytes((length,)) for length in range(LONGEST_NAME + 1))
_Reader: TypeAlias = Callable[[bytes, int, int], tuple[Any, int]]
"""Reads a value at its first byte, so many tables and arrays deep; returns it and where the next field begins."""

_DEEPEST = 100
"""How many tables and arrays may stand in one another."""

_LATEST = 253402300799
"""The last second, since the epoch, of the year 9999."""

_SHORTEST_INT, _LONGEST_INT = -(2**31), 2**31
_SHORTEST_LONG, _LONGEST_LONG = -(2**63), 2**63


class Properties(msgspec.Struct):
    """The properties of one message (AMQP 0-9-1: class ``basic``).

    :param rest_flags: which of the remaining properties (``timestamp`` and those after it) there are.
    :param rest: their bytes.
    """

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, Any] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    rest_flags: int = 0
    rest: bytes = b""


def body_size(header: bytes) -> int:
    """Return how many bytes of body follow this content header."""
    size: int = _HEAD.unpack_from(header)[2]
    return size


def read_properties(header: bytes) -> Properties:
    """Return the properties of a content header's payload. Raises ``MalformedMessage``."""
    try:
        return _read_properties(header)
    except Exception as error:  # a malformed header must fail its own message and no other
        raise MalformedMessage(f"properties cannot be read: {error}") from error


def _read_properties(header: bytes) -> Properties:
    flags = _HEAD.unpack_from(header)[3]
    at = _HEAD_SIZE
    content_type = content_encoding = correlation_id = reply_to = expiration = message_id = None
    headers = delivery_mode = priority = None
    if flags & _CONTENT_TYPE:
        end = at + 1 + header[at]
        content_type = header[at + 1 : end].decode()
        at = end
    if flags & _CONTENT_ENCODING:
        end = at + 1 + header[at]
        content_encoding = header[at + 1 : end].decode()
        at = end
    if flags & _HEADERS:
        end = at + 4 + _u32_at(header, at)[0]
        headers = read_sole_task(header, at, end, _plain) or _read_table(header, at, 0)[0]
        at = end
    if flags & _DELIVERY_MODE:
        delivery_mode = header[at]
        at += 1
    if flags & _PRIORITY:
        priority = header[at]
        at += 1
    if flags & _CORRELATION_ID:
        end = at + 1 + header[at]
        correlation_id = header[at + 1 : end].decode()
        at = end
    if flags & _REPLY_TO:
        end = at + 1 + header[at]
        reply_to = header[at + 1 : end].decode()
        at = end
    if flags & _EXPIRATION:
        end = at + 1 + header[at]
        expiration = header[at + 1 : end].decode()
        at = end
    if flags & _MESSAGE_ID:
        end = at + 1 + header[at]
        message_id = header[at + 1 : end].decode()
        at = end
    return Properties(
        content_type,
        content_encoding,
        headers,
        delivery_mode,
        priority,
        correlation_id,
        reply_to,
        expiration,
        message_id,
        flags & _REST,
        header[at:],
    )


def write_properties(properties: Properties, size: int) -> bytes:
    """Return the payload of a content header for a body of ``size`` bytes.

    Raises ``EncodeError`` naming the property, or the header, that cannot be written.
    """
    flags = properties.rest_flags
    parts: list[bytes] = []
    if properties.content_type is not None:
        flags |= _CONTENT_TYPE
        parts.append(short_text(properties.content_type, "content_type"))
    if properties.content_encoding is not None:
        flags |= _CONTENT_ENCODING
        parts.append(short_text(properties.content_encoding, "content_encoding"))
    if properties.headers is not None:
        flags |= _HEADERS
        parts.append(write_table(properties.headers, "headers"))
    if properties.delivery_mode is not None:
        flags |= _DELIVERY_MODE
        parts.append(bytes((properties.delivery_mode,)))
    if properties.priority is not None:
        flags |= _PRIORITY
        parts.append(bytes((properties.priority,)))
    if properties.correlation_id is not None:
        flags |= _CORRELATION_ID
        parts.append(short_text(properties.correlation_id, "correlation_id"))
    if properties.reply_to is not None:
        flags |= _REPLY_TO
        parts.append(short_text(properties.reply_to, "reply_to"))
    if properties.expiration is not None:
        flags |= _EXPIRATION
        parts.append(short_text(properties.expiration, "expiration"))
    if properties.message_id is not None:
        flags |= _MESSAGE_ID
        parts.append(short_text(properties.message_id, "message_id"))
    parts.append(properties.rest)
    return _HEAD.pack(BASIC, 0, size, flags) + b"".join(parts)


def about(header: bytes, size: int, correlation_id: str) -> bytes:
    """Return the same content header for a body of ``size`` bytes and another correlation id. Raises ``EncodeError``.

    :param header: as ``write_properties`` returns it, with an empty ``correlation_id`` as its last property.
    """
    return (
        header[:_SIZE_AT]
        + _U64.pack(size)
        + header[_FLAGS_AT:-1]
        + short_text(correlation_id, "correlation_id")
    )


def as_forwarded(properties: Properties) -> Properties:
    """Return the same properties as RabbitMQ takes them from any user.

    It closes the channel over a ``user_id`` that is not of the connection, an ``expiration`` that is no number and a
    ``delivery_mode`` that it does not know, and the connection over flags and bytes that do not belong together.
    """
    mode = properties.delivery_mode
    flags, rest = _without_user(properties.rest_flags, properties.rest)
    return msgspec.structs.replace(
        properties,
        delivery_mode=mode if mode in {1, 2} else _PERSISTENT,
        expiration=None,
        rest_flags=flags,
        rest=rest,
    )


def _without_user(flags: int, rest: bytes) -> tuple[int, bytes]:
    """Return the properties after ``message_id`` without the user's, or none where they cannot be read."""
    kept = _parts_of(flags, rest)
    kept.pop(_USER_ID, None)
    return sum(kept), b"".join(kept.values())


def _parts_of(flags: int, rest: bytes) -> dict[int, bytes]:
    """Return the bytes of each property after ``message_id`` by its flag, or none where they cannot be read."""
    at, found = 0, {}
    for flag in (_TIMESTAMP, _TYPE, _USER_ID, _APP_ID):
        if not flags & flag:
            continue
        end = at + 8 if flag == _TIMESTAMP else at + 1 + (rest[at] if at < len(rest) else 0)
        if end > len(rest):
            return {}
        found[flag] = rest[at:end]
        at = end
    return found


def app_id_of(properties: Properties) -> str | None:
    """Return the sender's ``app_id``; ``None`` where there is none, or none that is text."""
    if not properties.rest_flags & _APP_ID:
        return None
    try:
        return _parts_of(properties.rest_flags, properties.rest).get(_APP_ID, b"")[1:].decode() or None
    except UnicodeDecodeError:
        return None


def set_app_id(properties: Properties, app_id: str) -> None:
    """Write an ``app_id`` where none of the properties after ``message_id`` is written. Raises ``EncodeError``."""
    properties.rest_flags, properties.rest = _APP_ID, short_text(app_id, "app_id")


def short_text(text: str, what: str) -> bytes:
    """Return a short string: a byte of length and up to 255 bytes. Raises ``EncodeError`` naming ``what``."""
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"{what} {text!r:.100} is no text that can be written: {error.reason}") from error
    if len(raw) > LONGEST_NAME:
        raise EncodeError(f"{what} {text!r:.100} is {len(raw)} bytes long; AMQP takes {LONGEST_NAME}")
    return _LENGTHS[len(raw)] + raw


def write_table(table: Mapping[str, Any], what: str, deep: int = 0) -> bytes:
    """Return a field table. Raises ``EncodeError`` naming the field that cannot be written.

    :param deep: how many tables and arrays it stands in.
    """
    parts: list[bytes] = []
    for name, value in table.items():
        if not isinstance(name, str):
            raise EncodeError(f"{what}: the name {name!r:.100} is no text")
        parts.append(short_text(name, what))
        # The kinds that a task's headers are made of, the most frequent first.
        if value is None:
            parts.append(b"V")
        elif isinstance(value, str):
            parts.append(_long_text(value, what, name))
        else:
            parts.append(_write_value(value, what, name, deep))
    content = b"".join(parts)
    return _U32.pack(len(content)) + content


def _long_text(text: str, what: str, name: str) -> bytes:
    try:
        raw = text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"{what}: {name!r:.100} is no text that can be written: {error.reason}") from error
    return b"S" + _U32.pack(len(raw)) + raw


def _write_value(value: Any, what: str, name: str, deep: int) -> bytes:  # noqa: C901, PLR0912 - a table of kinds
    if value is None:
        return b"V"
    if isinstance(value, str):
        return _long_text(value, what, name)
    if isinstance(value, bool):
        return b"t\x01" if value else b"t\x00"
    if isinstance(value, int):
        if _SHORTEST_INT <= value < _LONGEST_INT:
            return b"I" + _I32.pack(value)
        if _SHORTEST_LONG <= value < _LONGEST_LONG:
            return b"l" + _I64.pack(value)
        raise EncodeError(f"{what}: {name!r:.100} is an integer that AMQP's 64 bits cannot hold")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise EncodeError(
                f"{what}: {name!r:.100} is {value}, and AMQP has no such number; write it as text"
            )
        return b"d" + _F64.pack(value)
    if isinstance(value, bytes | bytearray):
        return b"x" + _U32.pack(len(value)) + bytes(value)
    # Lists and dicts first: to ask for the abstract kinds takes longer than to write these.
    if isinstance(value, list):
        return _write_array(value, what, name, deep)
    if isinstance(value, (dict, Mapping)):
        _check_depth(deep, what, name)
        return b"F" + write_table(value, f"{what}.{name:.100}", deep + 1)
    if isinstance(value, Sequence):
        return _write_array(value, what, name, deep)
    if isinstance(value, datetime):
        return _write_time(value, what, name)
    if isinstance(value, Decimal):
        return _write_decimal(value, what, name)
    raise EncodeError(f"{what}: {name!r:.100} is of {type(value).__name__}, which a header cannot hold")


def _write_array(values: Sequence[Any], what: str, name: str, deep: int) -> bytes:
    _check_depth(deep, what, name)
    content = b"".join([_write_value(value, what, name, deep + 1) for value in values])
    return b"A" + _U32.pack(len(content)) + content


def _check_depth(deep: int, what: str, name: str) -> None:
    if deep >= _DEEPEST:
        raise EncodeError(
            f"{what:.200}: {name!r:.100} is nested deeper than {_DEEPEST} levels, or contains itself"
        )


def _write_time(value: datetime, what: str, name: str) -> bytes:
    try:
        seconds = int(value.timestamp())
    except (ValueError, OverflowError, OSError) as error:
        raise EncodeError(
            f"{what}: {name!r:.100} is {value}, which is no time in seconds: {error}"
        ) from error
    if seconds < 0:
        raise EncodeError(
            f"{what}: {name!r:.100} is {value}, and AMQP's times begin in 1970; write it as text"
        )
    return b"T" + _I64.pack(seconds)


def _write_decimal(value: Decimal, what: str, name: str) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if isinstance(exponent, int) and -255 <= exponent <= 0:
        number = int("".join(map(str, digits))) * (-1 if sign else 1)
        if _SHORTEST_INT <= number < _LONGEST_INT:
            return b"D" + bytes((-exponent,)) + _I32.pack(number)
    raise EncodeError(f"{what}: {name!r:.100} is {value}, which AMQP's decimal cannot hold; write it as text")


def _plain(table: bytes) -> dict[str, Any]:
    return _read_table(table, 0, 0)[0]


def _read_table(data: bytes, at: int, deep: int) -> tuple[dict[str, Any], int]:
    at += 4
    end = at + _u32_at(data, at - 4)[0]
    if end > len(data) or deep > _DEEPEST:
        raise ValueError("a table is longer than its message, or nested too deep")
    table: dict[str, Any] = {}
    u32_at = _u32_at
    while at < end:
        kind_at = at + 1 + data[at]
        name = data[at + 1 : kind_at].decode()
        kind = data[kind_at]
        at = kind_at + 1
        # The kinds that a task's headers are made of, the most frequent first.
        if kind == 0x56:  # V
            table[name] = None
        elif kind == 0x53:  # S
            start = at + 4
            at = start + u32_at(data, at)[0]
            try:
                table[name] = data[start:at].decode()
            except UnicodeDecodeError:
                table[name] = data[start:at]
        else:
            table[name], at = _READERS.get(kind, _refuse)(data, at, deep + 1)
    # Else the bytes behind it would be read again for each table whose length claims them.
    if at != end:
        raise ValueError("a field is longer than its table")
    return table, end


def _text_or_bytes(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _read_text(data: bytes, at: int, deep: int) -> tuple[str | bytes, int]:
    raw, end = _read_bytes(data, at, deep)
    return _text_or_bytes(raw), end


def _read_bytes(data: bytes, at: int, deep: int) -> tuple[bytes, int]:
    start = at + 4
    end = start + _u32_at(data, at)[0]
    return data[start:end], end


def _read_array(data: bytes, at: int, deep: int) -> tuple[list[Any], int]:
    end = at + 4 + _u32_at(data, at)[0]
    if end > len(data) or deep > _DEEPEST:
        raise ValueError("an array is longer than its message, or nested too deep")
    at += 4
    items: list[Any] = []
    while at < end:
        item, at = _READERS.get(data[at], _refuse)(data, at + 1, deep + 1)
        items.append(item)
    if at != end:
        raise ValueError("an item is longer than its array")
    return items, end


def _read_void(data: bytes, at: int, deep: int) -> tuple[None, int]:
    return None, at


def _read_truth(data: bytes, at: int, deep: int) -> tuple[bool, int]:
    return data[at] != 0, at + 1


def _read_time(data: bytes, at: int, deep: int) -> tuple[datetime, int]:
    seconds = _I64.unpack_from(data, at)[0]
    if not 0 <= seconds <= _LATEST:
        raise ValueError(f"{seconds} is no time in seconds since 1970")
    return datetime.fromtimestamp(seconds, UTC), at + 8


def _read_decimal(data: bytes, at: int, deep: int) -> tuple[Decimal, int]:
    return Decimal(_I32.unpack_from(data, at + 1)[0]).scaleb(-data[at]), at + 5


def _reader_of(number: Struct) -> _Reader:
    return lambda data, at, deep: (number.unpack_from(data, at)[0], at + number.size)


def _reader_of_fraction(number: Struct) -> _Reader:
    def read(data: bytes, at: int, deep: int) -> tuple[float, int]:
        value = number.unpack_from(data, at)[0]
        if not math.isfinite(value):
            raise ValueError(f"{value} is no number that AMQP has")
        return value, at + number.size

    return read


def _refuse(data: bytes, at: int, deep: int) -> tuple[Any, int]:
    raise ValueError(f"{data[at - 1 : at]!r} is no type of a field")


_READERS: Mapping[int, _Reader] = {
    ord("t"): _read_truth,
    ord("b"): _reader_of(Struct(">b")),
    ord("B"): _reader_of(Struct(">B")),
    ord("s"): _reader_of(_I16),
    ord("U"): _reader_of(_I16),
    ord("u"): _reader_of(_U16),
    ord("I"): _reader_of(_I32),
    ord("i"): _reader_of(_U32),
    ord("l"): _reader_of(_I64),
    ord("L"): _reader_of(_I64),
    ord("f"): _reader_of_fraction(_F32),
    ord("d"): _reader_of_fraction(_F64),
    ord("D"): _read_decimal,
    ord("S"): _read_text,
    ord("x"): _read_bytes,
    ord("A"): _read_array,
    ord("F"): _read_table,
    ord("T"): _read_time,
    ord("V"): _read_void,
    0: _read_void,
}
