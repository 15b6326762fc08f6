"""Throw content headers of AMQP at everything that reads them; each is read, or malformed, and can be put away."""

import random
import sys
import time

from celeriac.servers.rabbitmq.envelopes import moved, parked, put_off, read, shortened
from celeriac.servers.rabbitmq.protocol.content import read_properties, write_properties
from celeriac.servers.rabbitmq.protocol.frames import Inbound
from celeriac.wire.envelope import Envelope, Unreadable
from tests.amqp.forging import mutate, seed_header
from tests.fuzz.decode_fuzz import check_envelope

BODY = b"[[1], {}, {}]"


def check(header: bytes) -> None:
    """Read a header in every way that there is. Raises where a reader breaks its promise."""
    message = Inbound("c", 1, False, "", "q", header, BODY, "q")
    envelope, deliveries = read(message)
    assert isinstance(envelope, Envelope | Unreadable)
    assert 1 <= deliveries <= 1_000_000
    if isinstance(envelope, Envelope):
        check_envelope(envelope)
    for properties in (moved(message), parked(message), put_off(message), shortened(moved(message), ["x"])):
        # What goes elsewhere must be such that RabbitMQ takes it.
        read_properties(write_properties(properties, len(BODY)))
        assert properties.delivery_mode in {1, 2}
        assert properties.expiration is None
        assert not properties.rest_flags & 0x10


def search(seed: int, seconds: float, least: int = 0) -> int:
    """Check mutated headers for so long, and at least so many; returns how many. Repeatable by its seed."""
    random_, header = random.Random(seed), seed_header()
    end, count = time.monotonic() + seconds, 0
    while count < least or time.monotonic() < end:
        data = mutate(random_, header)
        try:
            check(data)
        except BaseException:
            print(f"seed {seed}, input {count}: {data!r}", file=sys.stderr)
            raise
        count += 1
    return count
