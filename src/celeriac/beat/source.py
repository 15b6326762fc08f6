"""Periodic tasks that another program keeps, such as a table of Django's: read here, and told what was ticked.

Rules: a source is asked every few seconds. Its own scheduler must not run: a source that finds signs of one raises
``SourceTaken``, which ends the ticking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from celeriac.beat.entry import Entry
from celeriac.errors import CeleriacError


class SourceTaken(CeleriacError):
    """The scheduler of a source runs beside this process: each task would be sent twice."""


class Reading(msgspec.Struct, frozen=True):
    """What a source holds.

    :param entries: those that are to be ticked, each with ``since``: when it last ran, as the source knows it.
    :param ran: of each entry when it last ran.
    :param names: all that it knows, those that are switched off too.
    """

    entries: Mapping[str, Entry]
    ran: Mapping[str, float] = {}
    names: frozenset[str] = frozenset()


class Source(Protocol):
    """Where another program keeps periodic tasks.

    :ivar name: tells its entries from others.
    :ivar every: seconds between two looks.
    """

    name: str
    every: float

    async def read(self) -> Reading:
        """Return what it holds now. Raises ``SourceTaken`` where its own scheduler is seen to run."""
        ...

    async def ticked(self, slots: Mapping[str, float]) -> Mapping[str, float]:
        """Note of some entries which slot was ticked; return what was noted of them before."""
        ...
