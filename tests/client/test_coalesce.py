"""Concurrent calls share round trips."""

import asyncio
from collections.abc import Sequence

import pytest

from celeriac.servers.coalesce import CROWD, Coalescer, by_size


class Trips:
    """A service whose round trips are ended by hand."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.answered = asyncio.Event()

    async def flush(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await self.answered.wait()
        return list(items)


async def test_what_queues_up_during_a_trip_goes_in_the_next():
    trips = Trips()
    call = Coalescer(trips.flush, 100)
    first = call(1)
    await asyncio.sleep(0)
    others = [call(number) for number in (2, 3)]
    trips.answered.set()
    assert await asyncio.gather(first, *others) == [1, 2, 3]
    assert trips.batches == [[1], [2, 3]]


async def test_a_trip_lingers_for_others_where_some_queued_up_and_a_lone_call_does_not():
    trips = Trips()
    call = Coalescer(trips.flush, 100, linger=1.0)
    first = call(1)
    await asyncio.sleep(0)
    second = call(2)
    trips.answered.set()
    assert await first == 1
    third = call(3)
    assert await asyncio.gather(second, third) == [2, 3]
    assert trips.batches == [[1], [2, 3]]
    began = asyncio.get_running_loop().time()
    assert await call(4) == 4
    assert asyncio.get_running_loop().time() - began < 1.0


async def test_a_crowd_does_not_linger():
    trips = Trips()
    call = Coalescer(trips.flush, 100, linger=3600)
    first = call(0)
    await asyncio.sleep(0)
    crowd = [call(number) for number in range(CROWD)]
    trips.answered.set()
    assert await asyncio.gather(first, *crowd) == [0, *range(CROWD)]


async def test_while_its_callers_are_behind_a_lone_item_waits_for_the_last_that_comes():
    trips, behind = Trips(), [True]
    trips.answered.set()
    call = Coalescer(trips.flush, 100, is_behind=lambda: bool(behind), patience=3600)
    items = [call(1), call(2)]
    for _ in range(10):
        await asyncio.sleep(0)
    assert trips.batches == []
    behind.clear()
    items.append(call(3))
    assert await asyncio.gather(*items) == [1, 2, 3]
    assert trips.batches == [[1, 2, 3]]


async def test_an_item_in_a_hurry_takes_along_those_that_wait():
    trips = Trips()
    trips.answered.set()
    call = Coalescer(trips.flush, 100, is_behind=lambda: True, patience=3600)
    waits = call(1)
    await asyncio.sleep(0)
    assert trips.batches == []
    assert await asyncio.gather(waits, call(2, hurry=True)) == [1, 2]
    assert trips.batches == [[1, 2]]
    assert await call(3, hurry=True) == 3


@pytest.mark.parametrize("size", [CROWD, 50])
async def test_while_its_callers_are_behind_a_crowd_does_not_wait(size: int):
    trips = Trips()
    trips.answered.set()
    call = Coalescer(trips.flush, 100, is_behind=lambda: True, patience=3600, crowd=size)
    crowd = []
    for number in range(size):
        assert trips.batches == []
        crowd.append(call(number))
        await asyncio.sleep(0)
    assert await asyncio.gather(*crowd) == [*range(size)]


async def test_while_its_callers_are_behind_a_lone_item_does_not_wait_for_ever():
    trips = Trips()
    trips.answered.set()
    assert await Coalescer(trips.flush, 100, is_behind=lambda: True, patience=0.01)(1) == 1


def test_batches_end_before_they_are_too_large_or_too_many_and_have_one_item_at_least():
    sizes = [5, 5, 1, 20, 3, 3, 3]
    assert list(by_size(sizes, int, 10)) == [[5, 5], [1], [20], [3, 3, 3]]
    assert list(by_size(sizes, int, 10, count=2)) == [[5, 5], [1], [20], [3, 3], [3]]
    assert list(by_size([], int, 10)) == []


async def test_who_comes_alone_again_flushes_itself_and_others_follow_it():
    trips = Trips()
    call = Coalescer(trips.flush, 100)
    trips.answered.set()
    assert await call.lead(1) == 1
    trips.answered.clear()
    leader = asyncio.create_task(call.lead(2))
    await asyncio.sleep(0)
    assert trips.batches == [[1], [2]]
    others = [asyncio.ensure_future(call.lead(3)), asyncio.ensure_future(call.lead(4)), call(5)]
    drained = asyncio.create_task(call.drain())
    await asyncio.sleep(0)
    trips.answered.set()
    assert await asyncio.gather(leader, *others) == [2, 3, 4, 5]
    await drained
    assert trips.batches[2:] == [[5, 3, 4]]


async def test_a_leader_that_is_cancelled_leaves_the_others_their_flush():
    trips = Trips()
    call = Coalescer(trips.flush, 100)
    trips.answered.set()
    await call.lead(1)
    trips.answered.clear()
    leader = asyncio.create_task(call.lead(2))
    await asyncio.sleep(0)
    other = call(3)
    leader.cancel()
    trips.answered.set()
    assert await other == 3
    assert leader.cancelled()


async def test_a_leader_is_told_the_error_of_its_own_item():
    async def refuse(items: Sequence[int]) -> list[int | BaseException]:
        return [item if item < 2 else KeyError(item) for item in items]

    call = Coalescer(refuse, 100)
    assert await call.lead(1) == 1
    with pytest.raises(KeyError):
        await call.lead(2)
    assert await call.lead(1) == 1
