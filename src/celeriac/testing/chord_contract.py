"""The suite that every store of chords passes: a test for each sentence of its contract."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from celeriac.canvas.advance import Part
from celeriac.canvas.launch import Opening
from celeriac.contracts.backend import Backend, ChordStore, Claim, PartValue
from celeriac.errors import EncodeError
from celeriac.wire.failure import Failure
from celeriac.wire.result import FAILURE, SUCCESS


class ChordContract:
    """Subclass it and give it the fixtures of ``BackendContract``: ``backend``, and ``second`` for the same place."""

    pytestmark = pytest.mark.asyncio

    async def test_the_last_part_gets_the_claim_and_the_values_in_the_order_of_the_header(
        self, backend: Backend, second: Backend, chord_id: str
    ) -> None:
        first, other = _chords(backend), _chords(second)
        await first.open([Opening(chord_id, 3)])
        assert await _count(first, _part(chord_id, 2, "c")) is None
        assert await _count(other, _part(chord_id, 0, {"a": None})) is None
        claim = await _count(first, _part(chord_id, 1, [1]))
        assert claim is not None
        assert await first.collect(claim) == [
            PartValue(f"{chord_id}.0", SUCCESS, {"a": None}),
            PartValue(f"{chord_id}.1", SUCCESS, [1]),
            PartValue(f"{chord_id}.2", SUCCESS, "c"),
        ]

    async def test_a_part_counts_once(self, backend: Backend, second: Backend, chord_id: str) -> None:
        await _chords(backend).open([Opening(chord_id, 2)])
        for store in (backend, second, backend):
            assert await _count(_chords(store), _part(chord_id, 0, "first")) is None
        claim = await _count(_chords(second), _part(chord_id, 1, "x"))
        assert claim is not None
        assert [part.value for part in await _chords(backend).collect(claim)] == ["first", "x"]

    async def test_one_claim_of_many_at_once(self, backend: Backend, second: Backend, chord_id: str) -> None:
        stores = [_chords(backend), _chords(second)]
        await stores[0].open([Opening(chord_id, 500)])
        parts = [_part(chord_id, index, index) for index in range(500)]
        claims = await asyncio.gather(
            *[_count(stores[number % 2], part) for number, part in enumerate(parts)]
        )
        [claim] = [claim for claim in claims if claim is not None]
        assert [part.value for part in await stores[0].collect(claim)] == list(range(500))

    async def test_a_repeated_last_part_is_told_that_the_claim_is_held(
        self, backend: Backend, second: Backend, chord_id: str
    ) -> None:
        await _chords(backend).open([Opening(chord_id, 1)])
        assert await _count(_chords(backend), _part(chord_id, 0, 1)) is not None
        standing = await _chords(second).count(_chords(second).encode(_part(chord_id, 0, 1)))
        assert standing.claim is None
        assert standing.held_for is not None
        assert 0 < standing.held_for <= 60

    async def test_the_same_call_made_again_gets_the_same_claim(
        self, backend: Backend, chord_id: str
    ) -> None:
        chords = _chords(backend)
        await chords.open([Opening(chord_id, 1)])
        encoded = chords.encode(_part(chord_id, 0, 1))
        first, again = await chords.count(encoded), await chords.count(encoded)
        assert first.claim is not None
        assert first == again

    async def test_a_claim_is_renewed_by_its_holder_only(self, backend: Backend, chord_id: str) -> None:
        chords = _chords(backend)
        await chords.open([Opening(chord_id, 1)])
        claim = await _count(chords, _part(chord_id, 0, 1))
        assert claim is not None
        assert await chords.renew(claim)
        assert not await chords.renew(Claim(chord_id, "somebody else's"))

    async def test_after_the_end_nothing_changes(
        self, backend: Backend, second: Backend, chord_id: str
    ) -> None:
        chords = _chords(backend)
        await chords.open([Opening(chord_id, 1)])
        claim = await _count(chords, _part(chord_id, 0, 1))
        assert claim is not None
        await chords.finish(claim)
        await chords.finish(claim)
        for store in (backend, second):
            await _chords(store).open([Opening(chord_id, 1)])
            standing = await _chords(store).count(_chords(store).encode(_part(chord_id, 0, 1)))
            assert (standing.claim, standing.held_for) == (None, None)
        assert not await chords.renew(claim)

    async def test_who_joins_is_waited_for_once_each(
        self, backend: Backend, second: Backend, chord_id: str
    ) -> None:
        await _chords(backend).open([Opening(chord_id, 1)])
        for store in (backend, second):
            await _chords(store).extend(chord_id, ["late", "later"])
        assert await _count(_chords(backend), _part(chord_id, 0, 0)) is None
        assert await _count(_chords(backend), _part(chord_id, 0, 1, "late")) is None
        assert await _count(_chords(second), _part(chord_id, 0, 2, "later")) is not None

    async def test_a_failure_comes_back_as_one(self, backend: Backend, chord_id: str) -> None:
        chords, failure = _chords(backend), Failure("ValueError", ["spoiled"], "builtins")
        await chords.open([Opening(chord_id, 1)])
        claim = await _count(chords, _part(chord_id, 0, failure, state=FAILURE))
        assert claim is not None
        assert await chords.collect(claim) == [PartValue(f"{chord_id}.0", FAILURE, failure)]

    async def test_parts_without_a_place_come_last(self, backend: Backend, chord_id: str) -> None:
        chords = _chords(backend)
        await chords.open([Opening(chord_id, 2)])
        assert await _count(chords, _part(chord_id, None, "last")) is None
        claim = await _count(chords, _part(chord_id, 7, "first"))
        assert claim is not None
        assert [part.value for part in await chords.collect(claim)] == ["first", "last"]

    async def test_chords_do_not_mix(self, backend: Backend, chord_id: str) -> None:
        chords = _chords(backend)
        await chords.open([Opening(f"{chord_id}.a", 1), Opening(f"{chord_id}.b", 2)])
        a, b = await asyncio.gather(
            _count(chords, _part(f"{chord_id}.a", 0, 1)), _count(chords, _part(f"{chord_id}.b", 0, 1))
        )
        assert a is not None
        assert b is None

    async def test_a_value_that_cannot_be_written_is_said_before_it_counts(
        self, backend: Backend, chord_id: str
    ) -> None:
        with pytest.raises(EncodeError):
            _chords(backend).encode(_part(chord_id, 0, object()))

    @pytest.fixture
    def chord_id(self) -> str:
        """Return an id that no other test has."""
        return str(uuid.uuid4())


def _chords(backend: Backend) -> ChordStore:
    assert backend.chords is not None
    return backend.chords


def _part(
    chord_id: str, index: int | None, value: Any, task_id: str | None = None, *, state: str = SUCCESS
) -> Part:
    name = task_id or f"{chord_id}.{index}"
    return Part(chord_id, name, index, state, value, {"task": "body"}, root_id="root")


async def _count(chords: ChordStore, part: Part) -> Claim | None:
    return (await chords.count(chords.encode(part))).claim
