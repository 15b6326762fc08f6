"""A result store inside one process, for tests and for programs that need no other.

Rules: records are kept as the bytes that other stores keep; two stores share nothing; nothing outlives the process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from math import inf
from typing import Any
from uuid import uuid4

import msgspec

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.clock import Clock, SystemClock
from celeriac.contracts.backend import (
    CHORD_KEPT,
    ChordStore,
    Claim,
    EncodedPart,
    EncodedResult,
    PartValue,
    Replies,
    Standing,
)
from celeriac.errors import Finding
from celeriac.servers.following import Following
from celeriac.servers.memory.board import MemoryBoard
from celeriac.wire.content import SERIALIZERS, Codecs
from celeriac.wire.failure import read_failure
from celeriac.wire.preview import counted
from celeriac.wire.result import EXCEPTION_STATES, SUCCESS, ResultRecord, decode, encode, encode_part, plain

_CLAIM = 30.0
"""Seconds that the claim of a chord's body holds unless it is renewed."""


class _Kept(msgspec.Struct):
    status: str
    payload: bytes
    expires_at: float | None


class MemoryBackend:
    """Keeps results in the memory of this process. Use it from one event loop.

    :param codecs: the serializers that may be used.
    :param clock: tells when a result expires.
    :param expires: seconds until a record is dropped; ``None`` keeps it.
    """

    replies: Replies | None = None

    def __init__(
        self,
        codecs: Codecs,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        expires: float | None = 86400.0,
    ) -> None:
        self._codecs = codecs
        self._clock = clock
        self._expires = expires
        self._kept: dict[str, _Kept] = {}
        self._following = Following()
        self._versions = count()
        self._chords = _Chords(codecs, clock, expires)
        self._board = MemoryBoard(clock)

    @property
    def chords(self) -> ChordStore:
        return self._chords

    @property
    def board(self) -> MemoryBoard:
        return self._board

    def encode(self, record: ResultRecord) -> EncodedResult:
        return EncodedResult(record, encode(record, self._codecs, extended=True))

    async def store(self, encoded: EncodedResult) -> None:
        self._drop_expired()
        record = encoded.record
        before = self._kept.get(record.task_id)
        if before is not None and before.status == SUCCESS and record.status != SUCCESS:
            return
        self._kept.pop(record.task_id, None)
        expires_at = None if self._expires is None else self._clock.now() + self._expires
        self._kept[record.task_id] = _Kept(record.status, encoded.payload, expires_at)
        self._following.offer(
            record.task_id, next(self._versions), partial(self._decode, record.task_id, encoded.payload)
        )

    async def load(self, task_ids: Sequence[str]) -> list[ResultRecord | None]:
        return [self._load(task_id) for task_id in task_ids]

    @asynccontextmanager
    async def follow(self, task_ids: Collection[str]) -> AsyncIterator[AsyncIterator[ResultRecord]]:
        with self._following.register(task_ids) as follower:
            for task_id in dict.fromkeys(task_ids):
                kept = self._live(task_id)
                if kept is not None:
                    follower.offer(
                        task_id, next(self._versions), partial(self._decode, task_id, kept.payload)
                    )
            yield follower.records()

    async def forget(self, task_ids: Sequence[str]) -> None:
        for task_id in task_ids:
            self._kept.pop(task_id, None)

    async def ping(self) -> str:
        return f"memory of this process, {counted(len(self._kept), 'result')}"

    async def examine(self) -> Sequence[Finding]:
        return ()

    async def close(self) -> None:
        return None

    def _load(self, task_id: str) -> ResultRecord | None:
        kept = self._live(task_id)
        return None if kept is None else self._decode(task_id, kept.payload)

    def _live(self, task_id: str) -> _Kept | None:
        kept = self._kept.get(task_id)
        return None if kept is None or self._has_expired(kept) else kept

    def _decode(self, task_id: str, payload: bytes) -> ResultRecord:
        return decode(payload, self._codecs, task_id)

    def _has_expired(self, kept: _Kept) -> bool:
        return kept.expires_at is not None and kept.expires_at <= self._clock.now()

    def _drop_expired(self) -> None:
        """Drop from the front: a record that is stored goes to the end, and all live equally long."""
        while self._kept:
            oldest = next(iter(self._kept))
            if not self._has_expired(self._kept[oldest]):
                return
            del self._kept[oldest]


class _Chord(msgspec.Struct):
    touched: float
    size: int | None = None
    joined: set[str] = set()
    parts: dict[tuple[str, int | None], PartValue] = {}
    token: str | None = None
    claimed_until: float = 0.0
    done: bool = False


class _Chords:
    """Chords counted in this process; see ``celeriac.contracts.backend.ChordStore``."""

    def __init__(self, codecs: Codecs, clock: Clock, expires: float | None) -> None:
        self._codecs = codecs
        self._clock = clock
        self._expires = None if expires is None else max(expires, CHORD_KEPT)
        self._kept: dict[str, _Chord] = {}

    def encode(self, part: Part) -> EncodedPart:
        payload = encode_part(part.task_id, part.state, part.value, self._codecs, "json")
        return EncodedPart(part, payload, uuid4().hex)

    async def open(self, openings: Sequence[Opening]) -> None:
        for opening in openings:
            self._chord(opening.chord_id).size = opening.size

    async def extend(self, chord_id: str, task_ids: Sequence[str]) -> None:
        self._chord(chord_id).joined.update(task_ids)

    async def count(self, encoded: EncodedPart) -> Standing:
        part, now = encoded.part, self._clock.now()
        chord = self._chord(part.chord_id)
        if chord.done:
            return Standing()
        value = read_failure(plain(part.value)) if part.state in EXCEPTION_STATES else None
        if value is None:
            value = self._codecs.decode(encoded.payload, SERIALIZERS["json"], None)[3]
        chord.parts.setdefault((part.task_id, part.index), PartValue(part.task_id, part.state, value))
        size = part.size if chord.size is None else chord.size
        if size is None or len(chord.parts) != size + len(chord.joined):
            return Standing()
        if chord.token not in (None, encoded.token) and chord.claimed_until > now:
            return Standing(held_for=chord.claimed_until - now)
        chord.token, chord.claimed_until = encoded.token, now + _CLAIM
        return Standing(claim=Claim(part.chord_id, encoded.token))

    async def collect(self, claim: Claim) -> list[Any]:
        parts = self._chord(claim.chord_id).parts
        # A part without an index comes last, as in Redis.
        ordered = sorted(parts.items(), key=lambda item: inf if item[0][1] is None else item[0][1])
        return [value for _, value in ordered]

    async def renew(self, claim: Claim) -> bool:
        chord, now = self._chord(claim.chord_id), self._clock.now()
        if chord.done or (chord.token != claim.token and chord.claimed_until > now):
            return False
        chord.token, chord.claimed_until = claim.token, now + _CLAIM
        return True

    async def finish(self, claim: Claim) -> None:
        chord = self._chord(claim.chord_id)
        if chord.token == claim.token:
            self._kept[claim.chord_id] = _Chord(self._clock.now(), done=True)

    def _chord(self, chord_id: str) -> _Chord:
        """Return a chord's count, having dropped those that made no progress for too long."""
        now = self._clock.now()
        chord = self._kept.pop(chord_id, None) or _Chord(now)
        chord.touched = now
        self._kept[chord_id] = chord
        while self._expires is not None and (oldest := next(iter(self._kept))) != chord_id:
            if self._kept[oldest].touched > now - self._expires:
                break
            del self._kept[oldest]
        return chord
