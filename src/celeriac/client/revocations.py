"""Revoked tasks: sets on the board of the broker, so that a worker that starts later knows them, too.

Rules: a revocation is kept until every message that was parked when it was made is due. It is stored first, then the
parked messages are looked at, and its end is extended. So a message that is parked meanwhile is not missed: either the
look finds it, or the worker that would park it finds the revocation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from celeriac.contracts.board import REVOKED, Board
from celeriac.contracts.broker import Schedule
from celeriac.wire.task import TaskMessage

_IDS, _ROOTS, _TERMINATE, _STAMPS = KINDS = ("ids", "roots", "terminate", "stamps")


def stamp(header: str, value: Any) -> str:
    """Return the text that stands for one value of one stamped header."""
    return json.dumps([header, value], default=repr)


def stamps_of(message: TaskMessage) -> list[str]:
    """Return the texts of all stamps of a message."""
    return [
        stamp(header, value)
        for header, values in message.stamps.items()
        for value in (values if isinstance(values, list | tuple) else [values])
    ]


class Revoked(msgspec.Struct, frozen=True):
    """The revoked tasks, as of one revision.

    :param ids: ids of tasks.
    :param roots: root ids of whole workflows: every task with such a root id is revoked.
    :param terminate: those of the ids, roots and stamps whose running processes are to be killed, too.
    :param stamps: stamps of messages, as ``stamp`` writes them: every task that has one of them is revoked.
    """

    revision: int = 0
    ids: frozenset[str] = frozenset()
    roots: frozenset[str] = frozenset()
    terminate: frozenset[str] = frozenset()
    stamps: frozenset[str] = frozenset()

    def names(self, message: TaskMessage) -> bool:
        """Whether this message's task is revoked."""
        if message.id in self.ids or message.root_id in self.roots:
            return True
        return bool(self.stamps and message.stamps) and not self.stamps.isdisjoint(stamps_of(message))

    def kills(self, message: TaskMessage) -> bool:
        """Whether the process is to be killed in which this message's task runs."""
        if message.id in self.terminate or message.root_id in self.terminate:
            return True
        return bool(message.stamps) and not self.terminate.isdisjoint(stamps_of(message))


class Revocations:
    """The revoked tasks of one broker."""

    def __init__(self, board: Board, schedule: Schedule) -> None:
        self._sets = board.sets
        self._schedule = schedule

    async def add(
        self,
        ids: Sequence[str] = (),
        *,
        roots: Sequence[str] = (),
        stamps: Sequence[str] = (),
        terminate: bool = False,
        keep: float = 86400.0,
    ) -> None:
        """Revoke until ``keep`` seconds after the last message that is parked now is due; then the entry expires.

        :param terminate: kill the process of a task that runs in a process pool; coroutines are cancelled anyway.
        """
        members = {
            _IDS: ids,
            _ROOTS: roots,
            _STAMPS: stamps,
            _TERMINATE: (*ids, *roots, *stamps) if terminate else (),
        }
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
        ids, roots, terminate, stamps = (frozenset(contents.sets[kind]) for kind in KINDS)
        return Revoked(contents.revision, ids, roots, terminate, stamps)
