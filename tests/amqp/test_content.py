"""Properties and header tables, beside py-amqp, which wrote and will read them."""

import base64
import json
import math
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from amqp.basic_message import Message
from amqp.serialization import dumps, loads
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import EncodeError, MalformedMessage
from celeriac.servers.rabbitmq.protocol.content import (
    Properties,
    body_size,
    read_properties,
    write_properties,
    write_table,
)
from tests.wire.captures import FIXTURES

AMQP_MESSAGES = sorted(FIXTURES.glob("msg.*.amqp.json"))

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary().filter(lambda raw: not _is_text(raw)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=20,
)
tables = st.dictionaries(st.text(max_size=60), values, max_size=8)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _header(table: dict[str, Any]) -> bytes:
    return write_properties(Properties(headers=table), 0)


@given(tables)
def test_a_table_comes_back_as_it_was(table: dict[str, Any]) -> None:
    assert read_properties(_header(table)).headers == table


@given(st.dictionaries(st.text(max_size=60), values.filter(lambda v: not isinstance(v, bytes)), max_size=6))
def test_celery_reads_the_same_table(table: dict[str, Any]) -> None:
    (read,), _ = loads("F", write_table(table, "headers"), 0)
    assert read == table


@pytest.mark.parametrize("path", AMQP_MESSAGES, ids=lambda path: path.name)
def test_captured_properties_are_written_byte_for_byte_as_celery_wrote_them(path: Any) -> None:
    capture = json.loads(path.read_text())
    raws = capture["raw"] if capture.get("multi") else [capture["raw"]]
    for raw in raws:
        known = {name: value for name, value in raw["properties"].items() if name != "timestamp"}
        message = Message(base64.b64decode(raw["body_base64"]), application_headers=raw["headers"], **known)
        if raw["headers"] is None:
            del message.properties["application_headers"]
        theirs = message._serialize_properties()
        ours = write_properties(Properties(headers=raw["headers"], **known), 7)
        assert body_size(ours) == 7
        assert ours[12:] == theirs
        assert read_properties(ours).headers == raw["headers"]


@pytest.mark.parametrize(
    "value", [Decimal("-1.25"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), {"deep": [Decimal(7)]}]
)
def test_decimals_and_times(value: Any) -> None:
    assert read_properties(_header({"it": value})).headers == {"it": value}
    (read,), _ = loads("F", write_table({"it": value}, "headers"), 0)
    assert set(read) == {"it"}


def test_a_table_of_py_amqp_is_read() -> None:
    table = {"a": 1, "b": -(2**40), "c": 0.1, "d": None, "e": [True, "x"], "f": {"g": "h"}}
    raw = dumps("F", [table])
    assert read_properties(_header({})[:12] + b"\x20\x00" + raw).headers == table


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"big": 2**64}, "big"),
        ({"thing": object()}, "thing"),
        ({1: "x"}, "1"),
        ({"x" * 300: 1}, "300"),
        ({"lone": "\ud800"}, "lone"),
        ({"exact": Decimal("1e40")}, "exact"),
    ],
)
def test_what_cannot_be_written_is_named(table: dict[Any, Any], named: str) -> None:
    with pytest.raises(EncodeError, match=named):
        _header(table)


@given(st.binary(max_size=200))
def test_garbage_is_malformed_and_nothing_else(raw: bytes) -> None:
    try:
        read_properties(raw)
    except MalformedMessage:
        return


def test_every_cut_of_a_header_is_malformed_or_shorter() -> None:
    whole = _header({"a": [1, {"b": "text"}], "c": math.pi})
    for end in range(len(whole)):
        try:
            read_properties(whole[:end])
        except MalformedMessage:
            continue
