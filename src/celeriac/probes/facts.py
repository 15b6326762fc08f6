"""What is known of the health of one worker, and the verdicts on it.

Rules: nothing but the standard library is imported, since a small process of its own answers probes from this. Moments
are seconds of ``time.monotonic``, which all processes of a machine share. Whether a worker lives never depends on its
broker: a restart mends no broker.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import NamedTuple
from zlib import crc32

from celeriac.probes.serving import Page

LONGEST_TEXT = 1000
"""Characters of a broker's complaint that are kept."""

_HEAD = 16
_LARGEST = 64 * 1024
_TRIES = 50
"""How often a record is read that does not fit its sum: a write takes microseconds."""


class Verdict(NamedTuple):
    """Whether a thing is so, and in words why, or why not."""

    good: bool
    text: str

    def page(self) -> Page:
        """Return it as the answer to a probe: 200 or 503."""
        return Page(200 if self.good else 503, f"{self.text}\n".encode(errors="backslashreplace"))


class Facts(NamedTuple):
    """The facts that a worker's event loop noted last.

    :param pid: the worker's process.
    :param live_after: seconds without a beat after which the worker counts as stuck.
    :param ready_within: seconds without an answer of the broker after which it is not ready.
    :param not_yet: what is so until it is ready.
    :param beat: when the loop beat last; ``None`` before.
    :param dead: why it takes no more, without having been asked to stop; empty where it does.
    :param takes: whether it takes from any queue.
    :param answered: when the broker answered last; ``None`` before.
    :param complaint: why it did not answer the latest question; empty if it did.
    """

    pid: int
    live_after: float
    ready_within: float
    not_yet: str
    beat: float | None = None
    dead: str = ""
    takes: bool = True
    answered: float | None = None
    complaint: str = ""
    began: bool = False
    holds: bool = False
    stopping: bool = False
    ended: bool = False

    def live(self, now: float) -> Verdict:
        """Whether the process should go on as it is; if not, a restart helps."""
        if self.ended:
            return Verdict(True, "stopped")
        if self.beat is None:
            return Verdict(True, "starting")
        age = max(0.0, now - self.beat)
        if age > self.live_after:
            return Verdict(False, f"the event loop is stuck for {age:.1f} s")
        if not self.stopping and self.dead:
            return Verdict(False, self.dead)
        return Verdict(True, f"the event loop's last beat was {age:.1f} s ago")

    def ready(self, now: float) -> Verdict:
        """Whether the worker takes tasks now."""
        if self.stopping:
            return Verdict(False, "stopping")
        if not self.holds:
            return Verdict(False, self.not_yet)
        if not self.takes:
            return Verdict(False, "the worker takes from no queue")
        age = None if self.answered is None else now - self.answered
        if age is None or age > self.ready_within:
            since = "has not answered yet" if age is None else f"did not answer for {age:.1f} s"
            return Verdict(False, f"the broker {since}{self.complaint and f': {self.complaint}'}")
        return Verdict(True, f"the broker answered {age:.1f} s ago")

    def started(self, now: float) -> Verdict:
        """Whether the worker was ready once."""
        return Verdict(True, "started") if self.began else Verdict(False, self.ready(now).text)


class FactsFile:
    """The latest facts of one worker, in a file that two processes have open.

    A reader that comes in the middle of a write sees by the sum that this is no whole record, and reads again.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._last: Facts | None = None

    @classmethod
    def make(cls) -> FactsFile:
        """Return one without a name. Raises ``OSError`` where the system has no room for it."""
        if hasattr(os, "memfd_create"):  # no file system that may be read-only
            return cls(os.memfd_create("celeriac-probes"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    @classmethod
    def open(cls, path: str) -> FactsFile:
        """Return the one of this name, which is made where there is none. Raises ``OSError``."""
        return cls(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def write(self, facts: Facts) -> None:
        """Replace what is there."""
        text = json.dumps(facts._replace(complaint=facts.complaint[:LONGEST_TEXT])).encode()
        os.pwrite(self.descriptor, b"%08x%08x%s" % (crc32(text), len(text), text), 0)

    def read(self) -> Facts | None:
        """Return what was written last; ``None`` before."""
        for _ in range(_TRIES):
            record = os.pread(self.descriptor, _LARGEST, 0)
            if not record:
                break
            summed, size = int(record[:8], 16), int(record[8:_HEAD], 16)
            text = record[_HEAD : _HEAD + size]
            if crc32(text) == summed:
                self._last = Facts(*json.loads(text))
                break
        return self._last

    def close(self) -> None:
        """Close it in this process."""
        os.close(self.descriptor)
