"""The contract of a result store.

Rules: encoding comes before effects (``encode`` raises, ``store`` does not choke on a value); a stored SUCCESS is never
overwritten by another state; driver errors are translated into ``BackendUnavailable`` or ``BackendError``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, runtime_checkable

import msgspec

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.contracts.board import Board, Mark
from celeriac.errors import EncodeError, Finding
from celeriac.wire.names import is_text
from celeriac.wire.result import ResultRecord

CHORD_KEPT = 30 * 86400.0
"""Seconds for which a chord that makes no progress is kept, if results are not kept longer: a part may come late."""


class EncodedResult(msgspec.Struct, frozen=True, gc=False):
    """A record whose value is already bytes; made by the backend that stores it.

    :param payload: the whole meta object for key-value stores, the encoded value for tables.
    """

    record: ResultRecord
    payload: bytes


class EncodedPart(msgspec.Struct, frozen=True):
    """A part of a chord whose value is already bytes; made by the chord store that counts it.

    :param token: identifies the claim that counting this part may give: a repeated call gets the same claim again.
    """

    part: Part
    payload: bytes
    token: str


class Claim(msgspec.Struct, frozen=True):
    """The right to send one chord's body, for a while.

    :param run: tells the runs of a chord apart that is sent again under the id that it had; empty where that cannot be.
    :param failed: whether the body cannot be sent, since a part failed.
    """

    chord_id: str
    token: str
    run: str = ""
    failed: bool = False


class Standing(msgspec.Struct, frozen=True):
    """How a chord stands after a part of it was counted. Neither field set: parts are missing, or all is done.

    :param claim: this caller is to send the body.
    :param held_for: seconds for which another worker has the claim; after that, counting the part again gives it.
    """

    claim: Claim | None = None
    held_for: float | None = None


class PartValue(msgspec.Struct, frozen=True):
    """A part as it was counted.

    :param value: what the task returned, or a ``Failure``.
    """

    task_id: str
    state: str
    value: Any


class ChordStore(Protocol):
    """Counts the parts of chords, so that each one's body is sent once.

    A part counts once, however often it is counted: it is recognised by its task's id and its index. Every method
    raises ``BackendUnavailable`` when the store is away, after which the same call may be made again.
    """

    def encode(self, part: Part) -> EncodedPart:
        """Make the bytes. Raises ``EncodeError`` naming what cannot be written."""
        ...

    async def open(self, openings: Sequence[Opening]) -> None:
        """Make chords known, before their parts run; one that is known, or done, stays as it is."""
        ...

    async def extend(self, chord_id: str, task_ids: Sequence[str]) -> None:
        """Let these tasks be further parts of a chord; each counts once, however often this is called."""
        ...

    async def count(self, encoded: EncodedPart) -> Standing:
        """Count a part. Concurrent calls share round trips."""
        ...

    async def collect(self, claim: Claim) -> list[Any]:
        """Return the ``PartValue`` of every part in the order of the header.

        Where Celery saved the header as nested groups, there are lists of them in their places.
        """
        ...

    async def renew(self, claim: Claim) -> bool:
        """Prolong a claim; return ``False`` if another worker has it by now."""
        ...

    async def finish(self, claim: Claim) -> None:
        """Note that the body was sent, or will never be: late repeats of parts change nothing any more."""
        ...


class Replies(Protocol):
    """Results that come as messages, to the sender alone."""

    async def address(self) -> str:
        """Return what a message names as its ``reply_to``; it is ready to receive. Raises ``BackendError``."""
        ...


class Backend(Protocol):
    """A place that keeps results. Bound to the event loop that first used it."""

    @property
    def chords(self) -> ChordStore | None:
        """The counter of chords; ``None`` where this way of keeping results cannot count them."""
        ...

    @property
    def board(self) -> Board | None:
        """The board of the store's server; ``None`` where it can have none."""
        ...

    @property
    def replies(self) -> Replies | None:
        """Where results are sent to; ``None`` where every process can read them."""
        ...

    def encode(self, record: ResultRecord) -> EncodedResult:
        """Make the bytes. Raises ``EncodeError`` naming what cannot be written."""
        ...

    async def store(self, encoded: EncodedResult) -> None:
        """Keep the record and pass it to its followers. Concurrent calls share round trips, in their order."""
        ...

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        """Return what is stored for each id, ``None`` where nothing is; one round trip."""
        ...

    def follow(self, task_ids: Collection[str]) -> AbstractAsyncContextManager[AsyncIterator[ResultRecord]]:
        """Yield every record of these tasks as it is stored, the present one first; end when all are ready.

        The subscription is made before the check, so nothing is missed, and is dropped on leaving the block. All
        waits of a process share one connection. An id that never gets a record is waited for without end.
        """
        ...

    async def forget(self, task_ids: Sequence[str]) -> None:
        """Delete what is stored."""
        ...

    async def ping(self) -> str:
        """Connect and return one line that says what answered (for ``celeriac doctor``)."""
        ...

    async def examine(self) -> Sequence[Finding]:
        """Try what clients and workers need; return findings about settings that work but may cause harm.

        Leaves nothing behind. Raises ``BackendError`` naming what is refused, ``BackendUnavailable`` in an outage.
        """
        ...

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        ...


@runtime_checkable
class SelectiveBackend(Protocol):
    """A result store that cannot keep results under every id of a task."""

    def check_id(self, task_id: str) -> None:
        """Raise ``EncodeError`` for an id under which no result can be kept."""
        ...


def keeper(backend: Backend) -> Callable[[str], bool]:
    """Return a function that tells whether a result can be kept under the id of a task."""
    if not isinstance(backend, SelectiveBackend):
        return lambda task_id: True
    check_id = backend.check_id

    def keeps(task_id: str) -> bool:
        try:
            check_id(task_id)
        except EncodeError:
            return False
        return True

    return keeps


def check_text(task_id: str) -> None:
    """Raise ``EncodeError`` for an id that has no UTF-8 form, which no server keeps."""
    if not (task_id.isascii() or is_text(task_id)):
        raise EncodeError(
            f"task id {task_id!r} is no text that can be stored; send the task under another id"
        )


@runtime_checkable
class UnmarkingBackend(Protocol):
    """A result store that keeps the marks of its board beside its results; an optional ability."""

    async def store_and_unmark(self, encoded: EncodedResult, mark: Mark) -> None:
        """Keep the record as ``store`` does, and remove a mark of the board if it is there, in one step.

        Raises as ``store`` does; the mark then stays.
        """
        ...
