"""What must hold whoever calls whom: arguments, values, failures, names of queues, headers."""

from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from uuid import UUID

import pytest

from tests.interop.conftest import Pair
from tests.interop.errors import OutOfStock
from tests.interop.record import Record
from tests.servers import RedisServer


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        pytest.param([1, 2.5, True, None], None, id="args"),
        pytest.param(None, {"a": 1, "b": [{"c": None}]}, id="kwargs"),
        pytest.param([1, "two"], {"three": 3}, id="both"),
        pytest.param(None, None, id="none"),
        pytest.param(["Ünïcödé", "日本語", "🥕", "\x00\x06\x16", '"\\'], {"ключ": "значение"}, id="unicode"),
        pytest.param(["carrot " * 150_000], None, id="one-megabyte"),
        pytest.param([{"__type__": 1}, {"nested": {"list": [[], {}]}}], None, id="nested"),
    ],
)
@pytest.mark.parametrize("protocol", [1, 2])
async def test_arguments_arrive_as_they_were_sent(
    pair: Pair, protocol: int, args: list[object] | None, kwargs: dict[str, object] | None
) -> None:
    sent = await pair.client.send("interop.echo", args, kwargs, queue=pair.queue, protocol=protocol)
    assert await sent.value() == [args or [], kwargs or {}]


@pytest.mark.parametrize("moment_zone", [UTC, timezone(timedelta(hours=5, minutes=30))])
async def test_moments_amounts_and_uuids_keep_their_type_both_ways(pair: Pair, moment_zone: timezone) -> None:
    arguments = {
        "moment": datetime(2024, 2, 29, 23, 59, 59, 123456, moment_zone),
        "amount": Decimal("19.990"),
        "uid": UUID("12345678-1234-5678-9234-567812345678"),
    }
    sent = await pair.client.send("interop.kinds", kwargs=arguments, queue=pair.queue)
    value = await sent.value()
    assert value == arguments
    assert {name: type(part) for name, part in value.items()} == {
        "moment": datetime,
        "amount": Decimal,
        "uid": UUID,
    }
    assert str(value["amount"]) == "19.990"


async def test_a_date_and_bytes_keep_their_type_both_ways(pair: Pair) -> None:
    arguments = [date(2024, 2, 29), b"text", b"\xff\x00"]
    sent = await pair.client.send("interop.echo", arguments, queue=pair.queue)
    assert await sent.value() == [arguments, {}]


async def test_none_is_a_value(pair: Pair) -> None:
    sent = await pair.client.send("interop.none", queue=pair.queue)
    assert await sent.value() is None
    assert await sent.state() == "SUCCESS"


async def test_an_exception_of_the_language_is_raised_again(pair: Pair) -> None:
    sent = await pair.client.send("interop.fail", ["no such carrot: 🥕"], queue=pair.queue)
    with pytest.raises(ValueError, match="no such carrot") as raised:
        await sent.value()
    assert raised.value.args == ("no such carrot: 🥕",)
    assert await sent.state() == "FAILURE"


async def test_an_exception_class_of_the_application_is_raised_again(pair: Pair) -> None:
    sent = await pair.client.send("interop.run_out", ["carrot", 3], queue=pair.queue)
    with pytest.raises(OutOfStock) as raised:
        await sent.value()
    assert (raised.value.item, raised.value.wanted) == ("carrot", 3)


async def test_a_wrong_call_is_a_failure_that_the_caller_sees(pair: Pair) -> None:
    sent = await pair.client.send("interop.add", [1], queue=pair.queue)
    with pytest.raises(TypeError, match="y"):
        await sent.value()


@pytest.mark.parametrize("protocol", [1, 2])
async def test_a_retried_task_keeps_its_id_and_counts(pair: Pair, protocol: int) -> None:
    sent = await pair.client.send("interop.retry_twice", queue=pair.queue, protocol=protocol)
    assert await sent.value() == [sent.id, 2]


async def test_a_task_that_gives_up_raises_its_last_reason(pair: Pair, records: Record) -> None:
    sent = await pair.client.send("interop.give_up", kwargs=records.where, queue=pair.queue)
    with pytest.raises(OutOfStock) as raised:
        await sent.value()
    assert raised.value.wanted == 1
    assert records.all() == ["0", "1"]


async def test_id_queue_and_headers_are_seen_inside_the_task(pair: Pair) -> None:
    sent = await pair.client.send("interop.seen", queue=pair.queue, headers={"tenant": "blue"})
    seen = await sent.value()
    assert seen["id"] == sent.id
    assert seen["root_id"] == sent.id
    assert seen["parent_id"] is None
    assert seen["queue"] == pair.queue
    seen["headers"].pop("x-celeriac-sent", None)
    assert seen["headers"] == {"tenant": "blue"}


async def test_the_caller_may_choose_the_id(pair: Pair, queue: str) -> None:
    sent = await pair.client.send("interop.seen", queue=pair.queue, task_id=queue)
    assert sent.id == queue
    assert (await sent.value())["id"] == queue


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "lzma"])
async def test_a_compressed_body_is_read(pair: Pair, compression: str) -> None:
    sent = await pair.client.send(
        "interop.echo", ["carrot" * 1000], queue=pair.queue, compression=compression
    )
    assert await sent.value() == [["carrot" * 1000], {}]


async def test_an_ignored_result_is_not_stored(
    pair: Pair, records: Record, redis_server: RedisServer
) -> None:
    ignored = await pair.client.send(
        "interop.note", kwargs={**records.where, "value": "ran"}, queue=pair.queue, ignore_result=True
    )
    assert await records.next() == "ran"
    for _ in range(10):  # whatever the worker would still store of that run is stored before these
        kept = await pair.client.send("interop.none", queue=pair.queue)
        await kept.value()
    with closing(redis_server.client(1)) as client:
        assert client.exists(f"celery-task-meta-{kept.id}") == 1
        assert client.exists(f"celery-task-meta-{ignored.id}") == 0


async def test_progress_is_seen_while_the_task_runs(pair: Pair, records: Record) -> None:
    def go_on_when_seen(state: str, meta: object) -> None:
        if state == "PROGRESS":
            seen.append(meta)
            records.add("go on")

    seen: list[object] = []
    sent = await pair.client.send("interop.report", kwargs=records.where, queue=pair.queue)
    assert await sent.watch(go_on_when_seen) == "done"
    assert seen == [{"current": 1, "total": 2, "message": None}]
