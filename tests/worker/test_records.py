"""Pydantic models and other records: what arrives is what was sent, or the sender is told that it would not be."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PrivateAttr,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
)

from celeriac import Celeriac, chain
from celeriac.errors import EncodeError

WAIT = 60.0


class Plain(BaseModel):
    a: int


class Aliased(BaseModel):
    limit: int = Field(default=10, alias="maxItems")


class Required(BaseModel):
    user_id: int = Field(alias="userId")


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    user_id: int = Field(alias="userId")


class OneWay(BaseModel):
    user_id: int = Field(validation_alias="userId", serialization_alias="uid")


class Strict(BaseModel, strict=True):
    when: dt.datetime
    pair: tuple[int, ...] = ()


class Computed(BaseModel, extra="forbid"):
    a: int

    @computed_field
    def double(self) -> int:
        return 2 * self.a


class Extra(BaseModel, extra="allow"):
    a: int


class Names(RootModel[list[str]]):
    pass


class Text(BaseModel):
    data: Json[dict[str, int]]


class Login(BaseModel):
    user: str
    password: SecretStr


class Told(Login):
    @field_serializer("password", when_used="json")
    def reveal(self, value: SecretStr) -> str:
        return value.get_secret_value()


class Excluded(BaseModel):
    a: int
    b: int = Field(default=0, exclude=True)


class Private(BaseModel):
    a: int
    _seen: int = PrivateAttr(default=0)

    @classmethod
    def seen(cls) -> "Private":
        made = cls(a=1)
        made._seen = 5
        return made


class Sub(Plain):
    b: int


class Holder(BaseModel):
    item: Plain


@dataclass
class Point:
    x: int


@dataclass
class Point3(Point):
    z: int


@dataclass
class Line:
    ends: list[Point]


class Struct(msgspec.Struct):
    a: int


NOW = dt.datetime.now()


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("records", broker="memory://")


@pytest.fixture
def echo(app: Celeriac) -> Callable[[Any], Any]:
    def make(hint: Any) -> Any:
        async def run(value):
            return value

        run.__annotations__ = {"value": hint, "return": hint}
        return app.register("echo", run)

    return make


SAME = [
    (Plain, Plain(a=1)),
    (Aliased, Aliased(maxItems=99)),
    (Required, Required(userId=1)),
    (ByName, ByName(user_id=1)),
    (Strict, Strict(when=NOW, pair=(1, 2))),
    (Computed, Computed(a=1)),
    (Extra, Extra(a=1, more=[2])),
    (Names, Names(["a"])),
    (Text, Text(data='{"a": 1}')),
    (Told, Told(user="ada", password=SecretStr("hunter2"))),
    (Excluded, Excluded(a=1)),
    (list[Required], [Required(userId=1), Required(userId=2)]),
    (Sub | Plain, Sub(a=1, b=2)),
    (Sub | Plain, Plain(a=1)),
    (dict[str, Point], {"p": Point(1)}),
    (Line, Line([Point(1)])),
]


@pytest.mark.parametrize(("hint", "sent"), SAME, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_record_arrives_and_comes_back_as_it_was(
    app: Celeriac, echo: Callable[[Any], Any], hint: Any, sent: Any
):
    task = echo(hint)
    async with app.worker():
        got = await (await task.send(sent)).wait(WAIT)
        behind = await (await chain(task.s(sent), task.s()).send()).wait(WAIT)
    assert (got, behind) == (sent, sent)
    assert type(got) is type(sent)


CHANGED = [
    (Login, Login(user="ada", password=SecretStr("hunter2")), "'password'"),
    (list[Login], [Login(user="ada", password=SecretStr("hunter2"))], "'password'"),
    (Excluded, Excluded(a=1, b=5), "'b'"),
    (OneWay, OneWay(userId=1), "OneWay"),
    (Private, Private.seen(), "Private"),
    (Plain, Sub(a=1, b=2), "Sub would arrive as Plain"),
    (list[Plain], [Plain(a=1), Sub(a=1, b=2)], "[1]: Sub would arrive as Plain"),
    (Plain | None, Sub(a=1, b=2), "Sub would arrive as Plain"),
    (Plain | Sub, Sub(a=1, b=2), "Sub would arrive as Plain"),  # the first that fits is taken
    (Holder, Holder(item=Sub(a=1, b=2)), "Holder"),
    (Point, Point3(1, 2), "Point3 would arrive as Point"),
    (Line, Line([Point3(1, 2)]), ".ends[0]: Point3 would arrive as Point"),
]


@pytest.mark.parametrize(("hint", "sent", "named"), CHANGED, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_record_that_would_arrive_as_another_is_refused_before_it_is_sent(
    app: Celeriac, echo: Callable[[Any], Any], hint: Any, sent: Any, named: str
):
    task = echo(hint)
    for send in (
        lambda: task.send(sent),
        lambda: task.send(value=sent),
        lambda: app.send_task("echo", [sent]),
        lambda: task.s(sent).send(),
        lambda: task.si(value=sent).send(),
        lambda: task.map([sent]).send(),
    ):
        with pytest.raises(EncodeError) as refused:
            await send()
        assert named in str(refused.value)
        assert "hunter2" not in str(refused.value)
    assert await app.connections().broker.peek("celery", 10) == []


async def test_a_returned_record_that_would_arrive_as_another_is_a_failure(app: Celeriac):
    @app.task
    async def login() -> Login:
        return Login(user="ada", password=SecretStr("hunter2"))

    @app.task
    async def derived() -> list[Plain]:
        return [Sub(a=1, b=2)]

    async with app.worker():
        for task, named in (
            (login, "'password'"),
            (derived, "the returned value[0]: Sub would arrive as Plain"),
        ):
            with pytest.raises(EncodeError) as failed:
                await (await task.send()).wait(WAIT)
            assert named in str(failed.value)


async def test_pickle_carries_a_derived_record_as_it_is():
    app = Celeriac("records", broker="memory://", accept_content=("json", "pickle"), serializer="pickle")

    @app.task
    async def kind(value: Plain) -> str:
        return type(value).__name__

    async with app.worker():
        assert await (await kind.send(Sub(a=1, b=2))).wait(WAIT) == "Sub"
