"""What follows a task, ``link`` and ``link_error``, whoever calls whom."""

import json

import pytest

from tests.interop.conftest import Pair
from tests.interop.record import Record


@pytest.mark.parametrize("protocol", [1, 2])
async def test_a_link_gets_the_value(pair: Pair, records: Record, protocol: int) -> None:
    link = ("interop.note_value", records.where)
    sent = await pair.client.send("interop.add", [2, 3], queue=pair.queue, link=link, protocol=protocol)
    assert await sent.value() == 5
    assert json.loads(await records.next()) == 5


async def test_a_link_does_not_follow_a_failure(pair: Pair, records: Record) -> None:
    sent = await pair.client.send(
        "interop.fail",
        ["spoiled"],
        queue=pair.queue,
        link=("interop.note_value", records.where),
        link_error=("interop.note_failure", records.where),
    )
    with pytest.raises(ValueError, match="spoiled"):
        await sent.value()
    assert await records.next() == sent.id
    assert records.all() == []


async def test_an_errback_of_three_arguments_is_called_with_the_exception(
    pair: Pair, records: Record
) -> None:
    link_error = ("interop.note_error", records.where)
    sent = await pair.client.send("interop.fail", ["spoiled"], queue=pair.queue, link_error=link_error)
    assert await records.next() == f"{sent.id} ValueError('spoiled')"


async def test_a_link_follows_the_last_attempt_only(pair: Pair, records: Record) -> None:
    link = ("interop.note_value", records.where)
    sent = await pair.client.send("interop.retry_twice", queue=pair.queue, link=link)
    assert await sent.value() == [sent.id, 2]
    assert json.loads(await records.next()) == [sent.id, 2]
    assert records.all() == []
