"""The contract of the lists of messages that were set aside: dead letters, and those of failed tasks.

Rules: a list holds a message byte for byte. A dead letter is what no worker could run, and stays until a person
decides; the failed list holds what ran and failed for good, so much and so long as its ``Cap`` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from celeriac.wire.envelope import Envelope, Unreadable


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that was set aside.

    :param id: names the entry in the dead-letter list.
    :param died_at: seconds since the epoch.
    """

    id: str
    envelope: Envelope | Unreadable
    queue: str
    reason: str
    died_at: float


class DeadLetters(Protocol):
    """Messages that were set aside, oldest first; kept until retried or deleted."""

    async def list(self, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        """Return up to ``limit`` entries."""
        ...

    async def count(self) -> int:
        """Return how many there are."""
        ...

    async def retry(self, ids: Sequence[str]) -> int:
        """Put these back on the queues they came from, atomically each; return how many were."""
        ...

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete these; return how many were."""
        ...


class Failed(msgspec.Struct, frozen=True):
    """What the failed list keeps of a message besides the message itself.

    :param id: of the task; it names the entry.
    :param reason: the error, as text.
    """

    id: str
    reason: str


class Cap(msgspec.Struct, frozen=True):
    """How much a list keeps: the oldest entries go first.

    :param most: entries; a broker may count a batch of new ones late.
    :param seconds: how old an entry may be.
    """

    most: int = 10_000
    seconds: float = 7 * 86400.0


class FailedTasks(Protocol):
    """The messages of tasks that failed for good, oldest first, so many and so old as the broker's ``Cap`` says."""

    async def list(self, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        """Return up to ``limit`` entries; their ids are those of the tasks."""
        ...

    async def count(self) -> int:
        """Return how many there are."""
        ...

    async def find(self, ids: Sequence[str]) -> Sequence[DeadLetter]:
        """Return the entries of these tasks, as far as there are any; of a task that failed twice the later one."""
        ...

    async def add(self, envelope: Envelope, queue: str, failed: Failed) -> None:
        """Keep a message that was acknowledged before its task ran. Raises as a ``Receipt`` does."""
        ...

    async def delete(self, ids: Sequence[str]) -> int:
        """Delete the entries of these tasks; return how many were."""
        ...
