"""Tasks whose functions stand behind decorators: what the decorator supplies, and what the caller gives."""

import asyncio
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from celeriac import ArgumentError, Celeriac, Context, SoftTimeLimitExceeded

WAIT = 60.0


@dataclass
class Order:
    number: int


def with_session(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function("SESSION", *args, **kwargs)

    return wrapper


def with_named(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, session="SESSION", **kwargs)

    return wrapper


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def parsed(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(text: str) -> Any:
        return function(Order(int(text)))

    return wrapper


@pytest.fixture
def app() -> Celeriac:
    return Celeriac("decorated", broker="memory://")


async def result_of(app: Celeriac, task: Any, *args: Any, **kwargs: Any) -> Any:
    async with app.worker():
        return await (await task.send(*args, **kwargs)).wait(WAIT)


async def test_a_decorator_supplies_the_first_argument(app: Celeriac):
    @app.task
    @with_session
    def charge(session: str, order: Order, note: str = "") -> str:
        return f"{session} {order.number + 1} {note}"

    async with app.worker():
        for args, kwargs in (((Order(7),), {}), ((), {"order": Order(7)}), ((Order(7), "now"), {})):
            got = await (await charge.send(*args, **kwargs)).wait(WAIT)  # type: ignore[arg-type]
            assert got.split() == ["SESSION", "8", *args[1:]]
        assert await (await app.send_task(charge.name, [{"number": 1}])).wait(WAIT) == "SESSION 2 "


async def test_a_decorator_supplies_an_argument_by_name(app: Celeriac):
    @app.task
    @timed
    @with_named
    async def charge(order: Order, *, session: str) -> str:
        return f"{session} {order.number + 1}"

    assert await result_of(app, charge, Order(7)) == "SESSION 8"


async def test_two_decorators_supply_one_each(app: Celeriac):
    @app.task
    @with_session
    @with_named
    def charge(first: str, order: Order, *, session: str) -> str:
        return f"{first} {order.number + 1} {session}"

    assert await result_of(app, charge, Order(7)) == "SESSION 8 SESSION"
    assert await result_of(app, charge, order=Order(7)) == "SESSION 8 SESSION"


@pytest.mark.parametrize("bind", [False, True])
async def test_the_context_comes_where_the_function_has_it(app: Celeriac, bind: bool):
    def charge(session: str, ctx: Context, order: int) -> list[Any]:
        return [session, ctx.attempt, order]

    def bound(ctx: Any, order: int) -> list[Any]:
        return ["SESSION", ctx.attempt, order]

    function = timed(bound) if bind else with_session(charge)
    task = app.register("charge", function, bind=bind)
    assert await result_of(app, task, 7) == ["SESSION", 1, 7]
    assert await result_of(app, task, order=7) == ["SESSION", 1, 7]


async def test_what_a_decorator_makes_of_its_arguments_is_its_own(app: Celeriac):
    @app.task
    @parsed
    def number(order: Order) -> int:
        return order.number

    assert await result_of(app, number, "12") == 12
    with pytest.raises(ArgumentError, match="takes 1 argument but 2"):
        number.call("1", "2")


def test_a_call_that_fits_the_function_is_still_checked_by_its_types(app: Celeriac):
    @app.task
    @timed
    def add(x: int, y: int = 0) -> int:
        return x + y

    add.call(1, 2)
    for args, kwargs in (((1, "two"), {}), (("one",), {"y": 2})):
        with pytest.raises(ArgumentError, match="expected int, got str"):
            add.call(*args, **kwargs)


async def test_methods_and_objects_behind_decorators(app: Celeriac):
    class Shop:
        rate = 2

        @timed
        def price(self, x: int) -> int:
            return self.rate * x

    class Decorator:
        def __init__(self, function: Callable[..., Any]) -> None:
            functools.update_wrapper(self, function)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return self.__wrapped__("SESSION", *args, **kwargs)  # type: ignore[attr-defined]

    def charge(session: str, order: int) -> str:
        return f"{session} {order}"

    assert await result_of(app, app.register("price", Shop().price), 3) == 6
    assert await result_of(app, app.register("charge", Decorator(charge)), 3) == "SESSION 3"
    assert await result_of(app, app.register("cached", functools.cache(Shop().price)), 3) == 6


@pytest.mark.parametrize("pool", ["threads", "solo"])
async def test_a_plain_wrapper_of_a_coroutine_function(app: Celeriac, pool: str):
    def untold(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: function(*args)  # noqa: PLW0108

    async def place(ctx: Context, x: int) -> list[Any]:
        await asyncio.sleep(0)
        return [x, ctx.attempt, threading.current_thread().name]

    async def double(x: int) -> int:
        return 2 * x

    here = threading.current_thread().name
    async with app.worker(pool=pool):
        task = app.register("place", timed(place))
        assert await (await task.send(3)).wait(WAIT) == [3, 1, here]
        task = app.register("double", untold(double))
        assert await (await task.send(3)).wait(WAIT) == 6
        assert await (await task.map([1, 2]).send()).wait(WAIT) == [2, 4]


async def test_its_limits_hold_for_the_coroutine(app: Celeriac):
    async def endless() -> None:
        await asyncio.Event().wait()

    task = app.register("endless", timed(endless), soft_timeout=0.1)
    async with app.worker():
        with pytest.raises(SoftTimeLimitExceeded):
            await (await task.send()).wait(WAIT)
