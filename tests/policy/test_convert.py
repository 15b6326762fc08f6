"""Arguments fitted to signatures and type hints: what passes, what is converted, what is refused and in which words."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    NewType,
    Optional,
    Protocol,
    TypedDict,
    TypeVar,
    Union,
)
from uuid import UUID

import msgspec
import pydantic
import pytest

from celeriac import ArgumentError, Context
from celeriac.arguments.convert import Arguments, Returns

if TYPE_CHECKING:
    from nowhere import Missing  # noqa: F401 - what a type checker knows and the program does not

UNIQUE = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
MOMENT = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


class Colour(Enum):
    RED = "red"


class Level(Enum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: int = 0


@dataclass
class Line:
    start: Point
    ends: list[Point]


class Order(msgspec.Struct):
    number: int
    at: datetime | None = None


class Visitor(pydantic.BaseModel):
    name: str
    age: int = 0


class Named(TypedDict):
    name: str


class Pair(NamedTuple):
    left: int
    right: str = ""


class Speaks(Protocol):
    def speak(self) -> str: ...


class Own:
    pass


Anything = TypeVar("Anything")
UserId = NewType("UserId", int)
own = Own()


def taking(hint: Any) -> Arguments:
    def task(value):
        """A task of one parameter."""

    task.__annotations__ = {"value": hint}
    return Arguments(task, injected=Context)


@pytest.mark.parametrize(
    ("hint", "given", "expected"),
    [
        (int, 3, 3),
        (int, 10**30, 10**30),
        (int, 2.0, 2),  # Go's encoding/json writes numbers it read as float64 this way
        (int, True, True),  # a bool is an int
        (list[int], [1.0, 2], [1, 2]),
        (dict[str, list[int]], {"a": [1.0]}, {"a": [1]}),
        (float, 3, 3.0),
        (float, 2.5, 2.5),
        (str, "x", "x"),
        (bool, False, False),
        (bytes, "aGk=", b"hi"),
        (bytes, b"hi", b"hi"),
        (datetime, "2030-01-02T03:04:05Z", MOMENT),
        (datetime, "2030-01-02T03:04:05+00:00", MOMENT),
        (datetime, "2030-01-02", datetime(2030, 1, 2)),
        (datetime, MOMENT, MOMENT),
        (date, "2030-01-02", date(2030, 1, 2)),
        (time, "03:04:05", time(3, 4, 5)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (timedelta, 1.5, timedelta(seconds=1.5)),
        (timedelta, timedelta(1), timedelta(1)),
        (UUID, str(UNIQUE), UNIQUE),
        (UUID, UNIQUE, UNIQUE),
        (Decimal, "1.10", Decimal("1.10")),
        (Decimal, 2, Decimal(2)),
        (Colour, "red", Colour.RED),
        (Colour, Colour.RED, Colour.RED),
        (Level, 1.0, Level.LOW),
        (list[Colour], ["red", Colour.RED], [Colour.RED, Colour.RED]),
        (Point, {"x": 1}, Point(1)),
        (Point, Point(1, 2), Point(1, 2)),
        (Line, {"start": {"x": 1}, "ends": [{"x": 2, "y": 3}]}, Line(Point(1), [Point(2, 3)])),
        (list[Point], [{"x": 1}, Point(2)], [Point(1), Point(2)]),
        (Order, {"number": 7, "at": "2030-01-02T03:04:05Z"}, Order(7, MOMENT)),
        (Visitor, {"name": "Ada", "age": 3}, Visitor(name="Ada", age=3)),
        (Visitor, Visitor(name="Ada"), Visitor(name="Ada")),
        (list[Visitor], [{"name": "Ada"}], [Visitor(name="Ada")]),
        (Optional[Visitor], None, None),  # noqa: UP045
        (Named, {"name": "x"}, {"name": "x"}),
        (Pair, [1, "b"], Pair(1, "b")),
        (list[int], (1, 2), [1, 2]),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2, 3], (1, 2, 3)),
        (set[str], ["a", "b"], {"a", "b"}),
        (frozenset[int], [1], frozenset({1})),
        (dict[int, str], {"1": "a"}, {1: "a"}),  # JSON has no other keys than text
        (Mapping[str, int], {"a": 1}, {"a": 1}),
        (Sequence[int], [1], [1]),
        (Iterable[int], [1], [1]),
        (int | None, None, None),
        (Optional[UUID], str(UNIQUE), UNIQUE),  # noqa: UP045
        (int | str, "x", "x"),
        (datetime | str, "2030-01-02", "2030-01-02"),  # what is of one of the types stays as it is
        (UUID | datetime, str(UNIQUE), UNIQUE),
        (Union[Point, Visitor], {"name": "Ada"}, Visitor(name="Ada")),  # noqa: UP007
        (Own | int, 5, 5),
        (Literal["a", "b"], "b", "b"),
        (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
        (UserId, 5, 5),
        (Path, "/tmp/x", Path("/tmp/x")),
        # These cannot be checked, or ask for nothing: whatever comes passes.
        (Any, own, own),
        (object, own, own),
        (Anything, own, own),
        (Speaks, own, own),
        ("Missing", own, own),
        ("list[Missing]", own, own),
    ],
)
def test_what_passes(hint, given, expected):
    [value], kwargs = taking(hint).bind([given], {})
    assert value == expected
    assert type(value) is type(expected)
    assert kwargs == {}
    assert taking(hint).bind([], {"value": given}) == ([], {"value": expected})


@pytest.mark.parametrize(
    ("hint", "given", "problem"),
    [
        (int, "two", "task() argument 'value': expected int, got str ('two')"),
        (int, "2", "task() argument 'value': expected int, got str ('2')"),
        (int, 2.5, "task() argument 'value': expected int, got float (2.5)"),
        (int, None, "task() argument 'value': expected int, got null (None)"),
        (str, 5, "task() argument 'value': expected str, got int (5)"),
        (bool, 1, "task() argument 'value': expected bool, got int (1)"),
        (float, "1", "task() argument 'value': expected float, got str ('1')"),
        (list[int], [1, "x"], "task() argument 'value[1]': expected int, got str"),
        (
            Line,
            {"start": {"x": 1}, "ends": [{"x": "?"}]},
            "task() argument 'value.ends[0].x': expected int, got str",
        ),
        (Point, {}, "task() argument 'value': object missing required field x ({})"),
        (Own, {"a": 1}, "task() argument 'value': expected Own, got dict ({'a': 1})"),
        (UUID, "nope", "task() argument 'value': invalid UUID ('nope')"),
        (datetime, "tomorrow", "task() argument 'value': invalid RFC3339 encoded datetime ('tomorrow')"),
        (Colour, "blue", "task() argument 'value': invalid enum value 'blue' ('blue')"),
        (Literal["a"], "b", "task() argument 'value': invalid enum value 'b' ('b')"),
        (UUID | datetime, 5, "task() argument 'value': expected UUID | datetime, got int (5)"),
        (Annotated[int, msgspec.Meta(ge=1)], 0, "task() argument 'value': expected int >= 1 (0)"),
    ],
)
def test_what_is_refused_and_how(hint, given, problem):
    with pytest.raises(ArgumentError) as refused:
        taking(hint).bind([given], {})
    assert str(refused.value) == problem
    with pytest.raises(ArgumentError) as refused:
        taking(hint).check([], {"value": given})
    assert str(refused.value) == problem


def test_a_pydantic_model_tells_what_is_wrong():
    with pytest.raises(ArgumentError) as refused:
        taking(list[Visitor]).bind([[{"age": "x"}]], {})
    problem, both = str(refused.value).split(": ", 1)
    assert problem == "task() argument 'value[0]'"
    assert "\n" not in both
    assert both.startswith("name: Field required; age: Input should be a valid integer")


def test_a_long_value_is_cut_in_the_message():
    with pytest.raises(ArgumentError) as refused:
        taking(int).bind(["x" * 100_000], {})
    assert len(str(refused.value)) < 200


def test_deep_nesting_is_an_argument_error():
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ArgumentError):
        taking(list[int]).bind([deep], {})


def add(x, y=2, *rest, z, **named):
    pass


def two(x: int, y: int) -> int:
    return x + y


def positional_only(x: int, /, y: int = 1):
    pass


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "problem"),
    [
        (two, [1], {}, "two() is missing the argument 'y'"),
        (two, [], {}, "two() is missing the arguments 'x', 'y'"),
        (two, [1, 2, 3], {}, "two() takes 2 arguments but 3 were given"),
        (two, [1], {"y": 2, "z": 3}, "two() got an unexpected argument 'z'"),
        (two, [1, 2], {"x": 3}, "two() got argument 'x' twice"),
        (two, [1], {"y": "b"}, "two() argument 'y': expected int, got str ('b')"),
        (add, [1, 2, 3], {}, "add() is missing the argument 'z'"),
        (positional_only, [], {"x": 1}, "positional_only() got an unexpected argument 'x'"),
        (lambda: None, [1], {}, "<lambda>() takes no arguments but 1 were given"),
    ],
)
def test_a_call_that_does_not_fit_the_signature(function, args, kwargs, problem):
    with pytest.raises(ArgumentError) as refused:
        Arguments(function).bind(args, kwargs)
    assert str(refused.value) == problem


def test_the_name_in_messages_is_the_tasks():
    with pytest.raises(ArgumentError, match=r"^shop\.two\(\)"):
        Arguments(two, name="shop.two").bind([], {})


def test_an_argument_error_is_a_type_error():
    assert issubclass(ArgumentError, TypeError)


def test_rest_and_named_rest_are_converted_by_their_hints():
    def task(first: str, *rest: int, **named: UUID):
        pass

    arguments = Arguments(task)
    assert arguments.bind(["a", 1, 2.0], {"u": str(UNIQUE)}) == (["a", 1, 2], {"u": UNIQUE})
    with pytest.raises(ArgumentError, match=r"argument '\*rest': expected int"):
        arguments.bind(["a", 1, "x"], {})
    with pytest.raises(ArgumentError, match="argument 'u'"):
        arguments.bind(["a"], {"u": 5})


def test_the_lengths_of_rest_that_senders_choose_are_not_kept():
    arguments = Arguments(lambda *rest: None)
    for count in range(50):
        arguments.bind([0] * count, {})
    assert len(arguments._shapes) <= 1


def test_what_bind_returns_is_its_own():
    args: list[Any] = [1, 2]
    kwargs: dict[str, Any] = {"z": 1}
    bound, named = Arguments(add).bind(args, kwargs)
    bound.append(3)
    named["more"] = 1
    assert (args, kwargs) == ([1, 2], {"z": 1})


def test_without_strictness_anything_goes():
    assert Arguments(two, strict=False).bind(["a"], {"b": 1}) == (["a"], {"b": 1})


class Service:
    def run(self, x: int, when: datetime):
        pass

    def __call__(self, x: int):
        pass


@pytest.mark.parametrize(
    ("function", "args", "expected"),
    [
        (Service().run, [1, "2030-01-02T03:04:05Z"], [1, MOMENT]),
        (Service(), [1.0], [1]),
        (functools.partial(two, 1), [2.0], [2.0]),
        (print, ["x", own], ["x", own]),
    ],
)
def test_other_things_that_can_be_called(function, args, expected):
    assert Arguments(function).bind(args, {})[0] == expected


def first(ctx: Context, x: int, y: int = 0):
    return ctx, x, y


def middle(x: int, ctx: Context, y: int = 0):
    return ctx, x, y


def keyword(x: int, y: int = 0, *, ctx: Context):
    return ctx, x, y


def optional(x: int, y: int = 0, ctx: Context | None = None):
    return ctx, x, y


def written(x: int, y: int = 0, ctx: "celeriac.Context" = None):  # noqa: F821 - imported for type checkers only
    return ctx, x, y


@pytest.mark.parametrize("function", [first, middle, keyword, optional, written])
@pytest.mark.parametrize(("args", "kwargs"), [([1, 2], {}), ([1], {"y": 2}), ([], {"x": 1, "y": 2})])
def test_the_context_is_injected_wherever_it_stands(function, args, kwargs):
    arguments = Arguments(function, injected=Context)
    assert arguments.context_parameter == "ctx"
    bound, named = arguments.bind(args, kwargs)
    arguments.inject("the context", bound, named)
    assert function(*bound, **named) == ("the context", 1, 2)


@pytest.mark.parametrize("function", [first, middle, keyword, optional])
def test_the_context_is_not_the_callers(function):
    with pytest.raises(
        ArgumentError, match=r"takes 2 arguments but 3 were given|takes 1 argument but 3 were given"
    ):
        Arguments(function, injected=Context).bind([1, 2, 3], {})
    with pytest.raises(ArgumentError, match="unexpected argument 'ctx'"):
        Arguments(function, injected=Context).bind([1], {"ctx": 1})


def test_a_bound_task_gets_its_context_first_whatever_it_calls_it():
    def task(self, x: int):
        return self, x

    arguments = Arguments(task, bound=True)
    bound, named = arguments.bind([], {"x": 1})
    arguments.inject("the context", bound, named)
    assert task(*bound, **named) == ("the context", 1)


def test_a_bound_task_without_parameters_is_refused_at_once():
    with pytest.raises(ArgumentError, match="bind=True"):
        Arguments(lambda: None, bound=True)


@pytest.mark.parametrize(
    ("hint", "stored", "expected"),
    [
        (Point, {"x": 1}, Point(1)),
        (Point, "something else", "something else"),
        (datetime, "2030-01-02T03:04:05Z", MOMENT),
        (Callable[[], int], 5, 5),
        (None, None, None),
    ],
)
def test_the_value_is_converted_to_the_return_annotation_where_it_fits(hint, stored, expected):
    def task():
        pass

    task.__annotations__ = {"return": hint}
    assert Returns(task).convert(stored) == expected


def test_no_return_annotation_no_conversion():
    assert Returns(lambda: None).convert(own) is own
