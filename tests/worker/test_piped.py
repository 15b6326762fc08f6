"""Calls in a child's pipe: which go there, which are taken back, and how the answers come, with no process behind."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from celeriac.worker.pool import NotBegun
from celeriac.worker.pools.processes import ahead, frames, handle
from celeriac.worker.pools.processes.ahead import Ahead
from celeriac.worker.pools.processes.frames import CALL, HEAD, QUIET, RESUME, VALUE, Line, unread_end
from celeriac.worker.pools.processes.handle import Handle
from celeriac.worker.pools.processes.launcher import PACKETS
from celeriac.worker.pools.processes.piped import Piped, Placed
from tests.worker.ahead_times import LONG, WAIT, until

pytestmark = pytest.mark.skipif(not PACKETS, reason="this system's pipes have no packets")


@pytest.fixture(autouse=True)
def many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let calls go ahead however few processors this machine has."""
    monkeypatch.setattr(ahead, "MOST_CHILDREN", 8)


@contextmanager
def child_and_line() -> Iterator[tuple[Handle, Line]]:
    """A child as its worker sees it, and what the child would read from."""
    source, target = os.pipe2(PACKETS)
    (answers, answering), (quiet, quietly) = os.pipe(), os.pipe()
    unread = unread_end(source)
    child = Handle(1, target, (answers, quiet), unread, lambda _: None)
    try:
        yield child, Line(source, answering, unread_end(source), quietly)
    finally:
        os.close(answering)
        os.close(quietly)
        child.close(Exception())
        os.close(source)


async def test_a_call_whose_predecessor_is_unread_is_not_taken_back():
    with child_and_line() as (child, line):
        asked = child.ask(CALL, b"first")
        second = child.place(b"second")
        assert not child.take_back()
        assert not child.runs_next()
        assert line.receive() == (CALL, b"first")
        assert child.take_back() is second is not None
        assert child.place(b"third") is not None
        assert line.receive() == (CALL, b"third")
        assert not child.take_back()
        assert child.runs_next()
        asked.cancel()


async def test_the_first_call_that_is_not_read_is_taken_back():
    with child_and_line() as (child, line):
        asked = child.ask(CALL, b"0")
        ahead = [child.place(b"%d" % number) for number in range(1, 5)]
        assert [line.receive(), line.receive()] == [(CALL, b"0"), (CALL, b"1")]
        assert child.take_back() is ahead[1]
        assert child.runs_next()
        assert line.receive() == (CALL, b"3")
        assert [child.take_back(), child.take_back()] == [ahead[3], None]
        asked.cancel()


async def answers_of(child: Handle, line: Line, quietly: Sequence[bool]) -> list[asyncio.Future[Any]]:
    """Return the futures of calls whose answers the child has written, each with another one ahead but the last."""
    asked: list[Any] = [child.ask(CALL, b"0", partial(goes_on, child))]
    asked += [child.place(b"%d" % number, quietly=quiet) for number, quiet in enumerate(quietly, 1)]
    for number in range(len(asked)):
        assert line.receive() is not None
        line.answer(VALUE, b"of %d" % number)
    await asyncio.sleep(0.05)
    return asked


def goes_on(child: Handle, kind: int, seconds: float) -> None:
    with suppress(IndexError):  # it was the last
        child.go_on(partial(goes_on, child))


async def test_an_answer_wakes_nobody_where_the_next_call_is_there():
    with child_and_line() as (child, line):
        asked = await answers_of(child, line, [True])
        assert [await one for one in asked] == [(VALUE, b"of 0"), (VALUE, b"of 1")]
    with child_and_line() as (child, line):
        asked = [child.ask(CALL, b"0", partial(goes_on, child))]
        asked += [child.place(b"%d" % number, quietly=True) for number in (1, 2)]
        for number in range(2):
            assert line.receive() is not None
            line.answer(VALUE, b"of %d" % number)
        await asyncio.sleep(0.05)
        assert [one.done() for one in asked] == [True, False, False], "the first was not to be quiet"
        child.look()
        assert await asked[1] == (VALUE, b"of 1")
        assert line.receive() == (QUIET, b"2")
        line.answer(VALUE, b"of 2")
        assert await asked[2] == (VALUE, b"of 2"), "no call was behind it"


async def test_answers_are_read_in_the_order_in_which_they_were_written():
    with child_and_line() as (child, line):
        asked = await answers_of(child, line, [True, False, True, True, False, True])
        assert [await one for one in asked] == [(VALUE, b"of %d" % number) for number in range(7)]


async def test_the_numbers_of_answers_begin_anew(monkeypatch: pytest.MonkeyPatch):
    for module in (frames, handle):
        monkeypatch.setattr(module, "NUMBERS", 3)
    with child_and_line() as (child, line):
        for number in range(10):
            asked = child.ask(CALL, b"")
            assert line.receive() is not None
            line.answer(VALUE, b"of %d" % number)
            assert await asked == (VALUE, b"of %d" % number)


async def test_a_child_tells_how_long_a_call_took():
    told: list[float] = []
    with child_and_line() as (child, line):
        asked = child.ask(CALL, b"0", lambda kind, seconds: told.append(seconds))
        assert line.receive() is not None
        await asyncio.sleep(0.05)
        line.answer(VALUE, b"")
        await asked
    assert 0.05 <= told[0] < WAIT


