"""Throw bytes at every decoder of the wire format; none may answer with anything but a value or a wire error.

Run as a program it searches for ever: ``python -m tests.fuzz.decode_fuzz [seconds]``, guided by coverage where atheris
is installed, else by mutating captured messages at random. The tests run it for a bounded time with a fixed seed.
"""

import contextlib
import json
import random
import sys
import time
from collections.abc import Callable, Sequence

from celeriac.errors import WireError
from celeriac.wire import result, task
from celeriac.wire.content import COMPRESSIONS, SERIALIZERS, Codecs
from celeriac.wire.envelope import Envelope, Unreadable
from celeriac.wire.extended_json import decode_json, encode_json
from celeriac.wire.failure import rebuild
from celeriac.wire.frame import mark_redelivered, pack, unpack
from celeriac.wire.task import Malformed, TaskMessage
from tests.wire.captures import FIXTURES, load

# No pickle: what it runs is its sender's choice, which is why it is not accepted unless told.
CODECS = Codecs(("json", "msgpack", "yaml"), limit=1_000_000)
TOKENS = [
    *(b"null", b"{}", b"[]", b'""', b"true", b"-1", b"1e999", b"NaN", b"1" * 400, b"[" * 2000),
    *(b"{", b"}", b"[", b'"', b"\\", b"\x00", b"\xff", b'"\\ud800"'),
    *(b'"__type__"', b'"__value__"', b'"task"', b'"id"', b'"args"', b'"2020-01-01"'),
]


def check(data: bytes) -> None:
    """Read ``data`` as everything that the wire can bring. Raises where a decoder breaks its promise."""
    envelope = unpack(data)
    assert isinstance(envelope, Envelope | Unreadable)
    assert isinstance(mark_redelivered(data, 2), bytes)
    if isinstance(envelope, Envelope):
        check_envelope(envelope)
        repacked = unpack(pack(envelope, delivery_tag="tag"))
        assert isinstance(repacked, Envelope)
    for content_type in SERIALIZERS.values():
        check_envelope(Envelope(body=data, content_type=content_type, headers={"task": "t", "id": "i"}))
    only_wire_errors(lambda: encode_json(decode_json(data)))
    for compression in set(COMPRESSIONS.values()):
        only_wire_errors(lambda: CODECS.decompress(data, compression))  # noqa: B023 - called at once
    for serializer in SERIALIZERS:
        only_wire_errors(lambda: rebuild(result.decode(data, CODECS, "i", serializer).result))  # noqa: B023


def check_envelope(envelope: Envelope) -> None:
    found = task.decode(envelope, CODECS)
    assert isinstance(found, TaskMessage | Malformed)
    if isinstance(found, TaskMessage):
        found.id.encode()
        found.task.encode()
        assert isinstance(found.args, list)
        assert isinstance(found.kwargs, dict)
        for moment in (found.eta, found.expires):
            assert moment is None or moment.tzinfo is not None
        only_wire_errors(lambda: task.encode(found, CODECS))


def only_wire_errors(read: Callable[[], object]) -> None:
    with contextlib.suppress(WireError):
        read()


def seeds() -> list[bytes]:
    """Captured messages, bodies and results, each of another kind."""
    raws: list[object] = [row["raw"] for row in load("malformed.redis")["raw"]]
    for path in sorted(FIXTURES.glob("*.redis.json")):
        raw = json.loads(path.read_text())["raw"]
        raws += raw[:1] if isinstance(raw, list) else [raw]
    return [raw.encode() for raw in raws if isinstance(raw, str)]


def mutate(random_: random.Random, pool: Sequence[bytes]) -> bytes:
    """Return one of the pool with a few random changes."""
    data = bytearray(random_.choice(pool))
    for _ in range(random_.randint(1, 6)):
        place = random_.randrange(len(data) + 1)
        change = random_.randrange(5)
        if change == 0:
            data[place : place + random_.randint(1, 8)] = b""
        elif change == 1:
            data[place:place] = random_.choice(TOKENS)
        elif change == 2:
            data[place : place + 1] = bytes([random_.randrange(256)])
        elif change == 3:
            other = random_.choice(pool)
            data[place:] = other[random_.randrange(len(other) + 1) :]
        else:
            replace_a_value(random_, data)
    return bytes(data)


def replace_a_value(random_: random.Random, data: bytearray) -> None:
    """Put something else where an object has a value: most of what comes out is still JSON."""
    colons = [index for index, byte in enumerate(data) if byte == ord(":")]
    if colons:
        start = random_.choice(colons) + 1
        ends = [end for end in (data.find(mark, start) for mark in (b",", b"}")) if end > 0]
        data[start : min(ends, default=start)] = random_.choice(TOKENS)


def search(seed: int, seconds: float, least: int = 0) -> int:
    """Check mutated messages for so long, and at least so many; returns how many. Repeatable by its seed."""
    random_, pool = random.Random(seed), seeds()
    end, count = time.monotonic() + seconds, 0
    while count < least or time.monotonic() < end:
        data = mutate(random_, pool)
        try:
            check(data)
        except BaseException:
            print(f"seed {seed}, input {count}: {data!r}", file=sys.stderr)
            raise
        count += 1
    return count


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else float("inf")
    try:
        import atheris
    except ImportError:
        seed = random.SystemRandom().randrange(2**32)
        print(f"no atheris: random mutations with seed {seed}")
        print(f"{search(seed, seconds)} inputs, no decoder broke its promise")
        return
    atheris.instrument_all()
    atheris.Setup([sys.argv[0]], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
