"""JSON with Celery's additional types."""

import dataclasses
import json
import math
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import kombu.utils.json
import msgspec
import pydantic
import pytest

from celeriac.errors import EncodeError, MalformedMessage
from celeriac.wire.extended_json import decode_json, encode_json


class Colour(Enum):
    RED = "r"


class Level(IntEnum):
    HIGH = 9


class Mode(StrEnum):
    FAST = "fast"


class Pair(NamedTuple):
    a: int
    b: int


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


class Order(msgspec.Struct, rename="camel", tag="order"):
    unit_price: Decimal
    tags: set[str]


class Model(pydantic.BaseModel):
    n: int
    on: date


class Reducible:
    def __json__(self) -> dict[str, int]:
        return {"reduced": 1}


MOMENT = datetime(2020, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=5, minutes=30)))

KEPT = [
    None,
    True,
    False,
    0,
    -(2**63),
    2**64,
    -(2**200),
    1.5,
    1e300,
    math.inf,
    -math.inf,
    "",
    "héllo ☃ \x00 \U0001f600",
    "\ud800 lone",
    [],
    {},
    [1, [2, {"a": [None]}]],
    {"": 1, "__type__": "datetime"},
    {"__type__": 1, "__value__": 2, "more": 3},
    MOMENT,
    MOMENT.replace(tzinfo=None),
    MOMENT.astimezone(UTC),
    date(2020, 2, 29),
    time(3, 4, 5, 6),
    Decimal("1.10"),
    Decimal("Infinity"),
    UUID(int=5),
    b"text",
    b"\xff\x00",
    {"nested": [MOMENT, {"id": UUID(int=7)}]},
]


@pytest.mark.parametrize("value", KEPT, ids=repr)
def test_a_value_comes_back_as_it_was_and_kombu_reads_the_same(value: Any):
    raw = encode_json(value)
    found = decode_json(raw)
    assert found == value
    assert type(found) is type(value)
    assert kombu.utils.json.loads(raw) == value
    assert raw.isascii()


@pytest.mark.parametrize("value", KEPT, ids=repr)
def test_what_kombu_writes_is_read(value: Any):
    text = kombu.utils.json.dumps(value)
    assert decode_json(text) == value
    assert decode_json(text.encode()) == value


def test_nan_is_written_and_read_as_celery_does():
    assert encode_json([math.nan]) == b"[NaN]"
    assert math.isnan(decode_json(b"NaN"))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((1, (2,)), [1, [2]]),
        (Pair(1, 2), [1, 2]),
        ({3}, [3]),
        (frozenset({3}), [3]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Colour.RED, "r"),
        (Level.HIGH, 9),
        (Mode.FAST, "fast"),
        (timedelta(days=1, seconds=90, microseconds=5), "P1DT90.000005S"),
        (PurePosixPath("a/b"), "a/b"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (Point(1, MOMENT), {"x": 1, "at": MOMENT}),
        (Order(Decimal("1.5"), {"a"}), {"type": "order", "unitPrice": Decimal("1.5"), "tags": ["a"]}),
        (Model(n=1, on=date(2020, 1, 2)), {"n": 1, "on": "2020-01-02"}),
        (Reducible(), {"reduced": 1}),
        (
            {1: "int", 1.5: "float", None: "none", False: "bool"},
            {"1": "int", "1.5": "float", "null": "none", "false": "bool"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_values_become_the_nearest_that_json_has(value: Any, written: Any):
    assert decode_json(encode_json(value)) == written


class Broken:
    def __json__(self) -> None:
        raise RuntimeError("no")


def itself(kind: type) -> Any:
    value: Any = kind()
    value.append(value) if kind is list else value.update(me=value)
    return value


def deep(levels: int) -> Any:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


class Endless:
    def __json__(self) -> list[Any]:
        return [Endless()]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "args: <class 'object'> cannot be written as JSON"),
        ([1, {"k": object()}], r"args[1]['k']: <class 'object'>"),
        (({1, object()},), "<class 'object'>"),
        ([Point(1, object())], "args[0]['at']: <class 'object'>"),  # type: ignore[arg-type]
        ({"a": [int]}, "args['a'][0]: <class 'type'>"),
        ([1j], "args[0]: <class 'complex'>"),
        ([{(1, 2): 3}], "args[0]: key of <class 'tuple'>"),
        ([{"__type__": "datetime", "__value__": "x"}], "args[0]: a dict of exactly the keys"),
        ([{"a": {"__value__": 1, "__type__": 2}}], "args[0]['a']: a dict of exactly the keys"),
        ([Broken()], "RuntimeError"),
        (itself(list), "contains itself"),
        (itself(dict), "args['me']: contains itself"),
        (deep(100_000), "nested too deeply"),
        (Endless(), "nested too deeply"),
        ([10**5000], "args[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_written_is_named_with_its_place(value: Any, message: str):
    with pytest.raises(EncodeError) as caught:
        encode_json(value, "args")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


def test_text_that_looks_like_a_tag_is_only_text():
    for value in ('{"__type__": 1}', ["__type__", "__value__"], {"k": "__type__"}):
        assert decode_json(encode_json(value)) == value


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage",
        b"{",
        b"[1,]",
        b"[1] 2",
        b"\xff",
        b'"\xff"',
        b"[" * 100_000,
        b"1" * 5000,
        b'{"__type__": "nope", "__value__": 1}',
        b'{"__type__": ["datetime"], "__value__": 1}',
        b'{"__type__": null, "__value__": 1}',
        b'{"__type__": "datetime", "__value__": "yesterday"}',
        b'{"__type__": "datetime", "__value__": 5}',
        b'{"__type__": "date", "__value__": null}',
        b'{"__type__": "decimal", "__value__": "one"}',
        b'{"__type__": "decimal", "__value__": "sNaN"}',
        b'{"__type__": "decimal", "__value__": "1e99999999"}',
        b'{"__type__": "decimal", "__value__": "-1e-5000"}',
        b'{"__type__": "uuid", "__value__": "not an object"}',
        b'{"__type__": "uuid", "__value__": {}}',
        b'{"__type__": "bytes", "__value__": 5}',
        b'{"__type__": "bytes", "__value__": "\\ud800"}',
        b'{"__type__": "base64", "__value__": "a"}',
        b'[{"a": {"__type__": "time", "__value__": "25:00"}}]',
    ],
)
def test_what_is_not_json_or_not_known_is_malformed(raw: bytes):
    with pytest.raises(MalformedMessage):
        decode_json(raw)


def test_big_integers_are_exact_and_big_floats_are_infinite_as_in_celery():
    assert decode_json(b"[123456789012345678901234567890]") == [123456789012345678901234567890]
    assert decode_json(b"1e400") == json.loads("1e400")


def test_a_decimal_that_takes_for_ever_to_compute_with_is_not_written():
    assert decode_json(encode_json(Decimal("1e4300"))) == Decimal("1e4300")
    for value in ("1e4301", "-1e-5000", "sNaN", "9" * 5000):
        with pytest.raises(EncodeError, match=r"args: .*a decimal .* 4300 places"):
            encode_json([Decimal(value)], "args")
