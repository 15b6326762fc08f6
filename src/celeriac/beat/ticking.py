"""Ticks one slot of one entry: makes its message, keeps apart runs that must not overlap, and hands it to the broker.

Rules: the id of a run follows from its entry and its slot, so that each process makes the same. A run that must not
overlap with another has a mark on the board until its final ending is settled, its stored result is seen, or its time
is up.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from celeriac.beat.entry import Entry, run_id
from celeriac.beat.places import Places
from celeriac.client.outbox import Call, Outbox
from celeriac.client.periodic import (
    ALONE_HEADER,
    CELERYS_HEADER,
    ENTRY_HEADER,
    SLOT_HEADER,
    RunMarks,
    run_mark,
)
from celeriac.client.send_listeners import SendListeners, Tick
from celeriac.errors import CeleriacError, ResultMissing
from celeriac.routing import send_options
from celeriac.wire.extended_json import decode_json

logger = logging.getLogger("celeriac.beat")

Arguments = Callable[[], tuple[Sequence[Any], Mapping[str, Any]]]
"""Makes the arguments of a lazy entry."""

NO_HEADERS: Mapping[str, Any] = MappingProxyType({})


class Undeclared(CeleriacError):
    """The arguments of a lazy entry can only be made by a process that declares it."""


class Ticking:
    """Ticks the slots of an app's entries.

    :param lazy: what makes the arguments, of the lazy entries that this process declares.
    """

    def __init__(
        self, places: Places, outbox: Outbox, listeners: SendListeners, lazy: Mapping[str, Arguments]
    ) -> None:
        self._places = places
        self._outbox = outbox
        self._listeners = listeners
        self._lazy = lazy
        self._unguarded: set[str] = set()

    async def tick(self, entry: Entry, key: str, slot: float) -> bool:
        """Tick the slot; return whether it is dealt with. ``False``: it waits for an earlier run that goes on.

        Raises ``BrokerUnavailable`` or ``BackendUnavailable`` in an outage, another ``CeleriacError`` for a message
        that cannot be sent.
        """
        runs = self._runs_of(entry)
        if runs is not None and not await self._may_begin(runs, entry, key, run_id(key, slot)):
            if entry.overlap == "skip":
                await self._places.beat.tick(key, slot, ())
                logger.info("%s: a slot is skipped, the run before it goes on", entry.name)
            return entry.overlap == "skip"
        tick = Tick(entry.name, entry.task, run_id(key, slot), slot, entry.schedule)
        wanted = self._listeners.ticking(tick)
        message = await self._outbox.prepare(self.call(entry, key, slot, wanted))
        if await self._places.beat.tick(key, slot, [message]):
            self._listeners.ticked(tick)
            logger.debug("%s: ticked", entry.name)
        return True

    def call(
        self, entry: Entry, key: str, slot: float | None, more: Mapping[str, Any] = NO_HEADERS
    ) -> Call[Any]:
        """Return the call of a slot; with ``None``, of a run that is for no slot.

        :param more: headers besides those of the entry.

        Raises ``Undeclared`` for a lazy entry that another process declares.
        """
        args, kwargs = self._arguments(entry)
        given = dict(decode_json(entry.options))
        headers = {**(given.pop("headers", None) or {}), **more, CELERYS_HEADER: True, ENTRY_HEADER: key}
        if slot is not None:
            headers[SLOT_HEADER] = slot
            given["task_id"] = run_id(key, slot)
            if entry.overlap != "allow":
                headers[ALONE_HEADER] = True
        options = send_options({**given, "headers": headers})
        return Call(entry.task, args, kwargs, options, None, entry.ignore_result)

    def _arguments(self, entry: Entry) -> tuple[Sequence[Any], Mapping[str, Any]]:
        if not entry.lazy:
            return entry.call()
        if entry.name not in self._lazy:
            raise Undeclared(f"{entry.name}: its arguments are made by code that this process does not have")
        return self._lazy[entry.name]()

    def _runs_of(self, entry: Entry) -> RunMarks | None:
        if entry.overlap == "allow":
            return None
        runs = self._places.runs
        if runs is None and entry.name not in self._unguarded:
            self._unguarded.add(entry.name)
            logger.warning(
                "%s: overlap=%r needs Redis or SQL for the queues or the results; its runs may overlap",
                entry.name,
                entry.overlap,
            )
        return runs

    async def _may_begin(self, runs: RunMarks, entry: Entry, key: str, run: str) -> bool:
        """Mark the run as the one of its entry; return ``False`` while another goes on."""
        known = await runs.put(key, run, entry.overlap_for)
        if known != run and await self._has_ended(known):
            await runs.remove(run_mark(key, known))
            known = await runs.put(key, run, entry.overlap_for)
        return known == run

    async def _has_ended(self, run: str) -> bool:
        """Whether a run's stored result says so: of a worker of Celery's there is no other sign."""
        try:
            (record,) = await self._places.backend.load([run])
        except ResultMissing:
            return False
        return record is not None and record.ready
