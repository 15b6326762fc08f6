"""What the messages of periodic tasks carry, and the marks of those whose runs must not overlap.

Rules: such a run has a mark on the board from its tick on. The step that settles its final ending removes it; where the
marks are with the results, the step that stores its result does. A mark that nobody removes ends by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celeriac.client.connections import Connections
from celeriac.contracts.board import Board, Mark, Marks
from celeriac.servers.memory.results import MemoryBackend

ENTRY_HEADER, SLOT_HEADER, ALONE_HEADER = "celeriac_entry", "celeriac_slot", "celeriac_alone"
"""Headers of a message: which entry it is of, for which slot (seconds since the epoch), and that no other run of the
entry may begin before it has ended."""

CELERYS_HEADER = "celery_beat_task"
"""The header by which Celery's beat marks its messages."""

_RUN = "run"


def shared_results(connections: Connections) -> Board | None:
    """Return the board of the results, if other processes share it."""
    backend = connections.backend
    return None if isinstance(backend, MemoryBackend) else backend.board


def beat_board(connections: Connections) -> Board:
    """Return the board that keeps the entries of periodic tasks and the marks of their runs."""
    results = shared_results(connections)
    if connections.broker.beat is None and results is not None and results.slots is not None:
        return results
    return connections.broker.board


class RunMarks:
    """The marks of the runs that go on.

    :param marks: those of ``beat_board``.
    :ivar with_messages: they are on the broker's board, else on that of the results.
    """

    def __init__(self, marks: Marks, *, with_messages: bool) -> None:
        self._marks = marks
        self.with_messages = with_messages

    async def put(self, entry: str, run: str, keep: float) -> str:
        """Mark a run as the one of its entry, unless there is one; return the one that is there now."""
        return await self._marks.put(_key(entry), _RUN, run, keep)

    async def remove(self, mark: Mark) -> None:
        """Note that the run has ended."""
        await self._marks.remove(mark.key, mark.name, mark.value)


def run_mark(entry: str, run: str) -> Mark:
    """Return the mark of a run."""
    return Mark(_key(entry), _RUN, run)


def run_marks(connections: Connections) -> RunMarks | None:
    """Return the marks of an app's runs; ``None`` where nobody keeps any."""
    board = beat_board(connections)
    return (
        None
        if board.marks is None
        else RunMarks(board.marks, with_messages=board is connections.broker.board)
    )


def entry_alone(headers: Mapping[str, Any]) -> str | None:
    """Return the entry that a message is of, if its runs must not overlap."""
    entry = headers.get(ENTRY_HEADER) if headers.get(ALONE_HEADER) else None
    return entry if isinstance(entry, str) else None


def _key(entry: str) -> str:
    return f"beat-run.{entry}"
