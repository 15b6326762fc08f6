"""Headers of tasks that are read at once mean what the reader of tables says, whatever the bytes."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from amqp.serialization import dumps, loads
from hypothesis import example, given
from hypothesis import strategies as st

from celeriac.servers.rabbitmq.protocol.content import Properties, read_properties, write_properties
from celeriac.servers.rabbitmq.protocol.task_headers import read_sole_task
from celeriac.wire.content import Codecs
from celeriac.wire.envelope import Envelope
from celeriac.wire.task import TaskMessage, decode, encode
from celeriac.wire.task_headers import SENT_HEADER, TaskHeaders

NEXT = "x\x04taskS\x00\x00\x00\x01y\x02idS\x00\x00\x00\x01z\x06originS\rignore_resultV"
texts = st.text(max_size=30) | st.just(NEXT)


def headers(**changes: Any) -> dict[str, Any]:
    message = TaskMessage(id="1-2", task="add", args=[1], root_id="1-2", origin="here")
    return encode(message, Codecs(), sent=1.5).headers | changes


def as_bytes(table: dict[str, Any]) -> bytes:
    return write_properties(Properties(headers=table), 0)


def read_at_once(table: dict[str, Any]) -> bool:
    written: bytes = dumps("F", [table])
    return at_once(written) is not None


def at_once(written: bytes) -> Mapping[str, Any] | None:
    return read_sole_task(written, 0, len(written), plain)


def plain(written: bytes) -> dict[str, Any]:
    (read,), end = loads("F", written, 0)
    assert end == len(written)
    return dict(read)


def is_plain(text: str) -> bool:
    return all(character >= " " for character in text)


@given(
    task=texts,
    id=texts,
    root_id=texts,
    argsrepr=texts,
    origin=texts,
    ignored=st.sampled_from([None, False, True]),
)
@example(task="t", id="", root_id=NEXT, argsrepr="", origin=NEXT, ignored=True)
def test_the_texts_of_a_task_come_back(
    task: str, id: str, root_id: str, argsrepr: str, origin: str, ignored: bool | None
) -> None:
    table = headers(
        task=task, id=id, root_id=root_id, argsrepr=argsrepr, origin=origin, ignore_result=ignored
    )
    assert read_at_once(table) == all(map(is_plain, (task, id, root_id, argsrepr, origin)))
    read = read_properties(as_bytes(table)).headers
    assert read is not None
    assert read == table
    assert list(read) == list(table)


@pytest.mark.parametrize(
    "changes",
    [
        {"retries": 1},
        {"eta": "2026-01-01T00:00:00+00:00"},
        {"timelimit": [3, None]},
        {"parent_id": "0-1"},
        {"stamps": {"a": "b"}},
        {"lang": 5},
        {"origin": None},
        {"ignore_result": "yes"},
    ],
    ids=str,
)
def test_a_task_with_more_to_it_is_left_to_the_reader_of_tables(changes: dict[str, Any]) -> None:
    table = headers(**changes)
    assert not read_at_once(table)
    assert read_properties(as_bytes(table)).headers == table


def test_further_headers_are_read_and_one_that_comes_twice_counts_as_it_came_last() -> None:
    table = headers(mine=[1, {"deep": None}])
    written = as_bytes(table)
    assert not read_at_once(table)
    assert read_properties(written).headers == table
    twice = written.replace(b"\x04mineA", b"\x04langA")
    assert read_properties(twice).headers == headers(lang=[1, {"deep": None}])


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_broken_byte_is_read_as_py_amqp_reads_it_or_refused(place: int, byte: int) -> None:
    table = headers()
    del table[SENT_HEADER]
    written = bytearray(dumps("F", [table]))
    written[4 + place % (len(written) - 4)] = byte
    raw = bytes(written)
    headers_of = at_once(raw)
    if headers_of is not None:
        read = plain(raw)
        assert dict(headers_of) == read
        for name in (*read, "absent"):
            assert headers_of.get(name) == read.get(name)


def test_no_header_is_taken_from_behind_the_table() -> None:
    written = as_bytes(headers())
    size = int.from_bytes(written[14:18], "big")
    for shorter in range(size):
        cut = written[:14] + shorter.to_bytes(4, "big") + written[18:]
        at_its_end = size - len(b"\x0fx-celeriac-sentd") - 8
        assert (read_sole_task(cut, 14, 18 + shorter, plain) is not None) == (shorter == at_its_end)


@pytest.mark.parametrize(
    "changes", [{}, {"ignore_result": True}, {"origin": "gen1@ü"}, {"id": ""}, {"task": ""}], ids=str
)
def test_a_message_says_the_same_whichever_way_its_headers_were_read(changes: dict[str, Any]) -> None:
    table = headers(**changes)
    read = read_properties(as_bytes(table)).headers
    assert isinstance(read, TaskHeaders)
    plainly, at_once = (
        decode(Envelope(b"[[1], {}, {}]", "application/json", "utf-8", each), Codecs())
        for each in (table, cast("Mapping[str, Any]", read))
    )
    assert plainly == at_once