@pytest.mark.parametrize(
    ("seconds", "delegates", "depth"),
    [(0.0, False, ahead.MOST), (0.00099, False, 12), (0.0029, False, 4), (0.015, False, 1), (0.0, True, 2)],
)
async def test_some_milliseconds_of_calls_are_ahead(
    seconds: float, delegates: bool, depth: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ahead, "SHORT", LONG)
    calls: Any = Ahead(None)
    call = SimpleNamespace(delegate=(b"", "") if delegates else None, placed=None)
    with child_and_line() as (child, line):
        for _ in range(1000):
            calls.note(child, call, seconds, recorded=False)
        asked = child.ask(CALL, b"first")
        child.stores = True
        assert line.receive() is not None
        placed = [calls.place(call, b"%d" % number, [child]) for number in range(20)]
        assert sum(one.child is child for one in placed) == depth
        assert calls.places(2, 2) == 2 * (depth + 1)
        calls.recall()
        for one in placed:
            with pytest.raises(NotBegun):
                await one.began
        calls.close()
        asked.cancel()


async def test_a_call_goes_to_the_child_of_which_the_fewest_are_ahead(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ahead, "SHORT", LONG)
    calls: Any = Ahead(None)
    calls._mean = 0.001
    call = SimpleNamespace(delegate=None, placed=None)
    with child_and_line() as (first, _), child_and_line() as (second, line):
        asked = [child.ask(CALL, b"first") for child in (first, second)]
        placed = [calls.place(call, b"%d" % number, [first, second]) for number in range(4)]
        assert [one.child for one in placed] == [first, second, first, second]
        assert line.receive() is not None
        assert calls.steal() is None, "the first child has read nothing"
        assert calls.drop(second)
        assert [one.began.done() for one in placed] == [False, True, False, True]
        calls.recall()
        calls.close()
        for one in (*asked, *placed):
            (one.began if isinstance(one, Placed) else one).cancel()


async def test_a_child_that_may_get_no_call_keeps_none_from_another(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ahead, "SHORT", LONG)
    calls: Any = Ahead(None)
    call = SimpleNamespace(delegate=(b"", ""), placed=None)
    with child_and_line() as (first, _), child_and_line() as (second, _):
        asked = [child.ask(CALL, b"first") for child in (first, second)]
        first.unrecorded = ahead.MOST_UNRECORDED + 1
        placed = calls.place(call, b"", [first, second])
        assert placed.child is second
        calls.close()
        for one in (*asked, placed.began):
            one.cancel()


@pytest.mark.parametrize(
    ("stores", "unrecorded", "depth"),
    [(True, 0, 2), (True, 1, 1), (True, 2, 0), (False, 0, 1), (False, 1, 0)],
)
async def test_no_more_are_acknowledged_there_than_may_be_on_their_way_to_the_record(
    stores: bool, unrecorded: int, depth: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ahead, "SHORT", LONG)
    calls: Any = Ahead(None)
    calls._mean = 0.0001
    call = SimpleNamespace(delegate=(b"", ""), placed=None)
    with child_and_line() as (child, _):
        asked = child.ask(CALL, b"first")
        child.stores, child.unrecorded = stores, unrecorded
        placed = [calls.place(call, b"%d" % number, [child]) for number in range(3)]
        assert sum(one.child is child for one in placed) == depth
        calls.close()
        for one in (asked, *(one.began for one in placed)):
            one.cancel()


async def test_the_worker_looks_for_answers_only_where_one_may_wake_nobody():
    calls, call = Piped(), SimpleNamespace(delegate=None)
    waiting = partial(Placed, cast(Any, call), loop=asyncio.get_running_loop())
    with child_and_line() as (child, line):

        def begin(kind: int, seconds: float) -> None:
            if calls.begin(child) is not None:
                child.go_on(begin)

        first = child.ask(CALL, b"0", begin)
        assert line.receive() is not None
        assert calls.send(waiting(b"1"), child, quietly=False)
        assert calls._look is None
        assert calls.send(second := waiting(b"2"), child, quietly=True)
        for _ in range(2):
            line.answer(VALUE, b"")
            assert line.receive() is not None
        await first
        await until(lambda: not calls.count(child) and calls._look is None)
        assert child.is_quiet
        assert calls.send(waiting(b"3"), child, quietly=False)
        line.answer(VALUE, b"of 2")
        assert second.answer is not None
        assert await asyncio.wait_for(second.answer, WAIT) == (VALUE, b"of 2")
        calls.close()


@pytest.mark.parametrize("is_read", [True, False])
async def test_once_a_call_waits_for_a_word_none_goes_ahead_and_the_one_there_is_keeps_its_place(
    is_read: bool,
):
    calls: Any = Ahead(None)
    calls._short = ahead.SHORT_CALLS
    with child_and_line() as (child, line):
        asked = child.ask(CALL, b"first")
        assert line.receive() == (CALL, b"first")
        placed = calls.place(SimpleNamespace(delegate=None), b"second", [child])
        assert placed.child is child
        if is_read:
            assert line.receive() == (CALL, b"second")
        calls.end(child)
        assert calls.places(1, 1) == 0
        if is_read:
            assert not child.take_back()
            assert not child.runs_next(), "a kill now is one of the first call"
            assert calls.begin(child) is placed
        else:
            with pytest.raises(NotBegun):
                await placed.began
            assert calls.begin(child) is None
        calls.close()
        asked.cancel()


def test_a_call_that_comes_before_the_awaited_word_is_the_next_one():
    source, target = os.pipe()
    line = Line(source, -1)
    os.write(target, HEAD.pack(CALL, 1) + b"c" + HEAD.pack(RESUME, 0))
    assert line.receive_word() == (RESUME, b"")
    assert line.receive() == (CALL, b"c")
    os.close(target)
    assert line.receive() is None
    os.close(source)
