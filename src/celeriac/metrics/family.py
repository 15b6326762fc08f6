"""The sum of the metrics of several worker processes, which their supervisor asks for over Unix sockets.

Rules: a counter never falls. What a process counted that has ended is kept; of one that does not answer its last
numbers count.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from celeriac.metrics.counts import Snapshot, summed
from celeriac_probe import fetch

PATIENCE = 2.0
"""Seconds that one process has to answer."""

SNAPSHOT_PATH = "/snapshot"


class FamilyMetrics:
    """The numbers of all processes of one supervisor.

    :param sockets: the paths of their sockets.
    :param host: the label ``hostname``.
    """

    def __init__(self, sockets: Sequence[str], host: str) -> None:
        self._last: dict[str, Snapshot | None] = dict.fromkeys(sockets)
        self._host = host
        self._gone = Snapshot(host)

    def snapshot(self) -> Snapshot:
        """Ask all processes; return the sum."""
        now = [self._of(path) for path in self._last]
        return summed([self._gone, *(one for one in now if one is not None)], self._host)

    def _of(self, path: str) -> Snapshot | None:
        last = self._last[path]
        try:
            status, body = fetch(path, SNAPSHOT_PATH, PATIENCE)
            found = msgspec.json.decode(body, type=Snapshot) if status == 200 else None
        except (OSError, msgspec.DecodeError):
            found = None
        if found is None:
            return None if last is None else _counted(last)
        if last is not None and last.boot != found.boot:
            self._gone = summed([self._gone, _counted(last)], self._host)
        self._last[path] = found
        return found


def _counted(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot without what is true of a process only while it runs."""
    return msgspec.structs.replace(
        snapshot,
        workers=[],
        up=None,
        active=None,
        lag=None,
        broker_up=None,
        backend_up=None,
        schedule_lag=None,
    )
