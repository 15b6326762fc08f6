"""Tasks that must not run any more: sets on the board of the broker, so that a worker that starts later knows them too.

Rules: a task is kept until what was parked when it was revoked is due. It is known first and kept for longer after
that, so that what is parked in between is not missed: it is either seen to be parked, or meets the revocation.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from celeriac.board import REVOKED, Board
from celeriac.broker import Schedule

_IDS, _ROOTS, _TERMINATE = KINDS = ("ids", "roots", "terminate")


class Revoked(msgspec.Struct, frozen=True):
    """What was revoked, as of one revision.

    :param ids: of tasks.
    :param roots: of whole workflows: every task with that root id is meant.
    :param terminate: those of the ids and roots whose running processes are to be killed too.
    """

    revision: int = 0
    ids: frozenset[str] = frozenset()
    roots: frozenset[str] = frozenset()
    terminate: frozenset[str] = frozenset()


class Revocations:
    """What was revoked with one broker."""

    def __init__(self, board: Board, schedule: Schedule) -> None:
        self._sets = board.sets
        self._schedule = schedule

    async def add(
        self, ids: Sequence[str], *, roots: Sequence[str] = (), terminate: bool = False, keep: float = 86400.0
    ) -> None:
        """Revoke, for ``keep`` seconds after the last of what is parked now is due; then the entry is dropped.

        :param terminate: kill the process of a task that runs in a process pool; coroutines are cancelled anyway.
        """
        members = {_IDS: ids, _ROOTS: roots, _TERMINATE: (*ids, *roots) if terminate else ()}
        members = {kind: names for kind, names in members.items() if names}
        await self._sets.add(REVOKED, members, keep)
        if horizon := await self._schedule.horizon():
            await self._sets.add(REVOKED, members, horizon + keep)

    async def revision(self) -> int:
        """Return a number that changes with every ``add``; one cheap call."""
        return await self._sets.revision(REVOKED)

    async def load(self) -> Revoked:
        """Return all that is revoked now."""
        contents = await self._sets.load(REVOKED, KINDS)
        ids, roots, terminate = (frozenset(contents.sets[kind]) for kind in KINDS)
        return Revoked(contents.revision, ids, roots, terminate)
