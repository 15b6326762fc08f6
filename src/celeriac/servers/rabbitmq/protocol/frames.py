"""The frames that every message costs, and those that pamqp writes.

Rules: pure. A frame is a type, a channel, a size, a payload and an end mark (AMQP 0-9-1, section 4.2.3). A name may
be no UTF-8, since another client chose it or the server cut it at 255 bytes; it is read all the same.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

import msgspec
import pamqp.frame
from pamqp.base import Frame

from celeriac.errors import EncodeError
from celeriac.servers.rabbitmq.protocol.content import short_text

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
END: Final = 0xCE

HEAD = Struct(">BHI")
HEAD_SIZE = HEAD.size
MARK = b"\xce"
HEARTBEAT_FRAME = HEAD.pack(HEARTBEAT, 0, 0) + MARK

DELIVER = b"\x00\x3c\x00\x3c"
"""Class ``basic`` (60), method ``deliver`` (60)."""
CONFIRMED = b"\x00\x3c\x00\x50"
"""Class ``basic``, method ``ack`` (80): also what confirms a publish."""

GOT = b"\x00\x3c\x00\x47"
"""Class ``basic``, method ``get-ok`` (71)."""
RETURNED = b"\x00\x3c\x00\x32"
"""Class ``basic``, method ``return`` (50)."""
CHANNEL_CLOSE, CONNECTION_CLOSE = b"\x00\x14\x00\x28", b"\x00\x0a\x00\x32"
"""Class ``channel`` (20), method ``close`` (40); class ``connection`` (10), method ``close`` (50)."""

_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_ACK, _NACK = CONFIRMED, b"\x00\x3c\x00\x78"
_NEXT = Struct(">BBHI")
_TAG = Struct(">QB")
_CODE = Struct(">H")
_SETTLE = Struct(">BHI4sQBB")


class Inbound(msgspec.Struct, gc=False):
    """A message as it came in.

    :param header: payload of its content header; see ``content.read_properties``.
    :param queue: where it stood; empty where the consumer did not note it.
    :param counted: how often RabbitMQ says that it was handed out before.
    :param is_counted: the queue is known to count deliveries itself.
    """

    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    header: bytes = b""
    body: bytes = b""
    queue: str = ""
    counted: int = 0
    is_counted: bool = False


def read_deliver(payload: bytes) -> Inbound:
    """Return the message that a ``basic.deliver`` announces."""
    at = 5 + payload[4]
    tag, redelivered = _TAG.unpack_from(payload, at)
    exchange, routing_key = _read_place(payload[at + 9 :])
    return Inbound(payload[5:at].decode(), tag, redelivered != 0, exchange, routing_key)


@lru_cache(maxsize=256)  # most messages of a queue were published to one place
def _read_place(payload: bytes) -> tuple[str, str]:
    """Return the exchange and the routing key that stand here."""
    exchange, at = _read_name(payload, 0)
    return exchange, _read_name(payload, at)[0]


def read_got(payload: bytes) -> Inbound:
    """Return the message that a ``basic.get-ok`` announces."""
    tag, redelivered = _TAG.unpack_from(payload, 4)
    exchange, at = _read_name(payload, 13)
    return Inbound("", tag, redelivered != 0, exchange, _read_name(payload, at)[0])


def read_returned(payload: bytes) -> tuple[Inbound, str]:
    """Return the message that a ``basic.return`` announces, and why it comes back."""
    code, text, at = _read_reply(payload)
    exchange, at = _read_name(payload, at)
    return Inbound("", 0, False, exchange, _read_name(payload, at)[0]), f"{text} ({code})"


def read_close(payload: bytes) -> tuple[int, str]:
    """Return reply code and text of a ``channel.close`` or ``connection.close``."""
    code, text, _ = _read_reply(payload)
    return code, text


def _read_reply(payload: bytes) -> tuple[int, str, int]:
    (code,) = _CODE.unpack_from(payload, 4)
    text, at = _read_name(payload, 6)
    return code, text, at


def _read_name(payload: bytes, at: int) -> tuple[str, int]:
    """Return a short string, and where the next field begins."""
    end = at + 1 + payload[at]
    return payload[at + 1 : end].decode(errors="backslashreplace"), end


def read_confirmed(payload: bytes) -> tuple[int, bool]:
    """Return number and ``multiple`` of a ``basic.ack`` that confirms a publish."""
    serial, multiple = _TAG.unpack_from(payload, 4)
    return serial, multiple != 0


def method(frame: Frame, channel: int) -> bytes:
    """Return the bytes of a method frame. Raises ``EncodeError``."""
    try:
        return pamqp.frame.marshal(frame, channel)
    except (TypeError, ValueError, UnicodeError) as error:
        raise EncodeError(f"{frame.name} cannot be written: {error}") from error


def read_method(channel: int, payload: bytes) -> Frame:
    """Return the method that a method frame holds."""
    whole = HEAD.pack(METHOD, channel, len(payload)) + payload + MARK
    _, _, frame = pamqp.frame.unmarshal(whole)
    assert isinstance(frame, Frame)
    return frame


def publish_method(channel: int, exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """Return the frame that announces a message. Raises ``EncodeError`` for a name that AMQP cannot hold."""
    payload = b"".join(
        (
            _PUBLISH,
            short_text(exchange, "exchange"),
            short_text(routing_key, "routing key"),
            b"\x01" if mandatory else b"\x00",
        )
    )
    return HEAD.pack(METHOD, channel, len(payload)) + payload + MARK


def room_in(frame_max: int) -> int:
    """Return how many bytes of payload a frame holds; a content header has one frame and no more."""
    return frame_max - HEAD_SIZE - len(MARK)


def content(channel: int, header: bytes, body: bytes, frame_max: int) -> bytes:
    """Return the frames of a message's header and body."""
    size, room = len(body), room_in(frame_max)
    start = HEAD.pack(HEADER, channel, len(header)) + header
    if 0 < size <= room:
        return start + _NEXT.pack(END, BODY, channel, size) + body + MARK
    parts = [start, MARK]
    for at in range(0, size, room):
        piece = body[at : at + room]
        parts += HEAD.pack(BODY, channel, len(piece)), piece, MARK
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Return the frame that acknowledges a delivery, or all up to it."""
    return _SETTLE.pack(METHOD, channel, 13, _ACK, tag, multiple, END)


def requeue(channel: int, tag: int) -> bytes:
    """Return the frame that gives a delivery back (RabbitMQ: ``basic.nack``)."""
    return _SETTLE.pack(METHOD, channel, 13, _NACK, tag, 2, END)


def requeue_all(channel: int) -> bytes:
    """Return the frame that gives back every delivery of the channel."""
    return _SETTLE.pack(METHOD, channel, 13, _NACK, 0, 3, END)
