"""What every store that tells copies apart does, sentence by sentence of its contract."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from celeriac.backend import Backend, Copies
from celeriac.wire.once import Copy


class CopyContract:
    """Subclass it and give it the fixtures of ``BackendContract``: ``backend``, and ``second`` for the same place."""

    pytestmark = pytest.mark.asyncio

    async def test_the_copy_that_is_taken_first_is_the_first_however_often_it_comes(
        self, backend: Backend, second: Backend, key: str
    ) -> None:
        for store in (backend, second, backend):
            assert await _copies(store).is_first(Copy(key, "a", "1"))
            assert not await _copies(store).is_first(Copy(key, "a", "2"))

    async def test_each_message_under_a_key_has_a_first_copy_of_its_own(
        self, backend: Backend, second: Backend, key: str
    ) -> None:
        assert await _copies(backend).is_first(Copy(key, "a", "1"))
        assert await _copies(second).is_first(Copy(key, "b", "2"))
        assert await _copies(second).is_first(Copy(f"{key}.other", "a", "2"))
        assert not await _copies(second).is_first(Copy(key, "a", "2"))

    async def test_of_many_copies_at_once_one_is_the_first(
        self, backend: Backend, second: Backend, key: str
    ) -> None:
        stores = [_copies(backend), _copies(second)]
        answers = await asyncio.gather(
            *[stores[number % 2].is_first(Copy(key, "a", str(number))) for number in range(100)]
        )
        assert sum(answers) == 1

    async def test_what_is_forgotten_is_known_for_a_while_also_when_it_comes_only_then(
        self, backend: Backend, second: Backend, key: str
    ) -> None:
        assert await _copies(backend).is_first(Copy(key, "a", "1"))
        for _ in range(2):
            await _copies(second).forget(key)
        assert await _copies(second).is_first(Copy(key, "b", "2"))
        for name, first in (("a", "1"), ("b", "2")):
            assert await _copies(backend).is_first(Copy(key, name, first))
            assert not await _copies(backend).is_first(Copy(key, name, "3"))

    @pytest.fixture
    def key(self) -> str:
        """Return a key that no other test has."""
        return str(uuid.uuid4())


def _copies(backend: Backend) -> Copies:
    assert backend.copies is not None
    return backend.copies
