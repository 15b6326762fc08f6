"""Content headers of AMQP, changed at random for a bounded time."""

import struct
import time

import pytest

from tests.amqp.forging import seed_header
from tests.fuzz.amqp_header_fuzz import check, search


def test_no_header_breaks_a_reader():
    assert search(seed=20260101, seconds=1.0, least=500) >= 500


def test_the_seed_itself_is_read():
    check(seed_header())


@pytest.mark.parametrize("kind", [b"F", b"A"], ids=["tables", "arrays"])
def test_a_table_that_claims_what_follows_it_is_not_read_again_and_again(kind: bytes):
    """Each level holds the head of the next, which claims all the rest: read anew for each, it would never end."""
    name = b"\x01n" if kind == b"F" else b""
    levels = 90
    head = len(name) + 5
    table = b""
    for level in range(levels):
        rest = (levels - level) * 2 * head
        table += name + kind + struct.pack(">I", head) + name + kind + struct.pack(">I", rest)
    header = struct.pack(">HHQH", 60, 0, 0, 0x2000) + struct.pack(">I", len(table)) + table
    started = time.process_time()
    check(header)
    assert time.process_time() - started < 5
