"""Short text of any value."""

from collections import OrderedDict
from datetime import date
from typing import Any

import pytest

from celeriac.wire.preview import preview


@pytest.mark.parametrize(
    "value",
    [
        (),
        (1,),
        (1, "héllo ☃", None, True, 1.5),
        {"k": [1, {"n": None}]},
        {1},
        set(),
        frozenset({1}),
        b"\xff\x00",
        [[], {}, ((),)],
        OrderedDict(a=1),
        date(2020, 1, 2),
        {(1, 2): "tuple key"},
        "",
    ],
    ids=repr,
)
def test_what_is_short_is_its_repr(value: Any):
    assert preview(value) == repr(value)


class Loud:
    def __repr__(self) -> str:
        return "x" * 10_000


class Broken:
    def __repr__(self) -> str:
        raise RuntimeError


def endless() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10**6,
        b"x" * 10**6,
        ["y" * 10**6],
        list(range(10**6)),
        {n: n for n in range(10**5)},
        {"x" * 2000: "y" * 10**6},
        [["x" * 1000, ["y" * 30]], "z"],
        Loud(),
        [Loud()],
        endless(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_long_is_cut(value: Any):
    text = preview(value)
    assert len(text) == 1024
    assert text.endswith("...")


def test_a_value_without_a_repr_is_named():
    assert preview((Broken(),)) == "(<Broken: its repr raised RuntimeError>,)"


def test_an_int_too_long_for_text_is_named():
    assert "int" in preview(10**5000)


def test_no_more_is_read_of_a_value_than_is_shown():
    seen = 0

    class Item:
        def __repr__(self) -> str:
            nonlocal seen
            seen += 1
            return "item"

    preview([Item() for _ in range(10_000)])
    assert seen < 300
