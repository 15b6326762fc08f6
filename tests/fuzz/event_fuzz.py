"""Change events and requests of remote control at random; whoever hears them goes on, and none takes long."""

import random
import sys
import time

from celeriac.cli.event_lines import Lines
from celeriac.cli.events import written
from celeriac.errors import WireError
from celeriac.metrics.exposition import Exposition
from celeriac.metrics.fleet import FleetCounts
from celeriac.monitor.fleet import Fleet
from celeriac.monitor.folding import attempt_of, fold
from celeriac.monitor.masking import Mask
from celeriac.monitor.rows import TaskRow
from celeriac.wire.content import Codecs
from celeriac.wire.control import read_answers, read_request
from celeriac.wire.envelope import Envelope
from celeriac.wire.event import Event, read_events
from celeriac.wire.frame import unpack
from tests.fuzz.decode_fuzz import mutate
from tests.hostile.values import VALUES
from tests.wire.captures import FIXTURES, load

NOW = 1_800_000_000.0
LONGEST = 2.0
"""Seconds that one message may take on a busy machine; most take less than a thousandth of it."""

CODECS = Codecs()
NODE = "celery@worker-6b8f7d9c5-xyz12.shop.example"
REQUEST = (
    b'{"method": "ping", "arguments": {"a": 1}, "destination": null, "pattern": "celery@(a|b).*", "matcher": "pcre",'
    b' "ticket": "t", "reply_to": {"exchange": "reply.celery.pidbox", "routing_key": "r"}}'
)


def seeds() -> list[bytes]:
    """The bodies of captured events, and requests."""
    frames = [load(path.stem)["raw"] for path in sorted(FIXTURES.glob("event.*.redis.json"))]
    found = [unpack(raw.encode() if isinstance(raw, str) else bytes(raw)) for raw in frames]
    return [REQUEST, *(envelope.body for envelope in found if isinstance(envelope, Envelope))]


class Listeners:
    """Everybody who hears events, across messages."""

    def __init__(self) -> None:
        self._counts = FleetCounts(lambda: NOW)
        self._fleet = Fleet()
        self._lines = Lines()
        self._mask = Mask()

    def hear(self, event: Event) -> None:
        self._counts.take(event)
        self._lines.line(event, NOW).encode()
        written(event.fields).encode()
        if event.type.startswith("worker-"):
            self._fleet.hear(event.type, event.node, event.fields, NOW)
        else:
            row = TaskRow("t")
            fold(row, event.fields)
            if (attempt := attempt_of(row, event.fields)) is not None:
                self._mask(attempt.traceback)
            self._mask(row.args)

    def look(self) -> None:
        Exposition().fleet_text(self._counts.snapshots(), None)
        self._fleet.workers(NOW)


def check(listeners: Listeners, body: bytes, value: object) -> None:
    """Read a body as everything that is said to all. Raises where a reader breaks its promise."""
    began = time.process_time()
    headers = {"clock": value, "expires": value, "ticket": value}
    message = Envelope(body=body, content_type="application/json", content_encoding="utf-8", headers=headers)
    for event in read_events(message, CODECS):
        listeners.hear(event)
    for read in (read_request, read_answers):
        try:
            found = read(message, CODECS)  # type: ignore[operator]
        except WireError:
            continue
        if read is read_request:
            assert found.is_for(NODE) in (True, False)
            assert 0 <= found.clock < 2**53
    assert time.process_time() - began < LONGEST, "it holds up the loop"


def search(seed: int, seconds: float, least: int = 0) -> int:
    """Check mutated messages for so long, and at least so many; returns how many. Repeatable by its seed."""
    random_, pool, listeners = random.Random(seed), seeds(), Listeners()
    values = [None, True, -1, 2**70, 10**400, 1e300, float("nan"), "x", "\ud800", [], {}]
    end, count = time.monotonic() + seconds, 0
    while count < least or time.monotonic() < end:
        data = mutate(random_, pool)
        if random_.randrange(2):
            place = data.rfind(b"}")
            field = random_.choice((b"timestamp", b"retries", b"uuid", b"pattern", b"runtime", b"hostname"))
            data = data[:place] + b', "' + field + b'": ' + random_.choice(VALUES).encode() + b"}"
        try:
            check(listeners, data, random_.choice(values))
        except BaseException:
            print(f"seed {seed}, input {count}: {data!r}", file=sys.stderr)
            raise
        count += 1
        if count % 2000 == 0:
            listeners.look()
    listeners.look()
    return count
