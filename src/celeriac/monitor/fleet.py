"""Which workers live, by their heartbeats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.quantities import LONGEST, is_number

GIVEN_UP = 2.0
"""A worker that is silent for so many of its heartbeats is gone, as Celery's monitors have it."""

FORGOTTEN = 3600.0
"""Seconds after which a worker that is gone is no longer shown."""

MOST = 10_000
"""Workers that are remembered; beyond that the one that was silent longest is forgotten for a new one."""

_RAREST_BEAT = 3600.0
"""Seconds between heartbeats that are believed: a worker that claims more would never count as gone."""

_LOADS = 3
_COUNT = 2**53


class WorkerRow(msgspec.Struct):
    """One worker, of Celery or celeriac.

    :param heard: when it was last heard, by our clock.
    :param freq: seconds between its heartbeats.
    :param lag: seconds for which its event loop has not answered, as far as it says so.
    """

    node: str
    heard: float
    since: float
    pid: int = 0
    freq: float = 2.0
    active: int | None = None
    processed: int | None = None
    loadavg: tuple[float, ...] = ()
    software: str = ""
    version: str = ""
    system: str = ""
    lag: float | None = None
    sampled: float | None = None
    offline: bool = False

    def lives(self, now: float) -> bool:
        """Whether it was heard of late and has not said goodbye."""
        return not self.offline and now - self.heard < GIVEN_UP * max(self.freq, 1.0)


class Fleet:
    """The workers that were heard."""

    def __init__(self) -> None:
        self._workers: dict[str, WorkerRow] = {}

    def hear(self, kind: str, node: str, fields: Mapping[str, Any], now: float) -> None:
        """Take in an event of a worker."""
        row = self._workers.get(node)
        if row is None:
            if len(self._workers) >= MOST:
                del self._workers[min(self._workers.values(), key=lambda row: row.heard).node]
            row = self._workers[node] = WorkerRow(node, now, now)
        if kind == "worker-online":
            row.since = now
        row.heard, row.offline = now, kind == "worker-offline"
        row.pid = _whole(fields.get("pid"), row.pid) or 0
        freq = _number(fields.get("freq"), row.freq) or row.freq
        row.freq = freq if 0 < freq <= _RAREST_BEAT else row.freq
        row.active = _whole(fields.get("active"), row.active)
        row.processed = _whole(fields.get("processed"), row.processed)
        row.lag = _number(fields.get("lag"), None)
        row.sampled = _number(fields.get("sampled"), None)
        load = fields.get("loadavg")
        if isinstance(load, (list, tuple)):
            numbers = (_number(part, None) for part in load[:_LOADS])
            row.loadavg = tuple(number for number in numbers if number is not None)
        for column, field in (("software", "sw_ident"), ("version", "sw_ver"), ("system", "sw_sys")):
            if isinstance(value := fields.get(field), str):
                setattr(row, column, value)

    def workers(self, now: float) -> list[WorkerRow]:
        """Return the workers, those that live first."""
        for node in [node for node, row in self._workers.items() if now - row.heard > FORGOTTEN]:
            del self._workers[node]
        return sorted(self._workers.values(), key=lambda row: (not row.lives(now), row.node))

    def alive(self, now: float) -> list[WorkerRow]:
        """Return the workers that live."""
        return [row for row in self.workers(now) if row.lives(now)]


def _number(value: Any, otherwise: float | None) -> float | None:
    return float(value) if is_number(value) and 0 <= value < LONGEST else otherwise


def _whole(value: Any, otherwise: int | None) -> int | None:
    return value if type(value) is int and 0 <= value < _COUNT else otherwise
