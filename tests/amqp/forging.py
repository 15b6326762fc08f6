"""Content headers that no decent sender writes."""

import random
from collections.abc import Callable
from struct import Struct

from celeriac.servers.rabbitmq.protocol.content import Properties, write_properties
from tests.amqp.proxy import Proxy

HEAD = Struct(">BHI")
HEADER = 2
FIXED = 12
"""Class, weight and size of the body: what comes after them is the sender's."""

KINDS = b"tbBsuUIilLfdDSxAFTV\0"

HEADERS = {
    "task": "t", "id": "i", "eta": "2020-01-01T00:00:00", "retries": 1, "timelimit": [1, None], "f": 1.5,
    "l": [1, "x", None, 2**40, {"k": True}], "x-delivery-count": 3, "x-celeriac-deliveries": 2,
    "x-celeriac-copy": '{"key":"k","name":"n","number":"1"}', "x-celeriac-due": 1.5, "x-death": [{"count": 1}],
    "x-celeriac-dead-id": "d", "x-celeriac-dead-queue": "q", "x-celeriac-died-at": 1.5, "CC": ["q"],
}  # fmt: skip
"""Every header that means something to somebody."""


def seed_header() -> bytes:
    """Return a content header with all properties and kinds of headers."""
    properties = Properties(
        "application/json", "utf-8", HEADERS, 2, 1, "c", "r", "5", "m", 0x7C, bytes(8) + b"\x01a" * 4
    )
    return write_properties(properties, 10)


def mutate(random_: random.Random, header: bytes) -> bytes:
    """Return the header of the same body with a few bytes changed, mostly to what means something in AMQP."""
    raw = bytearray(header)
    for _ in range(random_.randint(1, 6)):
        if len(raw) <= FIXED:
            break
        at = random_.randrange(FIXED, len(raw))
        change = random_.randrange(8)
        if change == 0:
            raw[at : at + random_.randint(1, 9)] = b""
        elif change == 1:
            raw[at:at] = bytes([random_.choice(KINDS)]) + random_.randbytes(random_.randint(0, 9))
        else:
            raw[at] = random_.choice((random_.randrange(256), random_.choice(KINDS), 255, 0))
    return bytes(raw)


class Forger(Proxy):
    """A line to RabbitMQ on which the content headers of what comes are changed at random, while ``forging``."""

    def __init__(self, port: int, seed: int) -> None:
        super().__init__(port)
        self.forging = False
        self.forged = 0
        self._random = random.Random(seed)

    def rewriter(self) -> Callable[[bytes], bytes]:
        unread = b""

        def rewrite(data: bytes) -> bytes:
            nonlocal unread
            unread, out = unread + data, []
            while len(unread) >= HEAD.size:
                kind, number, size = HEAD.unpack_from(unread)
                end = HEAD.size + size + 1
                if len(unread) < end:
                    break
                frame, unread = unread[:end], unread[end:]
                if kind == HEADER and self.forging:
                    self.forged += 1
                    header = mutate(self._random, frame[HEAD.size : -1])
                    frame = HEAD.pack(kind, number, len(header)) + header + frame[-1:]
                out.append(frame)
            return b"".join(out)

        return rewrite
