"""What a type checker must see in right uses; checked by mypy and pyright, never run."""

from collections.abc import Coroutine
from typing import Any, assert_type

from celeriac import Call, Celeriac, Context, GroupResult, Result, Retry, as_completed, crontab
from celeriac.celery_app.async_task import AsyncTask
from celeriac.client.task import FunctionTask

app = Celeriac("shop", broker="redis://localhost", backend="redis://localhost", lease=10.0)


@app.task
async def add(x: int, y: int = 0) -> int:
    return x + y


@app.task
def greet(name: str, *, loud: bool = False) -> str:
    return name.upper() if loud else name


@app.task(retry=Retry(on=(OSError,), max_attempts=5, backoff=2.0), timeout=30)
def fetch(ctx: Context, url: str) -> bytes:
    ctx.progress(1, total=2)
    return url.encode()


@app.periodic(crontab(hour=7, minute=30), tz="Europe/Berlin", overlap="skip")
@app.task
async def nightly(day: int = 0) -> int:
    return day


async def schedules() -> None:
    assert_type(await nightly.send(1), Result[int])
    app.schedule("cleanup", nightly, 300.0, args=(1,), options={"queue": "slow"}, catch_up="none")
    await app.schedules.add("tenant", nightly, crontab(hour="*/2"), jitter=20)


@app.task(name="fetch", queue="slow")
async def fetch_soon(ctx: Context, url: str) -> bytes:
    return url.encode()


@app.task(bind=True, ignore_result=True)
def bound(self: Context, number: int) -> None:
    if self.attempt < 3:
        self.retry(countdown=1)


@app.task(bind=True)
async def bound_soon(self: Context, number: int) -> float:
    return number / self.attempt


def plain(x: int) -> list[int]:
    return [x]


made = app.task(name="plain", bind=False)(plain)


async def called_here() -> None:
    coroutine: Coroutine[Any, Any, int] = add(1, y=2)
    assert_type(await coroutine, int)
    assert_type(greet("ada", loud=True), str)
    assert_type(fetch("http://x"), bytes)
    assert_type(made(1), list[int])
    bound(5)


async def sent_by_asyncio_code() -> None:
    result = await add.send(1, 2)
    assert_type(result, Result[int])
    assert_type(await result, int)
    assert_type(await result.wait(timeout=10), int)
    assert_type(await (await greet.send("ada")).wait(), str)
    assert_type(await fetch.using(queue="slow", countdown=10, priority=5).send("http://x"), Result[bytes])
    assert_type(await fetch_soon.send(url="http://x"), Result[bytes])
    assert_type(await bound.send(5), Result[None])
    assert_type(await bound_soon.using(task_id="i").using(queue="q").send(5), Result[float])
    assert_type(await made.send(1), Result[list[int]])
    assert_type(await app.send_task("worker.add", args=[2, 3], queue="q"), Result[Any])
    calls = [add.call(1, 2), add.using(priority=3).call(y=1, x=2)]
    assert_type(calls, list[Call[int]])
    assert_type(await app.send_many(calls), list[Result[int]])
    async for done in as_completed([result]):
        assert_type(await done, int)
    mixed: list[Result[object]] = [*await app.send_many([add.call(1, 2), greet.call("ada")])]
    async for one in as_completed([*mixed, result]):
        assert_type(await one, object)
    async for record in result.watch():
        assert_type(record.status, str)


def sent_by_code_without_a_loop() -> None:
    assert_type(add.delay(1, 2), Result[int])
    assert_type(add.delay(1, 2).get(timeout=10), int)
    assert_type(greet.using(queue="slow").delay("ada", loud=True), Result[str])
    assert_type(add.apply_async((1, 2), queue="slow"), Result[int])
    assert_type(app.delay("worker.add", 2, 3), Result[Any])
    assert_type(app.delay_many([greet.call("ada")]), list[Result[str]])
    assert_type(add.delay(1).children, list[Result[Any] | GroupResult[Any]])
    assert_type(add.delay(1).ready(), bool)


class Mailer:
    def run(self, to: str) -> None:
        print(to)


def registered() -> None:
    app.register("mail.send", Mailer()).delay("ada")
    app.register("plain", plain, retry=Retry(), timeout=5.0).delay(1)
    app.task(plain).using(
        exchange="e",
        routing_key="r",
        expires=5,
        headers={"a": 1},
        serializer="json",
        protocol=1,
        retry=Retry(),
    )


@app.task
def first_could_be_anything(value: Any, number: int) -> int:
    return number


@app.task(queue="q")
async def first_is_an_object(value: object, number: int) -> int:
    return number


async def their_arguments_are_all_there() -> None:
    await first_could_be_anything.send("x", number=1)
    assert_type(await first_is_an_object.send("x", 1), Result[int])


assert_type(app.task(plain).function(1), Any)
spelt_out: FunctionTask[[int], list[int]] = made


async def a_task_of_a_celery_app(task: AsyncTask) -> None:
    await task.asend(1, y=2)
    result = await task.aapply_async([1], {"y": 2}, queue="slow")
    result.forget()
