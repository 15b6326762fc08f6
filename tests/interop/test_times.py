"""Countdown, ETA, expiry and priority, whoever calls whom."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from celery.exceptions import TaskRevokedError

from celeriac.errors import TaskRevoked
from tests.interop.conftest import Pair
from tests.interop.record import Record


async def test_a_countdown_is_waited_for(pair: Pair) -> None:
    sent_at = time.time()
    sent = await pair.client.send("interop.clock", queue=pair.queue, countdown=0.5)
    assert await sent.value() >= sent_at + 0.5


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-7))])
async def test_an_eta_is_waited_for_in_any_zone(pair: Pair, zone: timezone) -> None:
    due = datetime.now(zone) + timedelta(seconds=0.5)
    sent = await pair.client.send("interop.clock", queue=pair.queue, eta=due)
    assert await sent.value() >= due.timestamp()


async def test_a_task_that_expired_before_it_ran_is_revoked(pair: Pair, records: Record) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    sent = await pair.client.send(
        "interop.note", kwargs={**records.where, "value": "ran"}, queue=pair.queue, expires=past
    )
    with pytest.raises((TaskRevoked, TaskRevokedError), match="expired"):
        await sent.value()
    assert await sent.state() == "REVOKED"
    assert records.all() == []


async def test_a_task_runs_before_it_expires(pair: Pair) -> None:
    sent = await pair.client.send("interop.add", [2, 3], queue=pair.queue, expires=60)
    assert await sent.value() == 5


async def test_lower_numbers_run_first_on_redis(
    pair: Pair, records: Record, unique: Callable[[str], str]
) -> None:
    queue, priorities = unique("urgent"), (9, 3, 0) * 4
    sent = [
        await pair.client.send(
            "interop.note", kwargs={**records.where, "value": str(place)}, queue=queue, priority=priority
        )
        for place, priority in enumerate(priorities)
    ]
    async with pair.serving(queue):
        taken = await pair.order(sent, records)
    assert taken == sorted(range(12), key=lambda place: priorities[place])


async def test_a_queue_is_first_in_first_out(
    pair: Pair, records: Record, unique: Callable[[str], str]
) -> None:
    queue = unique("line")
    sent = [
        await pair.client.send("interop.note", kwargs={**records.where, "value": str(place)}, queue=queue)
        for place in range(10)
    ]
    async with pair.serving(queue):
        assert await pair.order(sent, records) == [*range(10)]


async def test_a_queue_of_its_own_is_served_alone(pair: Pair, unique: Callable[[str], str]) -> None:
    queue, other = unique("own"), unique("other")
    waiting = await pair.client.send("interop.seen", queue=other)
    async with pair.serving(queue):
        served = await pair.client.send("interop.seen", queue=queue)
        assert (await served.value())["queue"] == queue
    assert await waiting.state() == "PENDING"
