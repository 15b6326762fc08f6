"""Constraints in ``Annotated``, whoever wrote them, and defaults of None."""

from decimal import Decimal
from typing import Annotated, Any, Optional
from uuid import UUID

import annotated_types as at
import msgspec
import pytest
from pydantic import Field, PositiveInt, StringConstraints

from celeriac import ArgumentError, Celeriac


def task_taking(hint: Any) -> Any:
    def check(value):
        """A task of one parameter."""

    check.__annotations__ = {"value": hint}
    return Celeriac("constraints", broker="memory://").register("check", check)


CASES = [
    (Annotated[int, msgspec.Meta(ge=1)], 1, 0),
    (Annotated[int, at.Gt(0)], 1, 0),
    (Annotated[int, at.Gt(0), at.Le(5)], 5, 6),
    (Annotated[int, at.Interval(ge=1, lt=5)], 1, 5),
    (Annotated[int, at.MultipleOf(3)], 9, 10),
    (Annotated[float, at.Lt(1.5)], 1, 1.5),
    (Annotated[str, at.MinLen(2)], "ab", "a"),
    (Annotated[str, at.Len(1, 3)], "abc", "abcd"),
    (Annotated[list[int], at.MaxLen(2)], [1, 2], [1, 2, 3]),
    (Annotated[int, Field(gt=0, description="how many")], 1, 0),
    (Annotated[str, Field(pattern="^a+$")], "aa", "b"),
    (Annotated[str, StringConstraints(max_length=2)], "ab", "abc"),
    (PositiveInt, 1, -1),
    (Annotated[int, msgspec.Meta(ge=1), at.Lt(3)], 2, 3),
    (list[Annotated[int, at.Gt(0)]], [1, 2], [1, 0]),
    (dict[str, list[PositiveInt]], {"a": [1]}, {"a": [0]}),
    (tuple[PositiveInt, ...], [1], [0]),
    (Optional[PositiveInt], None, 0),  # noqa: UP045
    (PositiveInt | None, 3, 0),
    (Annotated[PositiveInt, at.Lt(5)], 4, 5),
]


@pytest.mark.parametrize(("hint", "good", "bad"), CASES, ids=str)
def test_a_constraint_is_checked(hint: Any, good: Any, bad: Any):
    task = task_taking(hint)
    task.call(good)
    task.call(value=good)
    for send in (lambda: task.call(bad), lambda: task.call(value=bad)):
        with pytest.raises(ArgumentError, match=r"argument 'value.*': "):
            send()


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (Annotated[int, at.Predicate(lambda value: value > 0)], -1),
        (Annotated[Decimal, at.Gt(Decimal(0))], Decimal(-1)),
        (Annotated[int, "a text"], -1),
        (Annotated[int, at.Gt("a")], 5),  # type: ignore[arg-type]
        (Annotated[UUID, at.MinLen(3)], UUID(int=1)),
    ],
    ids=["predicate", "decimal", "text", "bound of another type", "length of what has none"],
)
def test_what_cannot_be_checked_passes_and_the_type_is_checked_still(hint: Any, value: Any):
    task = task_taking(hint)
    task.call(value)
    with pytest.raises(ArgumentError):
        task.call(["no such thing"])


async def test_none_is_taken_where_it_is_the_default():
    app = Celeriac("defaults", broker="memory://")

    @app.task
    async def greet(
        name: str = None,  # type: ignore[assignment]  # noqa: RUF013
        *,
        ids: list[UUID] = None,  # type: ignore[assignment]  # noqa: RUF013
        size: PositiveInt = None,  # type: ignore[assignment]
        title: str = "",
    ) -> list[Any]:
        return [name, ids, size]

    async with app.worker():
        assert await (await greet.send(None, ids=None, size=None)).wait(60) == [None, None, None]
        one = UUID(int=1)
        assert await (await greet.send("ada", ids=[one], size=1)).wait(60) == ["ada", [one], 1]
    for wrong in ({"name": 5}, {"ids": ["x"]}, {"size": 0}, {"title": None}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            greet.call(**wrong)  # type: ignore[arg-type]
