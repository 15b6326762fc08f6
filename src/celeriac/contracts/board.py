"""The contract of a board: small state that every process on one server shares.

Rules: the server decides, so of two callers at once one wins; its clock is the one that counts, where it has one; a
call that failed may be made again. Everything that is put on a board ends by itself. What a server cannot keep is
``None`` there. Calls raise ``BrokerError`` on a broker's board and ``BackendError`` on a result store's; which of
them are ``BrokerUnavailable`` or ``BackendUnavailable`` when the server is away.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import msgspec

REVOKED = "revoked"
"""The sets that say what must not run any more. A take reports their revision (``Subscription.revision``)."""

SLOT_KEPT = 400 * 86400
"""Seconds for which the last slot of a periodic task is known: longer than a year, for a yearly task."""

SLOT_AHEAD = 86400.0
"""Seconds by which a last slot may be ahead of the server's clock: one that is further ahead is none of ours."""

LEASE_AHEAD = 86400.0
"""Seconds ahead of which a lease may end: one that is held for longer is held by none of us."""

LONGEST_WAIT = 604800.0
"""Seconds ahead of which a turn may be booked: one that is further ahead was booked by none of us."""


class Contents(msgspec.Struct, frozen=True):
    """The members of the sets of one name, as of one revision.

    :param sets: of each set its members, and until when (seconds since the epoch).
    :param now: the time by the server's clock, in seconds since the epoch; ``None`` where it has none of its own.
    """

    revision: int = 0
    sets: Mapping[str, Mapping[str, float]] = {}
    now: float | None = None


class Sets(Protocol):
    """Sets of names that processes keep copies of. Sets of one name change together and have one revision.

    Nothing that was added before a ``revision`` was read is missing from a copy that is loaded because of it.
    """

    async def add(self, name: str, members: Mapping[str, Collection[str]], keep: float) -> None:
        """Add members to some sets, for ``keep`` seconds; one that is kept for longer already stays so.

        They are seen together, or in steps of 1,000 names where there are more.
        """
        ...

    async def remove(self, name: str, members: Mapping[str, Collection[str]]) -> None:
        """Remove members from some sets."""
        ...

    async def load(self, name: str, sets: Sequence[str]) -> Contents:
        """Return what these sets hold now."""
        ...

    async def revision(self, name: str) -> int:
        """Return a number that changes with every ``add`` and ``remove``; one cheap call."""
        ...


class Mark(msgspec.Struct, frozen=True):
    """A mark as it stands on a board: the value that was put under a key and a name."""

    key: str
    name: str
    value: str


class Marks(Protocol):
    """Values that are put once. A mark has a name under a key; what is under one key ends together."""

    async def put(self, key: str, name: str, value: str, keep: float) -> str:
        """Put a value there unless there is one; return the one that is there now.

        :param keep: seconds until all under the key ends, counted from the first of it.

        Concurrent calls share round trips.
        """
        ...

    async def remove(self, key: str, name: str, value: str) -> bool:
        """Remove a mark if it has this value; return whether it had."""
        ...

    async def shorten(self, key: str, keep: float) -> None:
        """Let all under the key end within ``keep`` seconds, what is put only then included.

        Concurrent calls share round trips.
        """
        ...


class Tenure(msgspec.Struct, frozen=True):
    """Whether a holder has a lease: true if so.

    :param now: as in ``Contents``.
    """

    held: bool
    now: float | None = None

    def __bool__(self) -> bool:
        return self.held


class Leases(Protocol):
    """Rights that one holder has at a time."""

    async def hold(self, name: str, holder: str, seconds: float) -> Tenure:
        """Take a lease that is free, or renew one's own; return whether the holder has it, for so long from now.

        On RabbitMQ a lease also ends with its holder's connection: another holder may then get it before its time.
        """
        ...

    async def release(self, name: str, holder: str) -> None:
        """Free the lease if this holder has it."""
        ...


class Slots(Protocol):
    """Keeps the last ticked slot of each periodic task, for ``SLOT_KEPT`` seconds."""

    async def advance(self, entry: str, slot: float) -> bool:
        """Set an entry's last slot, if that is before this one or there is none; return whether it was set.

        :param slot: seconds since the epoch.

        Concurrent calls share round trips.
        """
        ...

    async def last(self, entries: Sequence[str]) -> Mapping[str, float]:
        """Return the last slots of those entries that have one."""
        ...


class Windows(Protocol):
    """Counts turns, so that there are never more than a number of them within a window of time."""

    async def turn(self, name: str, most: int, window: float, wait: float = 0.0) -> float:
        """Book the next turn, if it is at most ``wait`` seconds ahead; return how many seconds it is ahead.

        0 is at once. What is more than ``wait`` was not booked, and counts for nothing.

        :param most: turns within any ``window`` seconds.
        :param wait: at most ``LONGEST_WAIT``.
        """
        ...


class Board(Protocol):
    """The small state that all users of one server share."""

    @property
    def sets(self) -> Sets:
        """Sets of names that every worker reads, such as the revoked tasks."""
        ...

    @property
    def marks(self) -> Marks | None:
        """Marks: the first of several tries to put one wins."""
        ...

    @property
    def leases(self) -> Leases | None:
        """Leases: rights that one holder at a time has."""
        ...

    @property
    def slots(self) -> Slots | None:
        """The last slots of periodic tasks."""
        ...

    @property
    def windows(self) -> Windows | None:
        """How much may happen in a time."""
        ...
