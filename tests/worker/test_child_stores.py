"""A child that acknowledges messages stores the results of their tasks, together with the next acknowledgement."""

import os
import pickle
import signal
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from celeriac.contracts.backend import EncodedResult
from celeriac.contracts.server import NotStored
from celeriac.wire.result import ResultRecord
from celeriac.worker.pool import NotBegun
from celeriac.worker.pools.processes import ahead
from celeriac.worker.pools.processes.acknowledging import LARGE, LOST, Acknowledging
from celeriac.worker.pools.processes.ahead import Ahead
from celeriac.worker.pools.processes.frames import CALL, HEAD, Line, unread_end
from celeriac.worker.pools.processes.handle import ChildEnded
from celeriac.worker.pools.processes.launcher import PACKETS
from celeriac.worker.pools.processes.leaving import LEAVE, Leaving, Left
from tests.worker.test_piped import child_and_line


class Delegate:
    """One that notes what it is asked, and answers with what is laid out for it."""

    asked: ClassVar[list[tuple[str, list[bytes]]]] = []
    answers: ClassVar[list[bool | Exception]] = []

    def acknowledge(self, tag: str, results: Sequence[EncodedResult] = ()) -> bool:
        self.asked.append((tag, [result.payload for result in results]))
        answer = self.answers.pop(0) if self.answers else True
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[bytes]]]:
    monkeypatch.setattr(Delegate, "asked", [])
    monkeypatch.setattr(Delegate, "answers", [])
    return Delegate.asked


DELEGATE = pickle.dumps(Delegate())
FIRST, SECOND = (DELEGATE, "first"), (DELEGATE, "second")


def results(size: int = 1) -> list[EncodedResult]:
    return [EncodedResult(ResultRecord(task_id="a", status="SUCCESS"), b"x" * size)]


def test_one_trip_stores_a_result_and_acknowledges_the_next(asked: list[Any]):
    acknowledging = Acknowledging()
    assert acknowledging.refusal(FIRST) is None
    assert acknowledging.store(results(), SECOND)
    assert acknowledging.refusal(SECOND) is None
    assert asked == [("first", []), ("second", [b"x"])]


def test_without_a_next_call_it_is_stored_alone_where_the_child_acknowledged(asked: list[Any]):
    acknowledging = Acknowledging()
    assert not acknowledging.store(results(), None), "no delegate is known"
    assert acknowledging.refusal(FIRST) is None
    assert acknowledging.store(results(), None)
    acknowledging.forget()
    assert not acknowledging.store(results(), None), "the worker has acknowledged it"
    assert asked == [("first", []), ("", [b"x"])]


def test_a_next_message_that_is_lost_does_not_begin(asked: list[Any]):
    acknowledging = Acknowledging()
    Delegate.answers.append(False)
    assert acknowledging.store(results(), SECOND)
    assert acknowledging.refusal(SECOND) == LOST


def test_where_nothing_was_done_the_next_is_acknowledged_by_itself(asked: list[Any]):
    acknowledging = Acknowledging()
    Delegate.answers.append(NotStored("it is full"))
    assert not acknowledging.store(results(), SECOND)
    assert acknowledging.refusal(SECOND) is None
    assert asked == [("second", [b"x"]), ("second", [])]


def test_where_it_is_not_known_what_was_done_the_next_does_not_begin(asked: list[Any]):
    acknowledging = Acknowledging()
    Delegate.answers.append(ConnectionError("it is away"))
    assert not acknowledging.store(results(), SECOND)
    refusal = acknowledging.refusal(SECOND)
    assert refusal is not None
    assert b"it is away" in refusal


def test_another_call_than_the_expected_one_is_acknowledged(asked: list[Any]):
    acknowledging = Acknowledging()
    assert acknowledging.store(results(), SECOND)
    assert acknowledging.refusal(FIRST) is None
    assert asked[-1] == ("first", [])


def test_a_large_result_goes_by_the_worker(asked: list[Any]):
    assert not Acknowledging().store(results(LARGE + 1), SECOND)
    assert asked == []


@pytest.mark.skipif(not PACKETS, reason="this system's pipes have no packets")
def test_a_child_looks_at_the_next_call_without_waiting():
    source, target = os.pipe2(PACKETS)
    unread = unread_end(source)
    line = Line(source, -1, unread)
    assert line.upcoming() is None
    os.write(target, HEAD.pack(CALL, 1) + b"c")
    assert line.upcoming() == line.upcoming() == (CALL, b"c")
    assert line.receive() == (CALL, b"c")
    assert line.upcoming() is None
    os.close(target)
    assert line.upcoming() is None
    assert line.receive() is None
    os.close(source)
    os.close(unread)


@pytest.mark.skipif(not PACKETS, reason="this system's pipes have no packets")
@pytest.mark.parametrize(
    ("has_read", "delegate", "ends"), [(True, FIRST, True), (True, None, False), (False, FIRST, False)]
)
async def test_a_call_that_a_dead_child_may_have_acknowledged_ends_with_it(
    has_read: bool, delegate: tuple[bytes, str] | None, ends: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ahead, "MOST_CHILDREN", 8)
    calls: Any = Ahead(None)
    with child_and_line() as (child, line):
        asked = child.ask(CALL, b"first")
        child.stores = True
        assert line.receive() == (CALL, b"first")
        placed = calls.place(SimpleNamespace(delegate=delegate), b"second", [child])
        if has_read:
            assert line.receive() == (CALL, b"second")
        child.close(ChildEnded("ended"))
        with pytest.raises(ChildEnded):
            await asked
        assert (calls.lose(child) is placed) is ends
        with pytest.raises(ChildEnded if ends else NotBegun):
            await (placed.answer if ends else placed.began)
        calls.close()


def test_what_is_put_off_happens_at_the_end():
    before = signal.getsignal(LEAVE)
    try:
        done: list[bool] = []
        with pytest.raises(Left):
            leave_meanwhile(Leaving(), done)
        assert done
    finally:
        signal.signal(LEAVE, before)


def leave_meanwhile(leaving: Leaving, done: list[bool]) -> None:
    with leaving.put_off():
        signal.raise_signal(LEAVE)
        done.append(True)
