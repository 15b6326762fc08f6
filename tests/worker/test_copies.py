"""Copies of a message are told apart by marks on a board."""

from celeriac.servers.memory.board import MemoryBoard
from celeriac.testing.clock import ManualClock
from celeriac.wire.once import ONCE, ONCE_SETTLED, Copy
from celeriac.worker.copies import Copies


async def test_the_copy_that_is_taken_first_is_the_first_however_often_it_comes():
    copies = Copies(MemoryBoard(ManualClock()).marks)
    for _ in range(2):
        assert await copies.is_first(Copy("key", "a", "1"))
        assert not await copies.is_first(Copy("key", "a", "2"))
    assert await copies.is_first(Copy("key", "b", "2"))
    assert await copies.is_first(Copy("another", "a", "2"))


async def test_what_is_forgotten_is_known_for_a_while_also_when_it_comes_only_then():
    clock = ManualClock()
    copies = Copies(MemoryBoard(clock).marks)
    assert await copies.is_first(Copy("key", "a", "1"))
    for _ in range(2):
        await copies.forget("key")
    assert await copies.is_first(Copy("key", "b", "2"))
    clock.advance(ONCE_SETTLED - 1)
    for name, first in (("a", "1"), ("b", "2")):
        assert await copies.is_first(Copy("key", name, first))
        assert not await copies.is_first(Copy("key", name, "3"))
    clock.advance(2)
    assert await copies.is_first(Copy("key", "a", "3"))


async def test_what_is_not_forgotten_ends_after_a_day():
    clock = ManualClock()
    copies = Copies(MemoryBoard(clock).marks)
    assert await copies.is_first(Copy("key", "a", "1"))
    clock.advance(ONCE - 1)
    assert not await copies.is_first(Copy("key", "a", "2"))
    clock.advance(2)
    assert await copies.is_first(Copy("key", "a", "2"))
