"""The contract of what keeps the history: rows go in by batches, and come out by SQL that every store understands.

Rules: the tables are those of ``schema.py`` in every store, with the same names and columns. Statements mark their
values by ``?``, and use nothing that only one database has.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

from celeriac.monitor.rows import AttemptRow, TaskRow

COLUMNS = TaskRow.__struct_fields__

Values = Sequence[Any]
Statement = tuple[str, Values]


class KeptAttempt(NamedTuple):
    """An attempt that raised, with what its error has in common with others.

    :param name: of the task.
    :param error: the class of the error.
    :param place: in the user's code.
    """

    attempt: AttemptRow
    name: str
    error: str
    place: str

    @property
    def hash(self) -> str:
        """Names the text of its traceback; empty where there is none."""
        text = self.attempt.traceback
        return blake2b(text.encode(errors="replace"), digest_size=12).hexdigest() if text else ""


class Batch(NamedTuple):
    """What is written in one step.

    :param rows: of tasks, one for each.
    :param ended: tasks that count in the minute of their end.
    """

    rows: list[TaskRow]
    attempts: list[KeptAttempt]
    ended: list[TaskRow]


class Store(Protocol):
    """A place for the history. Its methods raise ``CeleriacError`` while it cannot be reached."""

    async def open(self) -> None:
        """Connect, and make the tables where they are missing."""
        ...

    async def close(self) -> None:
        """Disconnect."""
        ...

    async def known(self, ids: Sequence[str]) -> list[TaskRow]:
        """Return the rows of these tasks."""
        ...

    async def write(self, batch: Batch) -> None:
        """Write a batch in one step."""
        ...

    async def fetch(self, query: str, values: Values) -> Sequence[Sequence[Any]]:
        """Return what a query finds."""
        ...

    async def run(self, statements: Sequence[Statement]) -> list[int]:
        """Run statements in one step; return how many rows each has changed."""
        ...

    def text_clause(self, text: str) -> tuple[str, str]:
        """Return the condition for tasks with this text, in any case, and its value."""
        ...
